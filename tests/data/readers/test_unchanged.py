"""Files that change while they are read."""

import os
import pickle
import shutil

import h5py
import numpy as np
import pytest

from earthformer_jax.data.readers import unchanged
from earthformer_jax.data.readers.layout import Wanted
from earthformer_jax.data.readers.series import open_cube
from tests.data import cube_files


def written(folder, name, seed=0):
    """A file or store of 40 frames in the format that the name says."""
    path = folder / name
    ds = cube_files.dataset(40, seed=seed)
    if path.suffix == ".npy":
        np.save(path, cube_files.stacked(ds))
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["x"] = ds["T"].values
    else:
        cube_files.write(ds, path)
    return path


def opened(path):
    axes = {".npy": "thwc", ".h5": "thw"}.get(path.suffix, "")
    return open_cube(str(path), Wanted(axes=axes)).frames


FORMATS = ("a.npy", "a.h5", "a.nc", "a.zarr")


class TestFrames:
    @pytest.mark.parametrize("name", FORMATS)
    def test_replaced(self, tmp_path, name):
        path = written(tmp_path, name)
        frames = opened(path)
        copy = pickle.loads(pickle.dumps(frames))
        frames.read(0, 5)
        (shutil.rmtree if path.is_dir() else os.unlink)(path)
        written(tmp_path, name, seed=1)
        for source in (frames, copy):
            with pytest.raises(unchanged.ChangedError, match=f"{name} has changed sin"):
                source.read(5, 10)

    @pytest.mark.parametrize("name", FORMATS[:3])
    def test_cut(self, tmp_path, name):
        path = written(tmp_path, name)
        frames = opened(path)
        frames.read(0, 5)
        size = path.stat().st_size
        os.truncate(path, size // 2)
        message = f"{name} has changed .* has {size // 2} bytes where it had {size}"
        with pytest.raises(unchanged.ChangedError, match=message):
            frames.read(35, 40)

    def test_gone(self, tmp_path):
        path = written(tmp_path, "a.npy")
        frames = opened(path)
        path.unlink()
        with pytest.raises(unchanged.ChangedError, match="a.npy cannot be read any mo"):
            frames.read(0, 5)

    def test_a_chunk_of_a_store_is_gone(self, tmp_path):
        """Zarr takes a chunk that is not there for one of fill values."""
        path = written(tmp_path, "a.zarr")
        frames = opened(path)
        next(p for p in (path / "T" / "c").rglob("*") if p.is_file()).unlink()
        with pytest.raises(unchanged.ChangedError, match="a.zarr has changed since"):
            frames.read(0, 40)

    def test_while_it_is_read(self, tmp_path, monkeypatch):
        """What changed during a read is noticed after it."""
        path = written(tmp_path, "a.npy")
        frames = opened(path)
        read = frames._files[0].read

        def slow(*arguments):
            values = read(*arguments)
            os.utime(path, (0, 0))
            return values

        monkeypatch.setattr(frames._files[0], "read", slow)
        with pytest.raises(unchanged.ChangedError, match="a.npy has changed since"):
            frames.read(0, 5)
