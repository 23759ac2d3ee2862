"""What a path refers to, and what kind of file it is."""

import contextlib
import os

import h5py
import numpy as np
import pytest
import xarray as xr

from earthformer_jax.data.readers import formats
from earthformer_jax.data.readers.arrays import NpyFile
from earthformer_jax.data.readers.hdf5.file import Hdf5File
from earthformer_jax.data.readers.layout import Wanted
from earthformer_jax.data.readers.netcdf import NamedFile
from tests.data import cube_files

CODES = np.arange(40 * 6 * 7).reshape(40, 6, 7).astype("u2")
PACKING = {
    "scale_factor": 0.01,
    "valid_max": np.uint16(1000),
    "_FillValue": np.uint16(7),
}


def packed(path):
    """CODES, in the format that the name says."""
    if path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["rr"] = CODES
            file["rr"].attrs.update(PACKING)
    else:
        ds = xr.Dataset({"rr": (("time", "lat", "lon"), CODES, PACKING)})
        cube_files.write(ds, path)
    return path


class TestValues:
    @pytest.mark.parametrize("name", ["a.nc", "a.zarr", "a.h5"])
    def test_the_same_in_every_format(self, tmp_path, name):
        """Values of the user are values, not the numbers that are stored."""
        path = packed(tmp_path / name)
        file = formats.open_file(path, Wanted(missing=(0.11, 3.0, 12.0, 400.0)))
        every = slice(None)
        with contextlib.closing(file.open()) as handle:
            values = file.read(handle, 0, every, every, every)[..., 0]
        missing = (CODES > 1000) | np.isin(CODES, (7, 11, 300))
        np.testing.assert_array_equal(np.isnan(values), missing)
        np.testing.assert_allclose(values[~missing], 0.01 * CODES[~missing], rtol=1e-6)
        assert file.layout.codings[0].value(400) == 4


@pytest.fixture
def folder(tmp_path):
    for name in ("era_10.nc", "era_9.nc", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "era_1.nc").touch()
    return tmp_path


class TestFind:
    def test_pattern_is_sorted_by_numbers(self, folder):
        found = formats.find(f"{folder}/*.nc")
        assert [path.name for path in found] == ["era_9.nc", "era_10.nc"]
        found = formats.find(f"{folder}/**/era_?.nc")
        assert [path.name for path in found] == ["era_1.nc", "era_9.nc"]

    def test_a_name_that_looks_like_a_pattern(self, tmp_path):
        path = tmp_path / "a[1].nc"
        path.touch()
        assert formats.find(str(path)) == [path]

    @pytest.mark.parametrize(
        ("pattern", "message"),
        [
            (
                "*.nc4",
                "matches no files.* contains 2 .nc .era_10.nc, era_9.nc., 1 .txt .not",
            ),
            ("era_9*.NC", "matches no files; did you mean 'era_9.nc'"),
            ("*/x/*.nc", "matches no files .*contains 2 .nc .*1 folder"),
        ],
    )
    def test_nothing_matches(self, folder, pattern, message):
        with pytest.raises(FileNotFoundError, match=f"path=.*{message}"):
            formats.find(f"{folder}/{pattern}")

    def test_no_folder(self, folder):
        with pytest.raises(FileNotFoundError, match="there is no folder .*/no"):
            formats.find(f"{folder}/no/*.nc")
        (folder / "empty").mkdir()
        with pytest.raises(
            FileNotFoundError, match="matches no files: .*empty is empty"
        ):
            formats.find(f"{folder}/empty/*.nc")

    def test_misspelt_file(self, folder):
        with pytest.raises(FileNotFoundError, match="exist; did you mean 'era_9.nc'"):
            formats.find(f"{folder}/era9.nc")

    def test_a_folder_of_files(self, folder):
        with pytest.raises(ValueError, match=r"use a pattern such as '.*/\*.nc'"):
            formats.find(str(folder))


class TestKind:
    def test_by_content(self, tmp_path):
        """Names say nothing; NetCDF-4 is HDF5 with named dimensions."""
        ds = cube_files.dataset(3)
        for name, form in (("a.dat", "NETCDF4"), ("b.h5", "NETCDF3_CLASSIC")):
            cube_files.write(ds, tmp_path / name, format=form, engine="netcdf4")
            assert formats.kind_of(tmp_path / name) is NamedFile
        cube_files.write(ds, tmp_path / "c.zarr")
        assert formats.kind_of(tmp_path / "c.zarr") is NamedFile
        with h5py.File(tmp_path / "d.nc", "w") as file:
            file["x"] = np.zeros((3, 4, 5))
        assert formats.kind_of(tmp_path / "d.nc") is Hdf5File
        with (tmp_path / "e.bin").open("wb") as file:
            np.save(file, np.zeros((3, 4, 5)))
        assert formats.kind_of(tmp_path / "e.bin") is NpyFile

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"GRIB1234", "it is GRIB; convert it, for example with 'cdo -f nc copy a"),
            (b"PK\x03\x04zip", "it is a damaged archive; download or write it again"),
            (b"\x1f\x8b\x08xx", "it is compressed; unpack it with gunzip"),
            (b"a,b\n1,2", r"is not NetCDF, Zarr, HDF5 or .npy \(7 bytes starting wit"),
            (b"", r"\(0 bytes starting with b''\); it is truncated or damaged"),
        ],
    )
    def test_refused(self, tmp_path, content, message):
        path = tmp_path / "a.h5"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            formats.kind_of(path)

    @pytest.mark.parametrize(
        ("start", "message"),
        [
            (
                b"MATLAB 5.0 MAT-file",
                "MATLAB file of version 5; save it with -v7.3, or",
            ),
            (
                b"\x0e\x03\x13\x01",
                "it is HDF4; convert it, .* 'h4toh5convert a.bin a.h5",
            ),
            (b"II*\x00", "GeoTIFF|.Geo.TIFF; convert it, .*gdal_translate -of netCDF"),
            (b"MM\x00*", "TIFF; convert it"),
            (b"BUFR", "it is BUFR, which holds observations"),
            (b"\x89PNG\r\n", "it is PNG; images are not fields; save their values wit"),
            (b"\x80\x04\x95", "Python pickle, which is not opened because it can run"),
        ],
    )
    def test_other_formats_are_named(self, tmp_path, start, message):
        path = tmp_path / "a.bin"
        path.write_bytes(start + bytes(600))
        with pytest.raises(ValueError, match=f"path=.*a.bin cannot be read.*{message}"):
            formats.kind_of(path)

    def test_tables_and_archives(self, tmp_path):
        (tmp_path / "a.csv").write_text("x,y\n1,2\n")
        with pytest.raises(ValueError, match="table of text; save its numbers as one"):
            formats.kind_of(tmp_path / "a.csv")
        np.savez(tmp_path / "a.npz", x=np.zeros(3), y=np.zeros(3))
        message = r"archive of arrays \(x, y\); .*np.load\('a.npz'\)\['x'\]"
        with pytest.raises(ValueError, match=message):
            formats.kind_of(tmp_path / "a.npz")

    def test_matlab_73_is_hdf5_behind_a_header(self, tmp_path):
        """MATLAB's (row, column, time) is stored as (time, column, row)."""
        path = tmp_path / "a.mat"
        x = np.random.default_rng(0).random((30, 12, 10)).astype(np.float32)
        with h5py.File(path, "w", userblock_size=512) as file:
            file["X"] = x
            file["X"].attrs["MATLAB_class"] = np.bytes_("double")
            file["#refs#/a"] = x
            file["lat"], file["lon"] = np.arange(10.0)[None], np.arange(12.0)[None]
        with path.open("r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
        layout = formats.open_file(path, Wanted()).layout
        assert (layout.names, layout.steps, layout.size) == (("X",), 30, (10, 12))
        assert "axes assumed to be 'twh'" in layout.notes[0]
        np.testing.assert_array_equal(layout.latitude, np.arange(10))
        layout = formats.open_file(path, Wanted(axes="thw")).layout
        assert layout.size == (12, 10)

    def test_groups_of_netcdf(self, tmp_path):
        """Fields in groups; those next to others if their names are given."""
        ds = cube_files.dataset(30)
        path = tmp_path / "a.nc"
        ds.to_netcdf(path, group="PRODUCT")
        assert formats.kind_of(path) is Hdf5File
        layout = formats.open_file(path, Wanted(variables=("PRODUCT/T",))).layout
        np.testing.assert_array_equal(layout.latitude, ds.lat)
        assert len(layout.times) == 30
        ds.to_netcdf(path)
        ds.to_netcdf(path, group="other", mode="a")
        assert formats.kind_of(path) is NamedFile
        layout = formats.open_file(path, Wanted(variables=("other/P",))).layout
        assert layout.units == ("mm/day",)

    def test_a_link_among_the_files(self, tmp_path):
        (tmp_path / "a.npy").symlink_to(tmp_path / "gone")
        with pytest.raises(
            FileNotFoundError, match="a.npy does not exist: it is a lin"
        ):
            formats.kind_of(formats.find(f"{tmp_path}/*.npy")[0])

    def test_pipes_and_devices(self, tmp_path):
        """Opening them would wait for ever."""
        os.mkfifo(tmp_path / "a.h5")
        message = r"path=.*a.h5 is a named pipe \(FIFO\); expected a file"
        for path in (f"{tmp_path}/a.h5", f"{tmp_path}/*.h5"):
            with pytest.raises(ValueError, match=message):
                formats.kind_of(formats.find(path)[0])
        with pytest.raises(ValueError, match="path=/dev/zero is a device; expected"):
            formats.find("/dev/zero")

    def test_truncated(self, tmp_path):
        ds = cube_files.dataset(30)
        for name in ("a.nc", "a.h5"):
            path = tmp_path / name
            cube_files.write(ds, path, engine="netcdf4")
            path.write_bytes(path.read_bytes()[:-300])
            with pytest.raises(ValueError, match="truncated or damaged"):
                formats.open_file(path, Wanted())

    def test_folder(self, tmp_path):
        (tmp_path / "x.nc").mkdir()
        with pytest.raises(ValueError, match="a folder but not a Zarr store"):
            formats.kind_of(tmp_path / "x.nc")
