"""Arrays in .npy files."""

import numpy as np
import pytest

from earthformer_jax.data.readers.arrays import NpyFile
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
