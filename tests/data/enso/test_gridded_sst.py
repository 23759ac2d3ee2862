"""Climatology, land, gaps and periods of gridded files; real files where present."""

import csv
import pathlib

import numpy as np
import pytest

from earthformer_jax.data.enso import gridded_sst
from earthformer_jax.data.readers.months import parse_month
from tests import golden_files
from tests.data import sst_files

DATES = dict(train_until="2007-12", validate_until="2009-12")
TRAIN_MONTHS = 12 * 8


def load(ds, folder, name="sst.nc", **settings):
    path = sst_files.write(ds, folder / name)
    return gridded_sst.load(pathlib.Path(path), **(DATES | settings))


@pytest.fixture
def ds():
    return sst_files.dataset()


class TestAnomalies:
    def test_training_months_have_no_climatology_left(self, ds, tmp_path):
        fields = load(ds, tmp_path).series.fields[:TRAIN_MONTHS]
        means = fields.reshape(8, 12, *fields.shape[1:]).mean(axis=0)
        np.testing.assert_allclose(means, 0, atol=1e-5)

    def test_later_months_do_not_enter_the_climatology(self, ds, tmp_path):
        before = load(ds, tmp_path).series.fields[:TRAIN_MONTHS]
        ds["sst"][TRAIN_MONTHS:] += 3
        after = load(ds, tmp_path).series.fields
        np.testing.assert_array_equal(after[:TRAIN_MONTHS], before)
        assert after[TRAIN_MONTHS:, 1:].mean() > 2

    def test_kelvin_celsius_and_anomalies_agree(self, ds, tmp_path):
        celsius = load(ds, tmp_path)
        kelvin = ds.copy(deep=True)
        kelvin["sst"] += 273.15
        kelvin["sst"].attrs["units"] = "K"
        anomaly = sst_files.dataset(absolute=False)
        for other, kind in ((kelvin, "SST in K"), (anomaly, "anomalies")):
            loaded = load(other, tmp_path)
            assert kind in loaded.description
            np.testing.assert_allclose(
                loaded.series.fields, celsius.series.fields, atol=1e-4
            )
        assert "SST in degC" in celsius.description

    def test_series_starts_with_training(self, ds, tmp_path):
        series = load(ds, tmp_path, train_from="2001-03", test_until="2011-06").series
        assert series.first_month == parse_month("2001-03", "x")
        assert series.last_month == parse_month("2011-06", "x")
        means = [series.fields[: TRAIN_MONTHS - 14][k::12].mean(0) for k in range(12)]
        np.testing.assert_allclose(means, 0, atol=1e-5)

    def test_index_weights(self, ds, tmp_path):
        loaded = load(ds, tmp_path)
        assert loaded.nino_weights.sum() == pytest.approx(1)
        inside = np.argwhere(loaded.nino_weights > 0)
        assert loaded.grid.latitude[inside[:, 0]].tolist() == [-2.5] * 10 + [2.5] * 10
        assert np.ptp(loaded.grid.longitude[inside[:, 1]]) == 45


class TestLand:
    def test_cells_without_values_are_land(self, ds, tmp_path):
        ds["sst"][5:, 0, 1] = np.nan  # nearly always missing
        ds["sst"][:, 0, 2] = -1.8  # always frozen
        ds["sst"][2::12, 0, 3] = np.nan  # no climatology for March
        loaded = load(ds, tmp_path)
        assert (~loaded.grid.ocean).sum() == 4
        assert not loaded.grid.ocean[0, :4].any()
        assert not loaded.series.fields[:, 0, :4].any()

    def test_gaps_are_filled_from_the_past(self, ds, tmp_path):
        whole = load(ds, tmp_path)
        gaps = ds.copy(deep=True)
        gaps["sst"][100:102, 2, 3] = np.nan
        gaps["sst"][120:126, 3, 4] = np.nan
        loaded = load(gaps, tmp_path)
        cell, whole_cell = loaded.series.fields[:, 2, 3], whole.series.fields[:, 2, 3]
        np.testing.assert_array_equal(cell[100:102], whole_cell[99])
        np.testing.assert_array_equal(cell[102:], whole_cell[102:])
        long = loaded.series.fields[:, 3, 4]
        np.testing.assert_array_equal(long[120:123], whole.series.fields[119, 3, 4])
        np.testing.assert_array_equal(long[123:126], 0)
        assert "filled 8 missing values (5 from the months before, 3 with" in (
            loaded.description
        )
        assert "filled" not in whole.description

    def test_a_gap_at_the_start_is_climatology(self):
        values = np.array([np.nan, 1, np.nan, 2])[:, None, None]
        filled, carried, reset = gridded_sst.fill_gaps(values, np.ones((1, 1), bool))
        np.testing.assert_array_equal(filled[:, 0, 0], [0, 1, 1, 2])
        assert (carried, reset) == (1, 1)


class TestRefused:
    def refused(self, ds, folder, message, **settings):
        with pytest.raises(ValueError, match=message):
            load(ds, folder, **settings)

    def test_months_without_values(self, ds, tmp_path):
        ds["sst"][[20, 21, 130]] = np.nan
        self.refused(
            ds, tmp_path, "3 of 144 months have no value at all .2001-09, 2001-10, 2010"
        )
        load(ds, tmp_path, train_from="2002-01", test_until="2010-10")

    def test_months_with_one_value(self, ds, tmp_path):
        ds["sst"][-2:] = 0
        self.refused(ds, tmp_path, "2 of 144 months hold one value everywhere .0 in")

    def test_nothing_but_missing_values(self, ds, tmp_path):
        ds["sst"][:] = np.nan
        self.refused(ds, tmp_path, "every value of the training period is missing")

    def test_undeclared_fill_values(self, ds, tmp_path):
        ds["sst"][3, 2, 2] = -999
        self.refused(ds, tmp_path, "'sst': the value -999 is no temperature.*_FillVal")

    def test_values_that_are_no_sst(self, ds, tmp_path):
        ds["sst"] = ds["sst"] + 30  # degrees of another kind
        ds["sst"].attrs["units"] = "degC"
        self.refused(ds, tmp_path, r"mean over Nino3.4 .* is 5\d.*expected an anomaly")

    def test_grid_without_the_box(self, tmp_path):
        north = sst_files.dataset(latitude=np.arange(20.0, 50, 5))
        self.refused(north, tmp_path, "covers 0% of Nino3.4")

    def test_too_few_training_months(self, ds, tmp_path):
        dates = dict(train_until="2000-06", validate_until="2002-12")
        self.refused(ds, tmp_path, "climatology needs 12 or more", **dates)

    def test_message_names_file_and_variable(self, ds, tmp_path):
        ds["sst"][:] = np.nan
        self.refused(ds, tmp_path, rf"{tmp_path}/sst.nc: 'sst': ")


@pytest.mark.parametrize(
    ("file", "column", "tolerance"),
    [
        ("kaplan_pacific_ssta_1856_2014.nc", "kaplan_anom", 1e-4),
        ("strbook_pacific_ssta_1970_2003.nc", "strbook_anom", 1e-4),
        ("ersstv5_sst.mnmean_2010_2020.nc", "ersstv5_degC", 1e-4),
        ("ostia_monthly_2006_2010_5S5N.nc", "ostia_degC", 1e-3),
    ],
)
def test_real_index(file, column, tolerance):
    """The index of real files equals the one computed independently from them."""
    loaded = gridded_sst.load(_real(file), out_len=14)
    index = np.einsum("mhw,hw->m", loaded.series.fields, loaded.nino_weights)
    expected = _anomaly(_column(column), loaded)
    np.testing.assert_allclose(index, expected, atol=tolerance)


def test_real_index_against_the_published_one():
    """ERSSTv5 against NOAA CPC: 0.011 K for the months themselves."""
    loaded = gridded_sst.load(
        _real("ersstv5_sst.mnmean_2010_2020.nc"),
        train_until="2018-12",
        validate_until="2019-06",
    )
    index = np.einsum("mhw,hw->m", loaded.series.fields, loaded.nino_weights)
    difference = index - _anomaly(_column("cpc_degC"), loaded)
    assert np.sqrt(np.mean(difference**2)) < 0.011


def _real(file: str) -> pathlib.Path:
    return golden_files.shared_file("data", "sst", file)


def _column(name: str) -> dict[int, float]:
    """An index by month number, from the table beside the files."""
    with _real("nino34_from_grids.csv").open() as table:
        return {
            parse_month(row["month"], "month"): float(row[name])
            for row in csv.DictReader(table)
            if row[name]
        }


def _anomaly(column: dict[int, float], loaded) -> np.ndarray:
    """The months of a series less the training mean of each calendar month."""
    months = loaded.series.first_month + np.arange(len(loaded.series.fields))
    values = np.array([column[month] for month in months])
    training = values[: loaded.periods.train[1] - loaded.periods.train[0] + 1]
    means = np.array([training[k::12].mean() for k in range(12)])
    return values - means[np.arange(len(values)) % 12]
