import numpy as np
import pytest

from earthformer_jax import plotting
from earthformer_jax.data.dataset import Channel, Display
from earthformer_jax.plotting.frames import every

DISPLAY = Display(
    (Channel("T", "K", 2.0, 280.0), Channel("P", "hPa", colormap="RdBu_r")),
    "6 h",
    south_first=True,
)


def example(seed=0, t=3, k=4, c=2, **more):
    fields = np.random.default_rng(seed).normal(size=(t + k, 5, 8, c))
    return {"inputs": fields[:t], "targets": fields[t:], **more}


def panels(figure):
    """Axes with a field in them."""
    return [axes for axes in figure.axes if axes.images]


def texts(figure):
    return [t.get_text() for t in figure.texts]


def test_at_most_some_evenly_apart_with_the_last():
    assert every(12, 6) == [1, 3, 5, 7, 9, 11]
    assert every(13, 10) == [0, 2, 4, 6, 8, 10, 12]
    assert every(5, 6) == [0, 1, 2, 3, 4]
    assert every(1, 6) == [0]


class TestForecast:
    def figure(self, t=13, k=12, **options):
        rng = np.random.default_rng(0)
        truth = rng.normal(size=(k, 5, 8))
        self.forecast = truth + 0.5
        return plotting.forecast_frames(
            rng.normal(size=(t, 5, 8)),
            truth,
            {"model": self.forecast, "persistence": rng.normal(size=(k, 5, 8))},
            channel=DISPLAY.channels[0],
            display=DISPLAY,
            title="One forecast",
            **options,
        )

    def test_rows_and_columns(self):
        figure = self.figure()
        assert len(panels(figure)) == 6 * 5
        labels = [a.get_ylabel() for a in figure.axes if a.get_ylabel()]
        rows = ["Inputs", "Truth", "Model", "Persistence", "Model error"]
        assert labels == [*rows, "T (K)", "error (K)"]

    def test_times_are_as_far_apart_before_and_after(self):
        titles = [a.get_title() for a in panels(self.figure())[:12]]
        before = ["−60 h", "−48 h", "−36 h", "−24 h", "−12 h", "now"]
        after = ["+12 h", "+24 h", "+36 h", "+48 h", "+60 h", "+72 h"]
        assert titles == before + after

    def test_few_inputs_stand_at_the_right(self):
        titles = [a.get_title() for a in self.figure(t=3).axes[:6]]
        assert titles == ["", "", "", "", "−12 h", "now"]

    def test_error_is_forecast_less_truth_and_centred(self):
        image = panels(self.figure())[-1].images[0]
        np.testing.assert_allclose(image.get_array(), 0.5)
        low, high = image.get_clim()
        assert low == -high

    def test_south_is_at_the_bottom(self):
        assert panels(self.figure())[0].images[0].origin == "lower"


class TestContactSheet:
    def test_a_row_per_example_and_channel(self):
        examples = [example(i) for i in range(3)]
        figure = plotting.contact_sheet(examples, DISPLAY, "Samples")
        assert len(panels(figure)) == 3 * 2 * (3 + 4)
        assert set(texts(figure)) == {"Inputs", "Targets", "Samples"}
        labels = [a.get_ylabel() for a in panels(figure) if a.get_ylabel()]
        assert labels == ["1\nT", "P", "2\nT", "P", "3\nT", "P"]

    def test_further_input_channels_are_not_shown(self):
        whole = example(c=2)
        whole["targets"] = whole["targets"][..., :1]
        display = Display((Channel(),))
        figure = plotting.contact_sheet([whole], display, "")
        assert len(panels(figure)) == 7

    def test_many_frames_are_thinned(self):
        figure = plotting.contact_sheet([example(t=13, k=25)], DISPLAY, "")
        assert len(panels(figure)) == 2 * (7 + 9)

    def test_the_unobserved_is_masked(self):
        observed = np.ones((4, 5, 8, 2), bool)
        observed[1] = False
        figure = plotting.contact_sheet([example(observed=observed)], DISPLAY, "")
        hidden = [bool(np.all(a.images[0].get_array().mask)) for a in panels(figure)]
        assert hidden == 2 * [*[False] * 4, True, False, False]

    @pytest.mark.parametrize(
        "step, frame, first, row",
        (
            (60, "1 h", "00:00", "2020-05-01"),
            (1440, "day", "05-01", "2020"),
            (6 * 1440 + 360, "150 h", "05-01 00:00", "2020"),
            (31 * 1440, "month", "2020-05", "2020"),
        ),
    )
    def test_frames_carry_their_dates(self, step, frame, first, row):
        start = np.datetime64("2020-05-01", "m").astype(np.int64)
        time = (start + step * np.arange(7)).astype(np.int32)
        display = Display((Channel(),), frame)
        figure = plotting.contact_sheet([example(c=1, time=time)], display, "")
        axes = panels(figure)[0]
        assert axes.get_title() == first and axes.get_ylabel() == row


def test_targets_that_are_the_inputs_have_their_times():
    fields = np.random.default_rng(0).normal(size=(4, 3, 5, 1)).astype(np.float32)
    days = np.arange("2001-02-27", "2001-03-03", dtype="datetime64[D]")
    minutes = days.astype("datetime64[m]").astype(np.int32)
    figure = plotting.contact_sheet(
        [{"inputs": fields, "targets": fields, "time": minutes}], Display(), "made"
    )
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == 2 * ["02-27", "02-28", "03-01", "03-02"]
