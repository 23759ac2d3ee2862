"""Forecasts without a model."""

import numpy as np
import pytest

from earthformer_jax.data.cubes import custom
from earthformer_jax.data.pipeline import evaluation_batches
from tests.data import cube_files


def load(ds, folder, **settings):
    path = cube_files.write(ds, folder / "cube.nc")
    config = dict(name="custom", path=path, in_len=4, out_len=3) | settings
    return custom.load(config)


def errors(dataset):
    found = {}
    for name, forecast in dataset.task.references.items():
        state = dataset.task.metric.init()
        for batch in evaluation_batches(dataset.data.test, 16):
            fields = forecast(batch)
            assert fields.shape == batch["targets"].shape
            assert fields.dtype == np.float32
            assert np.isfinite(fields).all()
            state = dataset.task.metric.update(state, fields, batch)
        found[name] = dataset.task.metric.compute(state)["mse"]
    return found


@pytest.mark.parametrize("anomalies", [False, True])
def test_damping_is_between_persistence_and_climatology(tmp_path, anomalies):
    """Red noise of factor 0.8 a day: 0.8, 0.64, 0.512 is best."""
    ds = cube_files.dataset(1200)[["T"]]
    dataset = load(ds, tmp_path, anomalies=anomalies)
    found = errors(dataset)
    assert found["damped_persistence"] == min(found.values())
    want = np.mean([1 - 0.8 ** (2 * k) for k in (1, 2, 3)])
    assert found["damped_persistence"] == pytest.approx(want, abs=0.1)
    assert found["climatology"] == pytest.approx(1, abs=0.2)


def test_climatology_knows_the_season(tmp_path):
    ds = cube_files.dataset(1200)[["T"]]
    day = np.arange(1200)[:, None, None]
    ds["T"] += (20 * np.cos(2 * np.pi * day / 365.25)).astype(np.float32)
    dataset = load(ds, tmp_path)
    found = errors(dataset)
    weather = 3.0 / float(dataset.task.metric.scale[0])
    assert found["climatology"] == pytest.approx(weather**2, rel=0.15)
    same = load(ds, tmp_path, anomalies=True)
    batch = next(iter(evaluation_batches(same.data.test, 4)))
    assert not same.task.references["climatology"](batch).any()


def test_climatology_knows_the_time_of_day(tmp_path):
    ds = cube_files.dataset(24 * 20, step="h")[["T"]]
    hour = np.arange(24 * 20)[:, None, None]
    ds["T"] += (20 * np.cos(2 * np.pi * hour / 24)).astype(np.float32)
    dataset = load(ds, tmp_path)
    assert errors(dataset)["climatology"] < 0.1


def test_without_dates_the_climatology_is_the_mean(tmp_path):
    ds = cube_files.dataset(100).drop_vars("time")
    dataset = load(ds, tmp_path)
    batch = next(iter(evaluation_batches(dataset.data.test, 4)))
    fields = dataset.task.references["climatology"](batch)
    mean = cube_files.stacked(ds)[:70].mean(axis=0)
    scale = np.array(dataset.task.metric.scale)
    offset = np.array([channel.offset for channel in dataset.data.display.channels])
    np.testing.assert_allclose(fields[3, 2], (mean - offset) / scale, atol=1e-4)


def test_missing_values_and_fewer_targets(tmp_path):
    ds = cube_files.dataset(400)
    ds["T"].values[::5, 1, 1] = np.nan
    ds["P"].values[:, 0, 0] = np.nan
    dataset = load(ds, tmp_path, targets="P")
    found = errors(dataset)
    assert found["damped_persistence"] < found["persistence"]
