"""Series of the sea surface with missing months: only what was observed is scored."""

import numpy as np
import pytest
import xarray as xr

from earthformer_jax.data import pipeline
from tests.data import sst_files
from tests.data.enso.test_enso import load

MISSING = 0.4
LENGTHS = dict(in_len=6, out_len=3)


@pytest.fixture(scope="module")
def noise_files(tmp_path_factory):
    """White noise, whole and with missing months."""
    folder = tmp_path_factory.mktemp("gaps")
    whole = sst_files.dataset(12 * 40, absolute=False)
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(whole["sst"].shape).astype(np.float32)
    noise[:, 0, 0] = np.nan
    whole["sst"].values[:] = noise
    gaps = whole.copy(deep=True)
    seen = rng.random(noise.shape) > MISSING
    seen[400, 1:, 1:14] = False  # a month without the box of the index
    seen[400, 1, 14] = True
    gaps["sst"].values[~seen] = np.nan
    return [
        sst_files.write(ds, folder / name)
        for name, ds in (("whole.nc", whole), ("gaps.nc", gaps))
    ]


@pytest.fixture(scope="module")
def noise(noise_files):
    return [load(path=path, **LENGTHS) for path in noise_files]


def test_persistence_of_white_noise(noise):
    """Twice the variance, whether months are missing or not."""
    for dataset in noise:
        metric, state = dataset.task.metric, dataset.task.metric.init()
        for batch in pipeline.evaluation_batches(dataset.data.test, 64):
            forecast = dataset.task.references["persistence"](batch)
            state = metric.update(state, forecast, batch)
        assert metric.compute(state)["mse"] == pytest.approx(2.0, rel=0.06)


def test_scale_and_damping_are_those_of_observed_months(noise):
    for dataset in noise:
        assert dataset.data.normalization.scale == pytest.approx(0.98, abs=0.02)
        batch = next(iter(pipeline.evaluation_batches(dataset.data.test, 64)))
        damped = dataset.task.references["damped_persistence"](batch)
        last = batch["inputs"][:, -1:]
        assert np.abs(np.mean(damped * last)) < 0.02  # no memory


def test_examples(noise):
    whole, gaps = (dataset.data.test for dataset in noise)
    ocean = noise[0].task.ocean
    assert "observed" not in whole[0]
    example = gaps[5]
    observed = example["observed"]
    assert observed.dtype == bool and observed.shape == example["targets"].shape
    assert not observed[:, ~ocean].any()
    assert observed[:, ocean].mean() == pytest.approx(1 - MISSING, abs=0.1)
    assert not example["targets"][~observed].any()
    seen = example["inputs_observed"]
    assert seen.shape == (*example["inputs"].shape[:3], 1) and not seen.all()
    # The last targets of this window are inputs of a later one.
    later = gaps[5 + len(observed)]["inputs_observed"]
    both = min(len(later), len(observed))
    np.testing.assert_array_equal(later[-both:], observed[-both:])
    for name in ("inputs", "targets"):
        assert np.isfinite(example[name]).all()


def test_index_is_that_of_the_observed_cells(noise):
    dataset = noise[1]
    weights = dataset.task.nino_weights
    unknown = 0
    for i in range(len(dataset.data.test)):
        example = dataset.data.test[i]
        kelvin = dataset.data.normalization.decode(example["targets"])[..., 0]
        share = np.where(example["observed"][..., 0], weights, 0)
        total = share.sum(axis=(1, 2))
        known = total >= 0.5
        index = (share * kelvin).sum(axis=(1, 2))[known] / total[known]
        np.testing.assert_allclose(example["nino34"][known], index, atol=1e-5)
        assert np.isnan(example["nino34"][~known]).all()
        unknown += np.sum(~known)
    assert unknown
    metric = dataset.task.metric
    batch = next(iter(pipeline.evaluation_batches(dataset.data.test, 64)))
    assert np.isnan(batch["nino34"]).any()
    scores = metric.compute(metric.update(metric.init(), batch["targets"], batch))
    assert scores["mse"] == 0
    assert np.all(np.array(scores["correlation_monthly"]) > 0.9)


def test_simulated_months_are_complete(noise):
    simulated, real = noise[1].data.simulated[5], noise[1].data.train[0]
    assert {name: (x.shape, x.dtype) for name, x in simulated.items()} == {
        name: (x.shape, x.dtype) for name, x in real.items()
    }
    assert simulated["observed"].all()


def test_temperatures(noise_files, tmp_path):
    """Gaps in the box do not make it colder."""
    with xr.open_dataset(noise_files[1]) as ds:
        warm = ds.load()
    warm["sst"] = (warm["sst"] + 27).assign_attrs(units="degC")
    dataset = load(path=sst_files.write(warm, tmp_path / "w.nc"), **LENGTHS)
    assert "SST in degC" in dataset.data.description
    assert "do not count in targets" in dataset.data.description
