"""Files in SEVIR's layout: read in any order, and rejected when they are broken."""

import concurrent.futures
import os
import pickle

import h5py
import numpy as np
import pytest

from earthformer_jax import data
from earthformer_jax.data.sevir.files import VilFiles, frame_offsets
from tests.data import sevir_layout


def load(path):
    return data.load(dict(name="sevir", path=path), 0)


class TestVilFiles:
    def test_many_threads_and_few_open_files(self, tmp_path):
        files = VilFiles(
            sevir_layout.write(tmp_path) / "data", sevir_layout.codes(), max_open=1
        )
        codes = sevir_layout.codes()
        jobs = [(name, k) for k in range(4) for name in codes] * 8

        def read(job):
            return files.read(*job, slice(3, 40, 5))

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for (name, k), frames in zip(jobs, pool.map(read, jobs), strict=True):
                want = np.moveaxis(codes[name][k, :, :, 3:40:5], -1, 0)
                np.testing.assert_array_equal(frames, want)
        assert len(files._open) == 1
        files.close()
        assert len(files._open) == 0
        np.testing.assert_array_equal(read(jobs[0]), read(jobs[0]))

    def test_frames(self, tmp_path):
        """Whether stored frame by frame or in a piece."""
        files = VilFiles(sevir_layout.write(tmp_path) / "data", sevir_layout.codes())
        for name, vil in sevir_layout.codes().items():
            for frames in (slice(None), slice(0, 1), slice(30, 99, 7)):
                want = np.moveaxis(vil[2, :, :, frames], -1, 0)
                have = files.read(name, 2, frames)
                np.testing.assert_array_equal(have, want)
                assert have.flags.c_contiguous

    def test_changed_since_the_training_began(self, tmp_path):
        files = VilFiles(sevir_layout.write(tmp_path) / "data", sevir_layout.codes())
        name = "vil/2018/A.h5"
        files.read(name, 0, slice(5))
        path = tmp_path / "data" / name
        os.truncate(path, path.stat().st_size - 1000)
        for source in (files, pickle.loads(pickle.dumps(files))):
            with pytest.raises(OSError, match="A.h5 has changed since training began"):
                source.read(name, 1, slice(5))
        path.unlink()
        with pytest.raises(OSError, match="A.h5 cannot be read any more"):
            files.read(name, 1, slice(5))

    def test_copies_open_the_files_themselves(self, tmp_path, monkeypatch):
        files = VilFiles(sevir_layout.write(tmp_path) / "data", sevir_layout.codes())
        name = "vil/2018/A.h5"
        want = files.read(name, 0, slice(5))
        copy = pickle.loads(pickle.dumps(files))
        assert len(copy._open) == 0
        np.testing.assert_array_equal(copy.read(name, 0, slice(5)), want)
        handle = files._open[name]
        monkeypatch.setattr(os, "getpid", lambda: -1)  # as after a fork
        np.testing.assert_array_equal(files.read(name, 0, slice(5)), want)
        assert files._open[name] is not handle


class TestFrameOffsets:
    @pytest.mark.parametrize(
        ("offsets", "frames", "want"),
        [
            ([-5, 0, 5, 10], 4, [-5, 0, 5, 10]),
            ([-5, 0, 5, 10, 15], 3, [-5, 5, 15]),
            ([-5, 0, 5, 10], 2, [-5, 5]),
            ([], 5, [-10, -5, 0, 5, 10]),
        ],
    )
    def test_known(self, offsets, frames, want):
        have = frame_offsets(np.array(offsets, np.int32), frames)
        np.testing.assert_array_equal(have, want)

    def test_others(self):
        for frames in (3, 5, 8):
            assert frame_offsets(np.arange(4), frames) is None


class TestBrokenFiles:
    def broken(self, tmp_path, change):
        """A folder whose file A was changed by a function of its path."""
        sevir_layout.write(tmp_path)
        change(tmp_path / "data" / "vil/2018/A.h5")
        return str(tmp_path)

    def rewritten(self, tmp_path, **datasets):
        def change(path):
            with h5py.File(path, "w") as file:
                for name, values in datasets.items():
                    file[name] = values

        return self.broken(tmp_path, change)

    def test_truncated(self, tmp_path):
        def change(path):
            path.write_bytes(path.read_bytes()[:5000])

        with pytest.raises(
            ValueError, match=r"A.h5 \(5000 bytes\) cannot be read: it is"
        ):
            load(path=self.broken(tmp_path, change))

    def test_no_hdf5(self, tmp_path):
        def change(path):
            path.write_bytes(b"<html>404")

        with pytest.raises(
            ValueError, match="A.h5 is not an HDF5 file .9 bytes startin"
        ):
            load(path=self.broken(tmp_path, change))

    def test_damaged_pictures(self, tmp_path):
        def change(path):
            with h5py.File(path, "w") as file:
                file.create_dataset(
                    "vil",
                    data=sevir_layout.codes()["vil/2018/A.h5"],
                    chunks=(1, 12, 12, 1),
                    compression="gzip",
                )
                chunk = file["vil"].id.get_chunk_info_by_coord((0, 0, 0, 0))
            content = bytearray(path.read_bytes())
            content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(
                chunk.size
            )
            path.write_bytes(content)

        dataset = load(path=self.broken(tmp_path, change))
        with pytest.raises(
            OSError, match="A.h5: event 0 cannot be read .*; if the file"
        ):
            dataset.data.train[3]

    def test_wrong_type(self, tmp_path):
        path = self.rewritten(tmp_path, vil=np.zeros((4, 12, 12, 49), np.float32))
        with pytest.raises(
            ValueError,
            match="'vil' is float32 of shape .4, 12, 12, 49.; expected .event, ro",
        ):
            load(path=path)

    def test_wrong_axes(self, tmp_path):
        path = self.rewritten(tmp_path, vil=np.zeros((4, 49, 12, 12), np.uint8))
        with pytest.raises(ValueError, match="12.; expected .*axes in another order"):
            load(path=path)

    def test_time_first(self, tmp_path):
        path = self.rewritten(
            tmp_path,
            vil=np.zeros((49, 12, 12, 4), np.uint8),
            id=np.array(sevir_layout.IDS[:4], "S16"),
        )
        with pytest.raises(
            ValueError, match="but 'id' lists 4 events; expected .event"
        ):
            load(path=path)

    def test_no_pictures(self, tmp_path):
        path = self.rewritten(tmp_path, vill=np.zeros((4, 12, 12, 49), np.uint8))
        with pytest.raises(
            ValueError, match="has no data set 'vil'; is it 'vill'. .it"
        ):
            load(path=path)

    def test_other_events(self, tmp_path):
        path = self.rewritten(
            tmp_path,
            vil=np.zeros((4, 12, 12, 49), np.uint8),
            id=np.array(["S8", "S4", "R1", "S3"], "S16"),
        )
        with pytest.raises(
            ValueError, match="event 'S3' .* is 'S4' in .*A.h5 .file_inde"
        ):
            load(path=path)

    def test_fewer_events(self, tmp_path):
        path = self.rewritten(tmp_path, vil=np.zeros((3, 12, 12, 49), np.uint8))
        with pytest.raises(
            ValueError, match="'S4' has file_index=3 in the catalog, but"
        ):
            load(path=path)

    def test_fewer_frames(self, tmp_path):
        path = self.rewritten(tmp_path, vil=np.zeros((4, 12, 12, 24), np.uint8))
        with pytest.raises(
            ValueError, match="A.h5 has 24 frames per event, but one exam"
        ):
            load(path=path)
        path = self.rewritten(tmp_path, vil=np.zeros((4, 12, 12, 40), np.uint8))
        with pytest.raises(
            ValueError, match="has 49 minute_offsets in the catalog, but"
        ):
            load(path=path)

    def test_other_size(self, tmp_path):
        path = self.rewritten(tmp_path, vil=np.zeros((4, 8, 8, 49), np.uint8))
        with pytest.raises(
            ValueError, match="8 x 8 in vil/2018/A.h5 and of 12 x 12 in"
        ):
            load(path=path)
