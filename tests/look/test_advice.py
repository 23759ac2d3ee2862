"""Commands that are proposed work; hostile files have a report too."""

import numpy as np
import pytest

from earthformer_jax.data.readers import series
from earthformer_jax.data.readers.layout import Undecided
from earthformer_jax.look import inspect as inspect_lib
from tests.data import cube_files
from tests.look.reports import command, inspect, proposed, trained_on, trial


@pytest.fixture
def ds():
    return cube_files.dataset(100)


class TestAdvice:
    """What is proposed works as it is written, in a shell."""

    @pytest.mark.parametrize(
        "name", ["a b", "a*b", "x[1]", "$HOME", "it's", "a;b", "~"]
    )
    def test_names_of_folders(self, ds, tmp_path, name):
        folder = tmp_path / name
        folder.mkdir()
        cube_files.write(ds, folder / f"{name}.nc")
        for path in (folder / f"{name}.nc", folder):
            report = inspect(path)
            assert len(trained_on(report).data.train) > 0

    def test_a_name_that_cannot_be_typed(self, tmp_path):
        path = tmp_path / "a\nb\x1b[2J.npy"
        np.save(path, np.random.default_rng(0).random((40, 9, 8)))
        report = inspect(path)
        assert "the path has characters that cannot be typed" in report
        assert "\x1b" not in report and "a\\nb" in report
        assert not proposed(report)

    def test_the_end_of_a_type(self, tmp_path):
        """255 may mark missing values or not: both commands, both tried."""
        values = np.random.default_rng(0).integers(0, 90, (40, 9, 8)).astype("u1")
        values[:, 0] = 255
        np.save(tmp_path / "a.npy", values)
        report = inspect(tmp_path / "a.npy")
        assert "11 % of 'value' are 255, the largest number its type" in report
        with_code, without = proposed(report)
        assert "--config.data.missing=255" in with_code
        assert "--config.data.missing=nan" in without
        assert trial(with_code).data.loss_weights[0, 0].max() == 0
        assert trial(without).data.loss_weights[0, 0].max() > 0

    def test_two_fill_values(self, ds, tmp_path):
        ds["T"].values[:, 1, 1] = -999
        ds["P"].values[:, 2, 2] = -9999
        report = inspect(cube_files.write(ds, tmp_path / "c.nc"))
        assert command(report)[1]["missing"] == "-999,-9999"
        assert len(trained_on(report).data.train) > 0

    def test_a_constant_variable_is_left_out(self, ds, tmp_path):
        ds["P"].values[:] = 3
        report = inspect(cube_files.write(ds, tmp_path / "c.nc"))
        assert "'P' is 3 everywhere" in report
        assert command(report)[1]["variables"] == "T"
        assert trained_on(report).data.train[0]["inputs"].shape[-1] == 1

    def test_readers_that_are_undecided(self, tmp_path, monkeypatch):
        """Each choice is tried; those that work are shown, with what they give."""
        np.save(tmp_path / "a.npy", np.random.default_rng(0).random((40, 30, 9)))

        def undecided(path, wanted, **options):
            if wanted.axes:
                return opened(path, wanted, **options)
            raise Undecided(
                "`axes` is 'thw' or 'hwt'",
                [{"axes": "thw"}, {"axes": "hwt"}, {"axes": "nope"}],
            )

        opened = series.open_cube
        monkeypatch.setattr(series, "open_cube", undecided)
        report = inspect(tmp_path / "a.npy")
        assert [f for flags in proposed(report) for f in flags if "axes" in f] == [
            "--config.data.axes=thw",
            "--config.data.axes=hwt",
        ]
        assert "--config.data.axes is 'thw' or 'hwt'" in report
        assert "30 x 9 cells" in report and "40 x 30 cells" in report

    def test_readings_with_channels(self, tmp_path):
        """Sequences or channels: another number of variables in each reading."""
        np.save(tmp_path / "a.npy", np.random.default_rng(0).random((3, 20, 9, 10)))
        report = inspect(tmp_path / "a.npy")
        axes = [f[-4:] for flags in proposed(report) for f in flags if ".axes=" in f]
        assert axes == ["nthw", "cthw"]
        channels = {
            trial(flags).data.train[0]["inputs"].shape[-1] for flags in proposed(report)
        }
        assert channels == {1, 3}

    def test_says_what_is_assumed(self, ds, tmp_path):
        report = inspect(cube_files.write(ds, tmp_path / "c.nc"))
        for option in (
            "variables", "targets", "missing", "in_len", "out_len", "train_until"
        ):  # fmt: skip
            assert f"--config.data.{option}" in report
        np.save(tmp_path / "a.npy", np.random.default_rng(0).random((9, 20, 72, 33)))
        report = inspect(tmp_path / "a.npy")
        for option in ("axes", "space_step", "region"):
            assert f"--config.data.{option}" in report
        assert "no dates were found" in report and "without units" in report


class TestHostile:
    """Whatever the file, there is a report or one line."""

    def test_files_of_many_kinds_in_a_folder(self, ds, tmp_path):
        cube_files.write(ds, tmp_path / "a.nc")
        np.save(tmp_path / "b.npy", np.random.default_rng(0).random((40, 9, 8)))
        (tmp_path / "notes.txt").write_text("notes")
        (tmp_path / "empty.h5").touch()
        (tmp_path / "folder.d").mkdir()
        report = inspect(tmp_path)
        assert "format      NetCDF" in report and "format      .npy" in report
        assert len(proposed(report)) == 2

    @pytest.mark.parametrize(
        "content",
        [b"", b"\x89HDF\r\n\x1a\n" + 90 * b"\0", b"CDF\x01" + 60 * b"\xff", b"CDF\x05"]
        + [b"\x93NUMPY\x01\0\xff\xff{'descr'", b"\x93NUMPY", b"GRIB", 999 * b"a"],
    )
    @pytest.mark.parametrize("suffix", [".nc", ".h5", ".npy", ".csv"])
    def test_bytes(self, tmp_path, content, suffix):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(content)
        report = inspect(path)
        assert "problem     " in report
        assert not proposed(report)

    def test_a_catalog_of_bytes(self, tmp_path):
        (tmp_path / "CATALOG.csv").write_bytes(b"id,file_name\0\xff\n" + 99 * b"\0")
        with pytest.raises(ValueError, match="a folder but not a Zarr store"):
            inspect(tmp_path)

    def test_errors_of_libraries(self, ds, tmp_path, monkeypatch):
        path = cube_files.write(ds, tmp_path / "a.nc")

        def fail(*arguments, **options):
            raise RuntimeError("NetCDF: HDF error")

        monkeypatch.setattr(series, "open_cube", fail)
        report = inspect(path)
        assert "problem     RuntimeError: NetCDF: HDF error" in report
        assert not proposed(report)

    def test_it_says_what_it_does(self, ds, tmp_path):
        path, said = cube_files.write(ds, tmp_path / "a.nc"), []
        inspect_lib.inspect(path, trial, said.append)
        assert said[0].startswith(f"reading {path} (1 files, 0.0")
        assert said[1].startswith("trying --config=configs/custom.py:quick")
