"""Arrays in .npy files."""

import contextlib
import os

import numpy as np
import pytest

from earthformer_jax.data.readers import arrays
from earthformer_jax.data.readers.arrays import NpyArray, NpyFile
from earthformer_jax.data.readers.layout import Wanted

ALL = slice(None)


def npy(array, folder, **wanted):
    path = folder / "a.npy"
    np.save(path, array)
    return NpyFile(path, Wanted(**wanted))


def read(file, sequence=0, steps=ALL, rows=ALL, columns=ALL):
    handle = file.open()
    values = file.read(handle, sequence, steps, rows, columns)
    handle.close()
    return values


class TestNpy:
    def test_frames(self, tmp_path):
        array = np.arange(2 * 3 * 4).reshape(2, 3, 4).astype(np.uint8)
        file = npy(array, tmp_path, missing=(5,))
        assert file.layout.names == ("value",)
        assert file.layout.size == (3, 4)
        values = read(file)
        assert values.dtype == np.float32 and values.shape == (2, 3, 4, 1)
        assert np.argwhere(np.isnan(values)).tolist() == [[0, 1, 1, 0]]
        assert "axes assumed to be 'thw' (t=2, h=3, w=4)" in file.layout.notes[0]

    def test_sequences(self, tmp_path):
        array = np.random.default_rng(0).random((9, 10, 11, 12))
        file = npy(array, tmp_path)
        assert (file.layout.sequences, file.layout.steps) == (9, 10)
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
            (np.zeros(3), r"has shape \(3,\); expected time, rows and columns"),
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


class TestNpyArray:
    @pytest.mark.parametrize("order", ["C", "F"])
    @pytest.mark.parametrize("dtype", ["u1", ">f8", "f2", "?"])
    def test_slices(self, tmp_path, order, dtype, monkeypatch):
        """The same as of the array in memory, however much is read at once."""
        whole = 100 * np.random.default_rng(0).random((4, 5, 6, 7))
        whole = np.asarray(whole.astype(dtype), order=order)
        np.save(tmp_path / "a.npy", whole)
        for block, sparse in ((2**24, 2**16), (50, 8), (1, 1)):
            monkeypatch.setattr(arrays, "BLOCK_BYTES", block)
            monkeypatch.setattr(arrays, "SPARSE_BYTES", sparse)
            with contextlib.closing(NpyArray(tmp_path / "a.npy")) as array:
                assert (array.shape, array.dtype) == (whole.shape, whole.dtype)
                for key in (
                    (2, slice(1, 5, 2), slice(None), slice(3, 6)),
                    (slice(0, 4, 3), 1, slice(2, 2), 0),
                    (slice(1, 3),),
                    (slice(None), slice(None), slice(None), -1),
                    3,
                ):
                    np.testing.assert_array_equal(array[key], whole[key])

    def test_cut_while_open(self, tmp_path):
        """An exception, where a memory map would end the process by SIGBUS."""
        path = tmp_path / "a.npy"
        np.save(path, np.ones((40, 50, 60)))
        with contextlib.closing(NpyArray(path)) as array:
            os.truncate(path, 5000)
            with pytest.raises(ValueError, match="a.npy is shorter than when .* 5000"):
                array[30:32]

    def test_python_objects(self, tmp_path):
        np.save(tmp_path / "a.npy", np.array([{}]), allow_pickle=True)
        with pytest.raises(TypeError, match="Python objects, which are not opened"):
            NpyArray(tmp_path / "a.npy")
