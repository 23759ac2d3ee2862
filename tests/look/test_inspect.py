"""The report on files: what it says, and that the command it proposes runs."""

import re
import shlex

import h5py
import numpy as np
import pytest

from earthformer_jax import data
from earthformer_jax.look.inspect import inspect
from tests import golden_files
from tests.data import cube_files, sst_files

OPTION = re.compile(r"--config\.data\.(\w+)=(.*)")


def command(report):
    """(config file, settings) of the suggested command."""
    (line,) = [x for x in report.splitlines() if x.startswith("train with")]
    words = shlex.split(line.partition("  ")[2])
    (config,) = [w.partition("=")[2] for w in words if w.startswith("--config=")]
    found = [OPTION.fullmatch(word) for word in words]
    settings = {match[1]: match[2] for match in found if match}
    for name in ("in_len", "out_len", "space_step"):
        if name in settings:
            settings[name] = int(settings[name])
    if "calendar" in settings:
        settings["calendar"] = settings["calendar"] == "True"
    return config.removeprefix("configs/").partition(".")[0], settings


def trained_on(report):
    """The data set of the suggested command."""
    name, settings = command(report)
    return data.load({"name": name} | settings, 0)


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
            inspect(str(tmp_path))

    @pytest.mark.parametrize("cut", [40, 300])
    def test_truncated(self, ds, tmp_path, cut):
        path = tmp_path / "cube.nc"
        cube_files.write(ds, path)
        path.write_bytes(path.read_bytes()[:-cut])
        report = inspect(str(path))
        assert "problem     path=" in report and "truncated" in report
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
        assert "5 % of 'T' are -999, far from all other values: probably" in report
        assert command(report)[1]["missing"] == "-999"
        assert trained_on(report).data.loss_weights[0, 1, 1, 0] == 0

    def test_nothing_to_learn(self, ds, tmp_path):
        ds["T"].values[:] = np.nan
        ds["P"].values[:] = 3
        report = inspect(cube_files.write(ds, tmp_path / "c.nc"))
        assert "all values of 'T' are missing in the frames read" in report
        assert "'P' is 3 everywhere" in report

    def test_levels(self, ds, tmp_path):
        ds = ds.expand_dims(level=[200, 500], axis=1)
        report = inspect(cube_files.write(ds, tmp_path / "c.nc"))
        assert "`level` is needed: 'T' of" in report
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


class TestLayouts:
    """Files that have a config of their own."""

    def test_monthly_sst(self, tmp_path):
        path = sst_files.write(sst_files.dataset(), tmp_path / "sst.nc")
        assert command(inspect(path)) == ("enso", {"path": path})

    def test_icar(self, tmp_path):
        series = sst_files.icar_series(12 * 14, (24, 72), seed=1)
        sst_files.write_icar(
            tmp_path,
            sst_files.icar_rows(series),
            sst_files.icar_rows(sst_files.icar_labels(series)),
            latitude=np.arange(-55.0, 61, 5),
            longitude=np.arange(0.0, 360, 5),
        )
        report = inspect(str(tmp_path))
        assert "12 rows of 36 months on 24 x 72 cells" in report
        assert command(report)[0] == "enso"
        (tmp_path / "SODA_label.nc").unlink()
        assert "its labels SODA_label.nc are not in its folder" in inspect(
            str(tmp_path)
        )

    def test_moving_mnist(self, tmp_path):
        np.save(tmp_path / "mnist_test_seq.npy", np.zeros((20, 9, 64, 64), np.uint8))
        for path in (tmp_path, tmp_path / "mnist_test_seq.npy"):
            report = inspect(str(path))
            assert "9 of 20 frames of 64 x 64" in report
            assert command(report)[0] == "moving_mnist"

    def test_nbody(self, tmp_path):
        np.savez(tmp_path / "nbody_train.npz", x=1)
        report = inspect(str(tmp_path))
        assert command(report) == ("nbody_mnist", {"path": str(tmp_path)})

    def test_digits(self, tmp_path):
        (tmp_path / "train-images-idx3-ubyte.gz").touch()
        report = inspect(str(tmp_path))
        assert f"--config.data.digits={tmp_path}" in report

    def test_prepared(self, tmp_path):
        info = '{"name": "sevir", "splits": [{"name": "train"}]}'
        (tmp_path / "dataset_info.json").write_text(info)
        report = inspect(str(tmp_path))
        assert "prepared by TFDS: sevir, splits train" in report
        assert command(report) == ("sevir", {"path": str(tmp_path)})

    def test_catalog_without_files(self, tmp_path):
        (tmp_path / "CATALOG.csv").write_text(
            "id,file_name,file_index,img_type,time_utc\nS1,a.h5,0,vil,2019-01-01\n"
        )
        report = inspect(str(tmp_path))
        assert "1 rows (vil), 1 of vil, 2019-01-01..2019-01-01" in report
        assert "problem" in report

    def test_catalog_of_another_name(self):
        path = golden_files.shared_file("data", "sevir", "CATALOG_vil_part.csv")
        report = inspect(str(path))
        assert "851 rows (vil), 851 of vil, 2019-01-03 18:30:00..2019-07-01" in report
        assert command(report)[1]["catalog_path"] == str(path)


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

    @pytest.mark.parametrize(
        "name",
        [
            "climate/ncep_ncar_daily_2008_2018.nc",
            "climate/era5_t2m_uk_2019_03.nc",
            "radar/fmi_composite_20160928.h5",
            "video/*.npy",
        ],
    )
    def test_its_command_has_data(self, name):
        folder = golden_files.shared_file("data")
        dataset = trained_on(inspect(f"{folder}/{name}"))
        for source in (dataset.data.train, dataset.data.validation, dataset.data.test):
            assert len(source) > 0
