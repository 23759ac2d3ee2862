import dataclasses

import numpy as np
import pytest
import xarray as xr

from earthformer_jax.data.dataset import Channel, Data, Display
from earthformer_jax.data.leaks import Spans
from earthformer_jax.data.splits import SPLITS
from earthformer_jax.data.task import EmbedSeries, RestoreFrames
from earthformer_jax.metrics.pixel import PixelError
from earthformer_jax.reports.page import fields

IN_LEN, OUT_LEN, EXAMPLES = 2, 3, 5


@dataclasses.dataclass(frozen=True)
class Source:
    dated: bool

    def __len__(self):
        return EXAMPLES

    def __getitem__(self, i):
        frames = np.full((IN_LEN + OUT_LEN, 4, 6, 1), i, np.float32)
        frames += np.arange(IN_LEN + OUT_LEN)[:, None, None, None] / 10
        example = {"inputs": frames[:IN_LEN], "targets": frames[IN_LEN:]}
        example["observed"] = np.ones(example["targets"].shape, bool)
        example["observed"][:, 0] = i != 1
        if self.dated:
            example["time"] = (26000000 + 5 * (i + np.arange(5))).astype(np.int32)
        return example


def data_of(dated):
    number = np.arange(EXAMPLES)
    # Test windows come after the others.
    spans = {
        split: Spans(*(number + 100 * i + x for x in (0, IN_LEN, IN_LEN + OUT_LEN - 1)))
        for i, split in enumerate(SPLITS * dated)
    }
    return Data(
        name="patches",
        description="patches",
        train=[],
        validation=[],
        test=Source(dated),
        loss_weights=np.ones((1, 1, 1, 1)),
        display=Display((Channel("rain rate", "mm/h", 2.0, 1.0),), "5 min"),
        coordinates={"latitude": np.arange(4.0), "longitude": np.arange(6.0)},
        spans=spans,
    )


def written(tmp_path, dated, number):
    forecasts = {
        "model": lambda batch: batch["targets"] + 1,
        "zero": lambda batch: 0 * batch["targets"],
    }
    path = tmp_path / "forecasts.nc"
    fields.write(path, data_of(dated), forecasts, number, 2, {"title": "t"})
    with xr.open_dataset(path) as file:
        return file.load()


def test_forecasts_and_truth_in_displayed_units_with_their_dates(tmp_path):
    found = written(tmp_path, True, 3)
    assert found.sizes == {
        "forecast_reference_time": 3,
        "lead_time": 3,
        "lat": 4,
        "lon": 6,
    }
    truth, model = found["rain_rate_truth"], found["rain_rate_model"]
    assert truth.attrs["units"] == "mm/h" and "by model" in model.attrs["long_name"]
    np.testing.assert_allclose(truth[2, :, 1, 0], 1 + 2 * np.array([2.2, 2.3, 2.4]))
    assert np.isnan(truth[1, :, 0]).all() and not np.isnan(truth[1, :, 1:]).any()
    np.testing.assert_allclose((model - truth).isel(lat=1), 2, rtol=1e-5)
    np.testing.assert_allclose(found["rain_rate_zero"], 1)
    last = np.datetime64(26000000 + 5 * (2 + 1), "m")
    assert found["forecast_reference_time"].values[2] == last
    assert found["valid_time"].values[2, 2] == last + np.timedelta64(15, "m")
    assert found.attrs["title"] == "t"
    np.testing.assert_array_equal(found["example"], [0, 1, 2])


def test_without_dates_frames_are_counted_and_all_examples_are_enough(tmp_path):
    found = written(tmp_path, False, 99)
    assert found["rain_rate_model"].dims == ("start", "step", "lat", "lon")
    assert found.sizes["start"] == EXAMPLES and "valid_time" not in found
    np.testing.assert_array_equal(found["step"], [1, 2, 3])


@pytest.mark.parametrize(
    "task",
    [EmbedSeries(metric=PixelError(), series=[]), RestoreFrames(metric=PixelError())],
)
def test_tasks_without_forecasts_are_refused(task):
    fields.check(task, 0)
    with pytest.raises(ValueError, match="write_forecasts=5: .* has no forecasts"):
        fields.check(task, 5)
