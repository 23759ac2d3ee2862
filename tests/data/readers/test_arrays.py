"""Arrays whose axes have no names: HDF5 and .npy."""

import contextlib

import h5py
import numpy as np
import pytest

from earthformer_jax.data.readers import arrays
from earthformer_jax.data.readers.arrays import Hdf5File, NpyFile
from earthformer_jax.data.readers.layout import Wanted
from tests import golden_files

ALL = slice(None)


def npy(array, folder, **wanted):
    path = folder / "a.npy"
    np.save(path, array)
    return NpyFile(path, Wanted(**wanted))


def read(file, sequence=0, steps=ALL, rows=ALL, columns=ALL):
    handle = file.open()
    values = file.read(handle, sequence, steps, rows, columns)
    if hasattr(handle, "close"):
        handle.close()
    return values


class TestAxes:
    @pytest.mark.parametrize(
        ("shape", "axes"),
        [
            ((40, 1226, 760), "thw"),
            ((384, 384, 36), "hwt"),
            ((64, 64, 64), "thw"),
            ((365, 10, 12, 4), "thwc"),
            ((5, 384, 384, 49), "nhwt"),
            ((100, 20, 64, 64), "nthw"),
            ((100, 20, 48, 64), "nthw"),
            ((2, 3, 8, 9, 1), "nthwc"),
            ((8, 9), "hw"),
        ],
    )
    def test_guess(self, shape, axes):
        assert arrays.guess_axes(shape) == axes

    def test_no_guess(self):
        for shape in ((3,), (1, 1, 1, 1, 1, 1)):
            with pytest.raises(ValueError, match="expected time, rows and columns"):
                arrays.guess_axes(shape)

    @pytest.mark.parametrize("axes", ["th", "thwx", "thww", "nhw", "", "h"])
    def test_wrong_letters(self, axes):
        with pytest.raises(ValueError, match="expected the letters t, h and w, each"):
            arrays.check_axes(axes, (1, 2, 3), "x")

    def test_wrong_number(self):
        message = r"axes='thw' names 3 axes; x has 4: \(1, 2, 3, 4\)"
        with pytest.raises(ValueError, match=message):
            arrays.check_axes("thw", (1, 2, 3, 4), "x")

    @pytest.mark.parametrize("axes", ["nthwc", "cwhtn", "whnct"])
    def test_every_order_reads_the_same(self, axes):
        whole = np.arange(2 * 3 * 4 * 5 * 6).reshape(2, 3, 4, 5, 6)
        array = whole.transpose(["nthwc".index(a) for a in axes])
        part = arrays.read_array(
            array, axes, 1, slice(0, 3, 2), slice(1, 4), slice(2, 5)
        )
        np.testing.assert_array_equal(part, whole[1, ::2, 1:4, 2:5])


class TestNpy:
    def test_frames(self, tmp_path):
        array = np.arange(2 * 3 * 4).reshape(2, 3, 4).astype(np.uint8)
        file = npy(array, tmp_path, missing=(5,))
        assert file.layout.names == ("value",)
        assert file.layout.size == (3, 4)
        values = read(file)
        assert values.dtype == np.float32 and values.shape == (2, 3, 4, 1)
        assert np.argwhere(np.isnan(values)).tolist() == [[0, 1, 1, 0]]
        assert "axes assumed to be 'thw' (t=2, h=3, w=4)" in file.layout.notes

    def test_sequences(self, tmp_path):
        array = np.random.default_rng(0).random((3, 6, 10, 12))
        file = npy(array, tmp_path)
        assert (file.layout.sequences, file.layout.steps) == (3, 6)
        np.testing.assert_array_equal(
            read(file, 2)[..., 0], array[2].astype(np.float32)
        )

    def test_channels_can_be_named(self, tmp_path):
        array = np.zeros((6, 10, 12, 2))
        assert npy(array, tmp_path).layout.names == ("value_0", "value_1")
        assert npy(array, tmp_path, variables=("u", "v")).layout.names == ("u", "v")
        with pytest.raises(ValueError, match="variables=u names 1 channels; .* has 2"):
            npy(array, tmp_path, variables=("u",))

    def test_one_field(self, tmp_path):
        assert npy(np.zeros((3, 4)), tmp_path).layout.single

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (np.zeros((2, 3, 4), complex), "'a.npy' has type complex128; expected num"),
            (np.full((2, 3, 4), "x"), "has type <U1; expected numbers: store them"),
            (np.full((2, 3, 4), None), "contains Python objects, which are not opened"),
            (np.zeros(3), r"contains an array of shape \(3,\); expected time, rows"),
        ],
    )
    def test_no_fields(self, tmp_path, array, message):
        with pytest.raises(ValueError, match=message):
            npy(array, tmp_path)

    def test_truncated(self, tmp_path):
        npy(np.zeros((20, 30, 40)), tmp_path)
        path = tmp_path / "a.npy"
        whole = path.read_bytes()
        for size in (len(whole) // 2, 50):
            path.write_bytes(whole[:size])
            with pytest.raises(ValueError, match=f"truncated, damaged .*{size} bytes"):
                NpyFile(path, Wanted())


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
        assert layout.notes[1] == "left out: half"

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
