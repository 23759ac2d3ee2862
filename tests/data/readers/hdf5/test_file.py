"""Data sets of HDF5 files: which are fields, and what their axes are."""

import contextlib

import h5py
import numpy as np
import pytest

from earthformer_jax.data.readers.hdf5.file import Hdf5File
from earthformer_jax.data.readers.layout import Wanted
from tests import golden_files

ALL = slice(None)


def read(file, sequence=0, steps=ALL, rows=ALL, columns=ALL):
    with contextlib.closing(file.open()) as handle:
        return file.read(handle, sequence, steps, rows, columns)


class TestHdf5:
    @pytest.fixture
    def path(self, tmp_path):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            rain = np.arange(10 * 6 * 7).reshape(10, 6, 7)
            file["rain"] = rain.astype(np.uint16)
            file["rain"].attrs.update(units="mm", scale_factor=0.1, _FillValue=3)
            file["deep/wind"] = rain.astype(np.float32)
            file["time"] = np.array([b"20160928%02d00" % h for h in range(10)])
            file["lat"], file["lon"] = np.arange(6.0), np.arange(7.0)
            file["mask"] = np.zeros((6, 7))
            file["half"] = np.zeros((10, 3, 7))
        return tmp_path / "a.h5"

    def test_layout(self, path):
        layout = Hdf5File(path, Wanted()).layout
        assert layout.names == ("deep/wind", "rain")
        assert layout.units == ("", "mm")
        assert layout.size == (6, 7)
        assert np.diff(layout.times.minutes).tolist() == 9 * [60]
        np.testing.assert_array_equal(layout.latitude, np.arange(6))
        assert layout.notes == ("left out: half",)

    def test_values(self, path):
        values = read(Hdf5File(path, Wanted(variables=("rain",))), steps=slice(0, 2))
        want = 0.1 * np.arange(84).reshape(2, 6, 7, 1)
        want[0, 0, 3] = np.nan
        np.testing.assert_allclose(values, want, rtol=1e-6)

    def test_axes(self, path):
        file = Hdf5File(path, Wanted(variables=("rain",), axes="wht"))
        assert (file.layout.steps, file.layout.size) == (7, (6, 10))
        assert file.layout.times is None  # there are ten
        with pytest.raises(ValueError, match="axes='thwc' names 4 axes; 'rain' of"):
            Hdf5File(path, Wanted(variables=("rain",), axes="thwc"))

    def test_refused(self, path):
        with pytest.raises(
            ValueError, match="no variable 'rains'; did you mean 'rain'"
        ):
            Hdf5File(path, Wanted(variables=("rains",)))
        with pytest.raises(ValueError, match="variables must share axes"):
            Hdf5File(path, Wanted(variables=("rain", "half")))
        with h5py.File(path, "a") as file:
            for name in list(file):
                del file[name]
            file["words"] = np.full((2, 3, 4), b"a")
        with pytest.raises(ValueError, match="'words' has type .S1; expected numbers"):
            Hdf5File(path, Wanted())

    def test_truncated(self, path):
        path.write_bytes(path.read_bytes()[:-500])
        with pytest.raises(
            ValueError, match="HDF5 file that cannot be read: it is tru"
        ):
            Hdf5File(path, Wanted())

    def test_damaged(self, tmp_path):
        """The header is whole, a block of values is not."""
        noise = np.random.default_rng(0).integers(0, 255, (4, 50, 50), np.uint8)
        path = tmp_path / "a.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("x", data=noise, chunks=(1, 50, 50), compression="gzip")
            at = file["x"].id.get_chunk_info(2).byte_offset
        whole = bytearray(path.read_bytes())
        whole[at : at + 400] = bytes(400)
        path.write_bytes(whole)
        file = Hdf5File(path, Wanted())
        with contextlib.closing(file.open()) as handle:
            file.read(handle, 0, slice(0, 2), ALL, ALL)
            with pytest.raises(ValueError, match="truncated or damaged"):
                file.read(handle, 0, slice(2, 3), ALL, ALL)

    def test_radar_composite(self):
        path = golden_files.shared_file("data", "radar", "fmi_composite_20160928.h5")
        file = Hdf5File(path, Wanted(missing=(255.0,)))
        assert file.layout.names == ("code",)
        assert (file.layout.steps, file.layout.size) == (40, (1226, 760))
        assert np.diff(file.layout.times.minutes).tolist() == 39 * [5]
        assert 0.2 < np.isnan(read(file, steps=slice(0, 1))).mean() < 0.3
