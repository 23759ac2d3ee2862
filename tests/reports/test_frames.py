import dataclasses
import json

import numpy as np
import pytest

from earthformer_jax.data.dataset import Channel, Data, Display
from earthformer_jax.data.task import ForecastFrames
from earthformer_jax.metrics.channels import ChannelScores
from earthformer_jax.metrics.frames import FrameScores
from earthformer_jax.metrics.pixel import PixelError
from earthformer_jax.metrics.precipitation import RainScores
from earthformer_jax.reports import ModelFunctions, Settings, frames

EXAMPLES, IN_LEN, OUT_LEN = 23, 3, 4
VALUE = (Channel("value"),)


@dataclasses.dataclass(frozen=True)
class Source:
    """A patch that drifts east, the faster the larger the number of the example."""

    channels: int = 1
    gaps: bool = False

    def __len__(self):
        return EXAMPLES

    def __getitem__(self, i):
        field = np.zeros((12, 14), np.float32)
        field[4:8, :3] = 1
        fields = np.stack(
            [np.roll(field, round(0.1 * i * t), axis=1) for t in range(7)]
        )
        fields = np.repeat(fields[..., None], self.channels, axis=-1)
        example = {"inputs": fields[:IN_LEN], "targets": fields[IN_LEN:]}
        if self.gaps:
            example["observed"] = np.ones(example["targets"].shape, bool)
            example["observed"][1, :5] = False
        return example


def task(metric, **references):
    return ForecastFrames(metric=metric, references=references, mse_units="units^2")


def patches(channels=VALUE, gaps=False):
    source = Source(len(channels), gaps)
    return Data(
        name="patches",
        description="patches that drift",
        train=source,
        validation=source,
        test=source,
        loss_weights=np.ones((1, 1, 1, 1)),
        display=Display(channels, "5 min"),
    )


def model(batch):
    """Half of the truth; the larger the patch, the larger its error."""
    return 0.5 * batch["targets"]


def score(task, data, workdir, forecast=model):
    return frames.score(task, data, ModelFunctions(forecast), workdir, Settings(5, 2))


def test_scores_file_table_and_figures(tmp_path, capsys):
    scores = score(task(FrameScores()), patches(), tmp_path)
    assert json.loads((tmp_path / "scores.json").read_text()) == scores
    assert list(scores["forecasts"]) == ["model", "persistence"]
    assert scores["data"] == {
        "name": "patches",
        "description": "patches that drift",
        "test_examples": EXAMPLES,
        "input_frames": IN_LEN,
        "leads": [1, 2, 3, 4],
        "frame": "5 min",
        "channels": ["value"],
        "mse_units": "units^2",
    }
    found = scores["forecasts"]["model"]
    assert found["mse"] == pytest.approx(12 * 0.25)
    assert len(found["mse_by_lead"]) == len(found["ssim_by_lead"]) == OUT_LEN
    lines = capsys.readouterr().out.splitlines()
    assert "patches that drift" in lines[0] and "units^2" in lines[1]
    assert lines[2].split() == ["mse", "mae", "ssim"]
    assert [line.split()[0] for line in lines[3:]] == ["model", "persistence"]
    names = sorted(p.name for p in (tmp_path / "figures").iterdir())
    assert names == ["forecast.gif", "forecast.png", "skill.png"]


def test_a_metric_without_curves_needs_no_figure_of_skill(tmp_path):
    scores = score(task(PixelError()), patches(), tmp_path)
    assert sorted(scores["forecasts"]["model"]) == ["mae", "mse"]
    assert not (tmp_path / "figures" / "skill.png").exists()
    assert (tmp_path / "figures" / "forecast.png").exists()


def test_a_figure_for_each_channel_and_gaps(tmp_path):
    channels = (Channel("T", "K"), Channel("a/b c"))
    question = task(
        ChannelScores(("T", "a/b c")), climatology=lambda batch: 0 * batch["targets"]
    )
    scores = score(question, patches(channels, gaps=True), tmp_path)
    assert list(scores["forecasts"]) == ["model", "persistence", "climatology"]
    names = sorted(p.name for p in (tmp_path / "figures").iterdir())
    assert names == [
        "forecast.gif",
        "forecast.png",
        "forecast_a_b_c.png",
        "skill.png",
    ]


def test_what_a_data_set_says_about_persistence_is_kept(tmp_path):
    question = task(FrameScores(), persistence=lambda batch: batch["targets"])
    scores = score(question, patches(), tmp_path)
    assert scores["forecasts"]["persistence"]["mse"] == 0


def test_second_panel_shows_ssim_or_csi_where_there_is_one():
    for metric, labels in (
        (FrameScores(), ["Mean squared error, units²", "SSIM"]),
        (RainScores(), ["Mean squared error, units²", "CSI, mean over thresholds"]),
        (ChannelScores(("value",)), ["Mean squared error, units²"]),
    ):
        data = patches()
        batch = {k: v[None] for k, v in data.test[3].items()}
        found = metric.compute(metric.update(metric.init(), model(batch), batch))
        scores = {
            "data": frames.describe(task(metric), data),
            "forecasts": {"model": found},
        }
        figure = frames.skill_figure(scores)
        assert [axes.get_ylabel() for axes in figure.axes] == labels


class TestExample:
    def watched(self, size=5, **options):
        errors = frames.ExampleErrors()
        data = patches(**options)
        for first in range(0, EXAMPLES, size):
            numbers = np.minimum(np.arange(first, first + size), EXAMPLES - 1)
            examples = [data.test[i] for i in numbers]
            batch = {k: np.stack([x[k] for x in examples]) for k in examples[0]}
            batch["valid"] = np.arange(first, first + size) < EXAMPLES
            last = np.repeat(batch["inputs"][:, -1:], OUT_LEN, axis=1)
            fields = {"model": batch["targets"] + numbers[:, None, None, None, None]}
            errors.watch(batch, fields | {"persistence": last})
        return errors

    def test_errors_of_every_example_without_padding(self):
        errors = self.watched()
        np.testing.assert_allclose(errors.model, np.arange(EXAMPLES) ** 2.0)
        assert len(errors.change) == EXAMPLES and errors.change[0] == 0

    def test_unknown_values_are_left_out(self):
        errors = self.watched(gaps=True)
        np.testing.assert_allclose(errors.model, np.arange(EXAMPLES) ** 2.0)

    def test_the_median_of_the_lively_ones_is_chosen(self):
        errors = frames.ExampleErrors()
        errors.change = list(range(30))
        errors.model = [0.0] * 27 + [5.0, 9.0, 7.0]
        assert sorted(errors.lively()) == [27, 28, 29]
        assert errors.typical() == 29

    def test_one_example_and_its_forecasts(self):
        data = patches()
        found = frames.one_example(data.test, 7, {"model": model}, batch_size=4)
        np.testing.assert_array_equal(found["targets"], data.test[7]["targets"])
        np.testing.assert_array_equal(
            found["forecasts"]["model"], 0.5 * data.test[7]["targets"]
        )


def test_the_best_reference_has_the_smallest_known_error():
    results = {"model": 0.1, "persistence": 2.0, "b": float("nan"), "c": 1.0}
    results = {name: {"mse": mse} for name, mse in results.items()}
    assert frames.best_reference(results) == "c"
    assert frames.ranked_references(results) == ["c", "persistence", "b"]


def test_figures_show_dates_and_no_more_forecasts_than_fit(tmp_path, monkeypatch):
    data = patches()
    example = frames.one_example(data.test, 3, {"model": model}, 1)
    example["time"] = 26000000 + 5 * np.arange(IN_LEN + OUT_LEN, dtype=np.int32)
    example["forecasts"] |= {f"r{i}": example["targets"] for i in range(9)}
    asked = {}
    monkeypatch.setattr(
        frames.plotting, "forecast_frames", lambda *x, **o: asked.update(still=(x, o))
    )
    monkeypatch.setattr(
        frames.plotting,
        "forecast_animation",
        lambda *x, **o: asked.update(moving=(x, o)),
    )
    for name in ("save", "save_animation"):
        monkeypatch.setattr(frames.plotting, name, lambda *x: None)
    frames.draw(example, data.display, "Example", tmp_path, dated=True)
    (_, _, still), options = asked["still"]
    assert list(still) == ["model", "r0", "r1", "r2", "r3", "r4"]
    assert options["title"] == "Example; last input 2019-06-08 13:30 UTC"
    (_, _, moving), options = asked["moving"]
    assert list(moving) == ["model", "r0", "r1"]
    assert str(options["moments"][-1]) == "2019-06-08T13:50"
    frames.draw(example, data.display, "Example", tmp_path)
    assert asked["moving"][1]["moments"] is None


def test_a_failing_forecast_leaves_no_scores(tmp_path):
    def broken(batch):
        raise RuntimeError("no forecast")

    with pytest.raises(RuntimeError, match="no forecast"):
        score(task(FrameScores()), patches(), tmp_path, broken)
    assert not (tmp_path / "scores.json").exists()


def test_samples_are_drawn_below_the_forecast():
    data = patches(gaps=True)
    example = frames.one_example(data.test, 3, {"model": model}, 2)
    samples = np.stack([np.full_like(example["targets"], i) for i in range(3)])
    figure = frames.draw_samples(example, samples, data.display, "Samples")
    labels = [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]
    rows = ["Inputs", "Truth", "Forecast", "Sample 1", "Sample 2", "Sample 3"]
    assert labels[: len(rows)] == rows
    drawn = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert len(drawn) == IN_LEN + 5 * OUT_LEN
    assert (drawn[-1] == 2).all() and drawn[IN_LEN + 1].mask[:5].all()
