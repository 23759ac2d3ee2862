import numpy as np
import pytest
import xarray as xr

from earthformer_jax.data.readers import indices

MONTHS = 144
NAMES = ("Nino34", "WWV")


@pytest.fixture
def series():
    """Twelve years of two anomalies, from May 1990."""
    rng = np.random.default_rng(0)
    time = np.arange("1990-05", "2002-05", dtype="datetime64[M]")
    values = rng.normal(size=(2, MONTHS)).astype(np.float32) * [[0.9], [7]]
    return xr.Dataset(
        {name: ("time", x) for name, x in zip(NAMES, values, strict=True)},
        {"time": time.astype("datetime64[ns]")},
    )


@pytest.fixture
def write(tmp_path):
    def write(dataset):
        dataset.to_netcdf(path := tmp_path / "indices.nc")
        return str(path)

    return write


def test_values_and_months_are_those_of_the_file(series, write):
    series["Nino34"].attrs["units"] = "K"
    found = indices.read(write(series), ("WWV", "Nino34"))
    assert found.names == ("WWV", "Nino34") and found.units == ("", "K")
    np.testing.assert_array_equal(found.values[:, 1], series["Nino34"].values)
    assert found.values.dtype == np.float64 and found.first_month == 4


def test_a_zarr_store_with_levels_of_length_one_is_read(series, tmp_path):
    series.expand_dims("level").to_zarr(tmp_path / "indices.zarr", consolidated=False)
    found = indices.read(str(tmp_path / "indices.zarr"), NAMES)
    np.testing.assert_array_equal(found.values[:, 0], series["Nino34"].values)


def test_months_are_chosen_by_dates(series, write):
    found = indices.read(write(series), NAMES)
    part = found.between("1991", "1992-03")
    assert len(part.values) == 15 and part.first_month == 0
    np.testing.assert_array_equal(part.values, found.values[8:23])
    with pytest.raises(ValueError, match="no month from 2003 to its end"):
        found.between("2003")


def test_anomalies_from_another_period_are_read(series, write):
    shifted = series + 0.5  # warming since the period they are departures from
    np.testing.assert_allclose(
        indices.read(write(shifted), NAMES).values[:, 1], series["WWV"] + 0.5, rtol=1e-6
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.rename(WWV="wwv"), r"does not have 'WWV'.*wwv.*: rename them"),
        (lambda x: x.drop_isel(time=7), "1990-11 is followed by 1991-01"),
        (lambda x: x.isel(time=slice(None, None, 3)), "monthly means are needed"),
        (lambda x: x.isel(time=slice(None, 60)), "at least 10 years are needed"),
        (lambda x: x.drop_vars("time"), "no times that can be decoded along 'time'"),
        (lambda x: x.where(x.time != x.time[9]), r"'Nino34' has 1 missing value, the "),
        (lambda x: x + 27, r"'Nino34' is not an anomaly: .* 26.* subtract the mean"),
        (lambda x: x * 0, "'Nino34' does not vary beyond its season"),
        (lambda x: x.expand_dims(place=3), "'Nino34' has the dimensions place 3, time"),
        (lambda x: x.assign(WWV="deep"), "'WWV' has the dimensions of one number"),
        (lambda x: x.assign(WWV=("time", ["1"] * MONTHS)), "expected numbers"),
        (lambda x: x + np.cos(x.time.dt.month * np.pi / 6), "'Nino34' is not an anom"),
    ],
)
def test_what_cannot_be_used_is_refused(series, write, change, message):
    with pytest.raises(ValueError, match=message):
        indices.read(write(change(series)), NAMES)


def test_a_path_that_does_not_exist_is_named_by_its_setting(tmp_path):
    with pytest.raises(FileNotFoundError, match="--indices=.*xro.nc does not exist"):
        indices.read(str(tmp_path / "xro.nc"), NAMES, "--indices")
