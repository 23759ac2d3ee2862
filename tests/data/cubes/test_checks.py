"""Undeclared fill values, and missing values."""

import numpy as np
import pytest

from earthformer_jax.data.cubes import checks
from earthformer_jax.data.readers.layout import Wanted
from earthformer_jax.data.readers.series import open_cube
from tests.data import cube_files
from tests.data.cubes.test_statistics import cube

TEMPERATURE = np.random.default_rng(0).normal(290, 10, 1000).astype(np.float32)


def with_some(values, code, count=5):
    values = values.copy()
    values[:count] = code
    return values


class TestFillCode:
    @pytest.mark.parametrize("code", [-999, -9999, -99.9, 9999, 1e20, -32767])
    def test_found(self, code):
        found = checks.fill_code(with_some(TEMPERATURE, code))
        assert found == pytest.approx(code)

    def test_anomalies_with_99(self):
        values = with_some(TEMPERATURE - 290, -99.99)
        assert checks.fill_code(values) == -99.99

    @pytest.mark.parametrize(
        "values",
        [
            TEMPERATURE,
            with_some(TEMPERATURE, np.nan),
            with_some(TEMPERATURE, -999, count=1),  # once: not a habit
            np.linspace(-2000, 3000, 1000),
            with_some(np.zeros(1000), 255),  # a picture in black and white
            np.full(10, np.nan),
            np.full(10, 255.0),
            np.zeros(0),
        ],
    )
    def test_not_found(self, values):
        assert checks.fill_code(values) is None

    def test_end_of_the_type(self):
        codes = np.arange(200.0)
        assert checks.type_end(with_some(codes, 255)) == 255
        assert checks.type_end(with_some(codes, 65535)) == 65535
        assert checks.type_end(codes) is None
        assert checks.type_end(with_some(codes + 0.5, 255)) is None
        assert checks.type_end(np.full(3, np.nan)) is None


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
