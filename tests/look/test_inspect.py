"""The report on files: what it says, and that the command it proposes runs."""

import h5py
import numpy as np
import pytest

from tests import golden_files
from tests.data import cube_files
from tests.look.reports import command, inspect, proposed, trained_on


@pytest.fixture
def ds():
    return cube_files.dataset(100)


class TestGood:
    def test_netcdf(self, ds, tmp_path):
        report = inspect(cube_files.write(ds, tmp_path / "cube.nc"))
        for text in (
            "format      NetCDF",
            "T  2",
            "0 % missing  mm/day",
            "4 x 5 cells 10N..17.5N 30E..40E, 2.5 x 2.5 degrees",
            "100 frames 2001-01-01..2001-04-10, every 1 day, no gaps",
            "problems    none found",
        ):
            assert text in report
        dataset = trained_on(report)
        assert dataset.data.name == "custom"
        assert dataset.data.train[0]["inputs"].shape == (10, 4, 5, 2)

    def test_years_are_a_climate(self, tmp_path):
        path = cube_files.write(cube_files.dataset(900), tmp_path / "cube.zarr")
        dataset = trained_on(inspect(path))
        assert dataset.data.name == "climate"
        assert "anomalies" in dataset.data.description

    def test_many_files(self, ds, tmp_path):
        for i in range(4):
            part = ds.isel(time=slice(25 * i, 25 * i + 25))
            cube_files.write(part, tmp_path / f"part {i}.nc")
        report = inspect(f"{tmp_path}/part *.nc")
        assert "files       4: part 0.nc .. part 3.nc" in report
        assert len(trained_on(report).data.train) == 70 - 14

    def test_hours(self, tmp_path):
        path = cube_files.write(cube_files.dataset(400, step="h"), tmp_path / "c.nc")
        dataset = trained_on(inspect(path))
        assert dataset.data.train[0]["inputs"].shape == (12, 4, 5, 2 + 4)

    def test_large_fields_are_made_smaller(self, tmp_path):
        np.save(tmp_path / "a.npy", np.random.default_rng(0).random((40, 150, 130)))
        report = inspect(f"{tmp_path}/a.npy")
        assert "axes assumed to be 'thw' (t=40, h=150, w=130)" in report
        assert "40 frames, no dates" in report
        assert trained_on(report).data.train[0]["inputs"].shape == (10, 50, 43, 1)

    def test_pieces(self, tmp_path):
        np.save(tmp_path / "a.npy", np.random.default_rng(0).random((9, 20, 32, 33)))
        report = inspect(f"{tmp_path}/a.npy")
        assert "9 pieces of 20 to 20 frames" in report
        assert len(trained_on(report).data.train) == 6 * 6

    def test_uneven_grid(self, ds, tmp_path):
        ds = ds.assign_coords(lat=("lat", [1.0, 2, 4, 8], ds.lat.attrs))
        report = inspect(cube_files.write(ds, tmp_path / "c.nc"))
        assert "2 x 2.5 degrees (uneven)" in report


class TestWrong:
    def test_missing_path(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="does not exist"):
            inspect(f"{tmp_path}/a.nc")
        with pytest.raises(FileNotFoundError, match="matches no file"):
            inspect(f"{tmp_path}/*.nc")
        with pytest.raises(ValueError, match="a folder but not a Zarr store"):
            inspect(tmp_path)

    @pytest.mark.parametrize("cut", [40, 300])
    def test_truncated(self, ds, tmp_path, cut):
        path = tmp_path / "cube.nc"
        cube_files.write(ds, path)
        path.write_bytes(path.read_bytes()[:-cut])
        report = inspect(path)
        assert "problem     --config.data.path=" in report and "truncated" in report
        assert "train with" not in report

    @pytest.mark.parametrize(
        ("order", "text"),
        [([0, 2, 1, 3], "time goes back from"), ([0, 1, 1, 2], "both at 2001-01-02")],
    )
    def test_time(self, ds, tmp_path, order, text):
        report = inspect(cube_files.write(ds.isel(time=order), tmp_path / "c.nc"))
        assert text in report
        assert "T (K), P (mm/day)" in report and "4 x 5 cells" in report

    def test_gaps(self, ds, tmp_path):
        ds = ds.isel(time=np.r_[0:30, 33:100])
        report = inspect(cube_files.write(ds, tmp_path / "c.nc"))
        assert "every 1 day, 1 gap" in report
        assert "1 gap in steps of 1 day (after 2001-01-30)" in report
        assert "2 pieces of 30 to 67 frames" in report

    def test_fill_values(self, ds, tmp_path):
        ds["T"].values[:, 1, 1] = -999
        report = inspect(cube_files.write(ds, tmp_path / "c.nc"))
        assert "5 % of 'T' are -999, far from all other values; if they mark" in report
        assert "set --config.data.missing=-999" in report
        assert command(report)[1]["missing"] == "-999"
        assert trained_on(report).data.loss_weights[0, 1, 1, 0] == 0

    def test_nothing_to_learn(self, ds, tmp_path):
        ds["T"].values[:] = np.nan
        ds["P"].values[:] = 3
        report = inspect(cube_files.write(ds, tmp_path / "c.nc"))
        assert "'T' is all missing in the frames read" in report
        assert "'P' is 3 everywhere" in report
        assert not proposed(report)

    def test_levels(self, ds, tmp_path):
        ds = ds.expand_dims(level=[200, 500], axis=1)
        report = inspect(cube_files.write(ds, tmp_path / "c.nc"))
        assert "--config.data.level is needed: 'T' of" in report
        assert "2 levels along level (200, 500)" in report
        assert command(report)[1]["level"] == "200"
        assert len(trained_on(report).data.train) > 0

    def test_too_short(self, ds, tmp_path):
        report = inspect(cube_files.write(ds.isel(time=[0, 1, 2]), tmp_path / "c.nc"))
        assert "need at least 5 frames" in report
        assert "train with" not in report

    def test_files_that_do_not_fit(self, ds, tmp_path):
        """The report is on the first of them."""
        cube_files.write(ds.isel(time=slice(0, 50)), tmp_path / "a.nc")
        other = ds.isel(time=slice(50, 100), lat=slice(0, 3))
        cube_files.write(other, tmp_path / "b.nc")
        report = inspect(f"{tmp_path}/*.nc")
        assert "grids of (4, 5) and (3, 5) cells" in report
        assert "50 frames 2001-01-01..2001-02-19" in report

    def test_no_numbers(self, tmp_path):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["words"] = np.full((2, 3, 4), b"a")
        assert "'words' has type |S1; expected numbers" in inspect(f"{tmp_path}/a.h5")


class TestRealFiles:
    @pytest.mark.parametrize(
        ("name", "config", "texts"),
        [
            (
                "climate/ncep_ncar_daily_2008_2018.nc",
                "climate",
                ["TMIN", "4018 frames 2008-01-01..2018-12-31, every 1 day, no gaps"],
            ),
            (
                "climate/era5_t2m_uk_2019_03.nc",
                "custom",
                ["33 x 49 cells 50N..58N 10W..2E", "every 1 hour"],
            ),
            (
                "climate/eraint_uvz.nc",
                None,
                [
                    "3 levels along level (200, 500, 850)",
                    "m**2 s**-2",
                    "is not understood as dates",
                ],
            ),
            (
                "climate/ERA_Interim_2017*.nc",
                None,
                ["files       3:", "241 x 480 cells", "every 1 month", "has 3"],
            ),
            (
                "radar/fmi_composite_20160928.h5",
                "custom",
                ["24 % of 'code' are 255", "every 5 min", "1226 x 760 cells"],
            ),
            ("radar/sevir_layout", "sevir", ["17 rows (vil), 17 of vil"]),
            ("sst/kaplan_pacific_ssta_1856_2014.nc", "enso", ["12 x 22 cells"]),
            ("video/*.npy", "custom", ["4 pieces of 20 to 20 frames"]),
        ],
    )
    def test_report(self, name, config, texts):
        folder = golden_files.shared_file("data")
        report = inspect(f"{folder}/{name}")
        for text in texts:
            assert text in report
        if config is None:
            assert "train with" not in report
        else:
            assert command(report)[0] == config
