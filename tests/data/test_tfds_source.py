"""Reading what TFDS prepared: order, processes, and what can go wrong."""

import concurrent.futures
import pickle
import sys

import numpy as np
import pytest

from earthformer_jax.data import tfds_source
from tests.data import tfds_folder


@pytest.fixture(scope="module")
def numbers():
    """`[n, 2, 3]` arrays that hold their own number."""
    return np.arange(11, dtype=np.uint8)[:, None, None] * np.ones((2, 3), np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, numbers):
    return tfds_folder.write(
        tmp_path_factory.mktemp("tfds") / "things" / "1.2.0",
        "things",
        "x",
        tfds_folder.tensor,
        {"train": numbers, "test": numbers[:4]},
        shards=2,
    )


class TestOpenSplit:
    def test_every_example_once(self, folder, numbers):
        source = tfds_source.open_split(folder, "train")
        read = [source[i]["x"] for i in range(len(source))]
        assert len(read) == 11
        np.testing.assert_array_equal(sorted(x[0, 0] for x in read), range(11))

    def test_positions_restore_the_order(self, folder, numbers):
        for split, count in (("train", 11), ("test", 4)):
            source = tfds_source.open_split(folder, split)
            stored = [int(i) for i in source.positions()]
            assert stored != list(range(count))
            read = [source[i]["x"] for i in stored]
            np.testing.assert_array_equal(read, numbers[:count])

    def test_positions_of_what_is_in_order(self, tmp_path, numbers):
        folder = tfds_folder.write(
            tmp_path / "1.0.0",
            "things",
            "x",
            tfds_folder.tensor,
            {"train": numbers},
            shuffled=False,
        )
        source = tfds_source.open_split(folder, "train")
        np.testing.assert_array_equal(source.positions(), np.arange(11))
        np.testing.assert_array_equal(source[7]["x"], numbers[7])

    def test_hashes_are_those_of_tfds(self):
        hashing = pytest.importorskip("tensorflow_datasets.core.hashing")
        hasher = hashing.Hasher("test")
        for number in (0, 7, 9999):
            assert tfds_folder._hash("test", number) == hasher.hash_key(number)

    def test_negative_and_impossible_numbers(self, folder):
        source = tfds_source.open_split(folder, "test")
        np.testing.assert_array_equal(source[-1]["x"], source[3]["x"])
        with pytest.raises(IndexError, match="example 4 of 4"):
            source[4]

    def test_pickled(self, folder):
        source = tfds_source.open_split(folder, "train")
        again = pickle.loads(pickle.dumps(source))
        assert len(pickle.dumps(source)) < 1000
        assert len(again) == len(source)
        np.testing.assert_array_equal(again[5]["x"], source[5]["x"])

    def test_many_threads(self, folder):
        source = pickle.loads(pickle.dumps(tfds_source.open_split(folder, "train")))
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            read = list(pool.map(lambda i: source[i]["x"][0, 0], [*range(11)] * 4))
        assert read == read[:11] * 4

    def test_folder_that_is_none(self, tmp_path):
        assert not tfds_source.is_prepared(tmp_path)
        with pytest.raises(FileNotFoundError, match="contains no dataset_info.json"):
            tfds_source.open_split(tmp_path, "train")

    def test_split_that_is_none(self, folder):
        assert tfds_source.is_prepared(folder)
        with pytest.raises(
            ValueError, match="no split 'validation'; there are: train, test"
        ):
            tfds_source.open_split(folder, "validation")

    def test_other_format(self, tmp_path, numbers):
        folder = tfds_folder.write(
            tmp_path / "1.0.0",
            "things",
            "x",
            tfds_folder.tensor,
            {"train": numbers},
            file_format="tfrecord",
        )
        with pytest.raises(ValueError, match="as tfrecord.*--file_format=array_record"):
            tfds_source.open_split(folder, "train")

    def test_without_tensorflow_datasets(self, folder, monkeypatch):
        monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
        with pytest.raises(
            ValueError, match=r'not installed: pip install ".*\[tfds\]"'
        ):
            tfds_source.open_split(folder, "train")


class TestVideos:
    def test_frames(self, tmp_path):
        frames = np.random.default_rng(0).integers(0, 256, (3, 4, 8, 6, 1), np.uint8)
        folder = tfds_folder.write(
            tmp_path / "1.0.0", "films", "film", tfds_folder.video, {"test": frames}
        )
        source = tfds_source.open_split(folder, "test")
        assert len(source) == 3
        read = [source[int(i)]["film"] for i in source.positions()]
        np.testing.assert_array_equal(read, frames)
        assert read[0].dtype == np.uint8

    def test_missing_file(self, tmp_path):
        frames = np.zeros((3, 4, 8, 6, 1), np.uint8)
        folder = tfds_folder.write(
            tmp_path / "1.0.0", "films", "film", tfds_folder.video, {"test": frames}
        )
        next(folder.glob("*.array_record*")).unlink()
        with pytest.raises(FileNotFoundError, match="films-test.array_record-"):
            tfds_source.open_split(folder, "test")


class TestOpenNamed:
    def test_newest_version(self, folder, monkeypatch, numbers):
        monkeypatch.setenv("TFDS_DATA_DIR", str(folder.parents[1]))
        older = folder.parent / "1.1.9"
        older.mkdir(exist_ok=True)
        (older / "dataset_info.json").write_text("{}")
        source = tfds_source.open_named("things", "test")
        assert len(source) == 4

    def test_not_prepared(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
        with pytest.raises(FileNotFoundError, match="`tfds build mnist --file_format"):
            tfds_source.open_named("mnist", "train")
