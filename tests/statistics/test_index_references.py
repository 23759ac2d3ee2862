import numpy as np
import pytest
import xarray as xr

from earthformer_jax.statistics import index_references, withholding, xro
from earthformer_jax.statistics.linear_system import generator
from tests import golden_files


def test_skill_on_oras5_without_the_months_forecast():
    """Means over leads 1 to 12 of correlations, blocks of three years withheld."""
    path = golden_files.shared_file("data", "sst", "xro_indices_oras5_1979_2024.nc")
    with xr.open_dataset(path) as file:
        x = np.stack([file[name].values for name in xro.INDICES], axis=-1)
    truth = withholding.matching(x[:, 0], 24)
    skill = {}
    for name, found in index_references.forecasts(x, 0).items():
        pairs = [np.stack([found[:-k, k - 1], truth[:-k, k - 1]]) for k in range(1, 25)]
        skill[name] = [np.corrcoef(*pair)[0, 1] for pair in pairs]
    means = {name: np.mean(r[:12]) for name, r in skill.items()}
    expected = [0.376, 0.643, 0.723, 0.767, 0.784]
    np.testing.assert_allclose(list(means.values())[:5], expected, atol=6e-4)
    assert 0.75 < means["xro_memory"] < 0.78
    np.testing.assert_allclose(
        [skill["xro"][k - 1] for k in (3, 6, 9, 12, 15, 18)],
        [0.90, 0.80, 0.70, 0.62, 0.54, 0.44],
        atol=0.006,
    )


def test_withheld_months_and_those_after_them_change_no_forecast():
    """Not even through the memory of the months that are learned from."""
    rng = generator(0)
    x = np.zeros((400, 10))
    for i in range(1, 400):
        x[i] = 0.6 * x[i - 1] + 0.3 * rng.normal(size=10)
    changed, unseen = x.copy(), slice(36 + 1, 36 + 36 + 24)
    changed[unseen] += rng.normal(size=(59, 10))
    before = index_references.forecasts(x, 0)
    after = index_references.forecasts(changed, 0)
    for name, found in before.items():
        np.testing.assert_array_equal(found[36], after[name][36], err_msg=name)
        if name != "persistence":
            assert np.abs(found[200] - after[name][200]).max() > 1e-6, name


def test_columns_are_found_by_name():
    x = generator(1).normal(size=(300, 10)).cumsum(axis=0) * 0.05
    names = xro.INDICES[::-1]
    expected = index_references.forecasts(x, 3, leads=6, block=60)
    found = index_references.forecasts(x[:, ::-1], 3, names, leads=6, block=60)
    for name, forecast in found.items():
        np.testing.assert_array_equal(forecast, expected[name])
    with pytest.raises(
        ValueError, match="the indices WWV, IOD, SIOD, TNA, ATL3, SASD are"
    ):
        index_references.forecasts(x, 0, ("Nino34", *xro.INDICES[2:5]))
