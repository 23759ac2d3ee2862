"""Frames by number, from files and memory."""

import concurrent.futures
import pickle

import numpy as np
import pytest

from earthformer_jax.data.readers import frames as frames_lib
from earthformer_jax.data.readers.frames import (
    ArrayFrames,
    ConvertedFrames,
    Cut,
    FileFrames,
)
from earthformer_jax.data.readers.layout import Wanted
from earthformer_jax.data.readers.series import open_cube
from tests.data import cube_files


@pytest.fixture
def ds():
    return cube_files.dataset(40)


@pytest.fixture
def frames(ds, tmp_path):
    """40 frames in eight files."""
    for i in range(8):
        cube_files.write(ds.isel(time=slice(5 * i, 5 * i + 5)), tmp_path / f"{i}.nc")
    return open_cube(f"{tmp_path}/*.nc", Wanted()).frames


class TestBlockMean:
    def test_hand_computed(self):
        values = np.arange(20.0).reshape(1, 4, 5, 1)
        mean = frames_lib.block_mean(values, 2)[0, ..., 0]
        np.testing.assert_array_equal(mean, [[3, 5], [13, 15]])

    def test_missing_values(self):
        values = np.array([[1, np.nan, 4, np.nan], [2, 3, np.nan, np.nan]])
        mean = frames_lib.block_mean(values[None, :, :, None], 2)[0, ..., 0]
        np.testing.assert_array_equal(mean, [[2, np.nan]])

    def test_one_is_nothing(self):
        values = np.random.default_rng(0).random((2, 3, 4, 1))
        np.testing.assert_array_equal(frames_lib.block_mean(values, 1), values)

    def test_constant(self):
        values = np.full((1, 7, 9, 2), 3.5, np.float32)
        mean = frames_lib.block_mean(values, 3)
        assert mean.shape == (1, 2, 3, 2)
        np.testing.assert_array_equal(mean, 3.5)


class TestFileFrames:
    def test_across_files(self, ds, frames):
        whole = cube_files.stacked(ds)
        assert frames.shape == whole.shape
        for start, stop in ((0, 40), (3, 4), (4, 17), (35, 40), (7, 7)):
            np.testing.assert_array_equal(frames.read(start, stop), whole[start:stop])

    def test_in_memory(self, frames, monkeypatch):
        for block in (1, 2**20):
            monkeypatch.setattr(frames_lib, "BLOCK_BYTES", block)
            memory = frames.in_memory()
            assert isinstance(memory, ArrayFrames)
            np.testing.assert_array_equal(memory.read(3, 9), frames.read(3, 9))

    def test_few_files_stay_open(self, frames, monkeypatch):
        monkeypatch.setattr(frames_lib, "MAX_OPEN", 2)
        before = frames.read(0, 40)
        assert len(frames._open) == 2
        np.testing.assert_array_equal(frames.read(0, 40), before)
        frames.close()
        assert not frames._open
        np.testing.assert_array_equal(frames.read(0, 40), before)

    def test_pickled(self, frames):
        whole = frames.read(0, 40)
        again = pickle.loads(pickle.dumps(frames))
        np.testing.assert_array_equal(again.read(0, 40), whole)

    def test_many_threads(self, frames, monkeypatch):
        monkeypatch.setattr(frames_lib, "MAX_OPEN", 2)
        whole = frames.in_memory().values
        starts = np.random.default_rng(0).integers(0, 30, 60)
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            parts = list(pool.map(lambda i: frames.read(i, i + 10), starts))
        for start, part in zip(starts, parts, strict=True):
            np.testing.assert_array_equal(part, whole[start : start + 10])

    def test_after_a_fork(self, frames, monkeypatch):
        """What another process opened is opened again."""
        before = frames.read(0, 3)
        handles = dict(frames._open)
        frames._process = -1
        np.testing.assert_array_equal(frames.read(0, 3), before)
        assert all(frames._open[i] is not handle for i, handle in handles.items())

    def test_channels(self, ds, frames):
        swapped = cube_files.stacked(ds, ("P", "T"))
        for source in (frames, frames.in_memory()):
            chosen = source.channels([1, 0])
            assert isinstance(chosen, FileFrames | ArrayFrames)
            np.testing.assert_array_equal(chosen.read(0, 40), swapped)
            np.testing.assert_array_equal(
                chosen.channels([1]).read(0, 40), swapped[..., 1:]
            )
            assert chosen.channels([1]).shape[-1] == 1


CUTS = [
    Cut(slice(1, 4), (slice(0, 3),)),
    Cut(slice(0, 4), (slice(3, 5), slice(0, 2)), mirror=True),
    Cut(slice(1, 3), (slice(1, 5),), flip=True, space_step=2),
    Cut(slice(0, 3), (slice(4, 5), slice(0, 2)), space_step=2, pick=True),
]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(
    "first", [None, Cut(slice(0, 4), (slice(2, 5), slice(0, 2)), True, mirror=True)]
)
def test_parts_of_fields(ds, frames, cut, first):
    """Cut once or twice, in files as in memory."""
    in_memory = ArrayFrames(cube_files.stacked(ds))
    if first is not None:
        in_memory, frames = in_memory.cut(first), frames.cut(first)
    expected = in_memory.cut(cut)
    part = frames.cut(cut)
    assert part.shape == expected.shape == part.read(0, 40).shape
    np.testing.assert_array_equal(part.read(3, 7), expected.read(3, 7))
    other = frames.channels([1]).cut(cut)
    np.testing.assert_array_equal(other.read(3, 7), expected.read(3, 7)[..., 1:])


def test_other_units(ds, frames):
    """Converted when they are read, in files as in memory."""
    expected = cube_files.stacked(ds) * [1, 86400.0] + [-273.15, 0]
    for source in (frames, ArrayFrames(cube_files.stacked(ds))):
        found = ConvertedFrames(source, (1, 86400), (-273.15, 0))
        np.testing.assert_allclose(found.read(3, 7), expected[3:7], rtol=1e-6)
        np.testing.assert_allclose(found.in_memory().values, expected, rtol=1e-6)
        swapped = found.channels([1, 0]).cut(CUTS[0]).read(0, 2)
        np.testing.assert_allclose(
            swapped, expected[:2, 1:4, :3, ::-1], rtol=1e-6, atol=1e-4
        )
        assert found.unthinned().read(0, 1).dtype == np.float32
        found.close()
    assert pickle.loads(pickle.dumps(found)).shape == expected.shape
