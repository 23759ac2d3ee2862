"""Undeclared fill values, and missing values."""

import numpy as np
import pytest

from earthformer_jax.data.cubes import checks
from earthformer_jax.data.readers.layout import Undecided, Wanted
from earthformer_jax.data.readers.series import open_cube
from earthformer_jax.data.readers.values.missing import coding
from tests.data import cube_files
from tests.data.cubes.test_statistics import cube


def with_some(values, code, count=5):
    values = values.copy()
    values[:count] = code
    return values


class TestTypeEnd:
    def test_end_of_the_type(self):
        codes = np.arange(200.0)
        assert checks.type_end(with_some(codes, 255)) == 255
        assert checks.type_end(with_some(codes, 65535)) == 65535
        assert checks.type_end(codes) is None
        assert checks.type_end(with_some(codes + 0.5, 255)) is None
        assert checks.type_end(np.full(3, np.nan)) is None

    def test_end_of_the_stored_type(self):
        packed = coding({"scale_factor": 0.01, "add_offset": 10.0}, "i2")
        values = np.linspace(0, 20, 50)
        for end in (337.67, -317.68, -317.67):
            assert checks.type_end(with_some(values, end), packed) == end
            assert checks.type_end(with_some(values, end)) is None
        assert checks.type_end(with_some(values, 337.67, 1), packed) is None
        assert checks.type_end(values, packed) is None


class TestSeries:
    def test_fill_value(self, tmp_path):
        """Found before cells are averaged with their neighbours."""
        ds = cube_files.dataset(30)
        ds["T"].values[:, 1, 1] = -999
        path = cube_files.write(ds, tmp_path / "c.nc")
        for step in (1, 2):
            data = open_cube(path, Wanted(), space_step=step)
            message = "c.nc: 5 % of 'T' are -999, far from all .*missing=-999"
            with pytest.raises(ValueError, match=message):
                checks.check_values(data)
        checks.check_values(open_cube(path, Wanted(missing=(-999.0,))))

    def test_fill_value_in_one_frame(self):
        values = cube_files.values(100, (3, 4, 2))
        values[55, :2, 0, 1] = -1000
        data = cube(values)
        checks.check_values(data)
        with pytest.raises(Undecided, match="0.17 % of 'P' are -1000, far") as caught:
            checks.check_all_values(data)
        assert caught.value.choices == ({"missing": "-1000"},)
        values[55] = np.nan
        checks.check_all_values(data)

    def test_valid_range_of_something_else(self, tmp_path):
        ds = cube_files.dataset(30)
        ds["T"].attrs["valid_range"] = [-90.0, 60.0]  # the values are in K
        path = cube_files.write(ds, tmp_path / "c.nc")
        message = "no value of 'T' is in its valid range, -90..60; correct or delete"
        with pytest.raises(ValueError, match=message):
            checks.check_values(open_cube(path, Wanted()))

    def test_missing_that_occurs_nowhere(self):
        values = cube_files.values(600, (3, 4, 2))
        values[3, 1, 1, 1] = -99
        data = cube(values)
        assert checks.check_missing(data, [np.nan, float(values[0, 0, 0, 0])]) == ()
        notes = checks.check_missing(data, [-99, -9])
        assert notes == (
            "missing=-9: no value of 'T' or 'P' is that in 500 frames read",
        )
        assert checks.check_missing(cube(values[:40]), [-99]) == ()
        notes = checks.check_missing(cube(values[:3]), [-99])
        assert notes == ("missing=-99: no value of 'T' or 'P' is that",)

    def test_missing_share(self):
        values = cube_files.values(100, (3, 4, 2))
        periods = {"train": (0, 70), "validation": (70, 85), "test": (85, 100)}
        counted = np.ones((3, 4, 2), bool)
        assert checks.missing_share(cube(values), periods, counted) == 0
        values[10:20, 0, 0] = np.nan
        share = checks.missing_share(cube(values), periods, counted)
        assert share == pytest.approx(0.1 / 12)
        values[70:85, ..., 1] = np.nan
        message = "all values of 'P' are missing in the validation period .2001-03-12.."
        with pytest.raises(ValueError, match=message):
            checks.missing_share(cube(values), periods, counted)

    def test_raw_sample(self):
        values = cube_files.values(100, (3, 4, 2))
        sample = checks.raw_sample(cube(values), 12)
        chosen = np.linspace(0, 99, 12).astype(int)
        np.testing.assert_array_equal(sample, values[chosen])
