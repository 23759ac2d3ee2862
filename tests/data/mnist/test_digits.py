"""Digits from each of their sources, and what can be wrong with the files."""

import gzip
import logging
import sys

import numpy as np
import pytest

from earthformer_jax.data.mnist import digits
from tests import golden_files
from tests.data import tfds_folder

NAMES = {"train": "train-images-idx3-ubyte", "test": "t10k-images-idx3-ubyte"}


def images(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28), np.uint8)


def idx(x, magic=0x803):
    """Bytes of an idx file."""
    header = np.array([magic, *x.shape], ">i4")
    return header.tobytes() + x.tobytes()


def write_mnist(folder, packed=True, names=NAMES):
    for seed, (split, name) in enumerate(names.items()):
        data = idx(images({"train": 5, "test": 3}[split], seed))
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(data))
        else:
            (folder / name).write_bytes(data)


@pytest.fixture(scope="module")
def embedded():
    return digits.load_digits("")


class TestEmbedded:
    def test_sizes(self, embedded):
        assert embedded.images.shape == (1797, 28, 28)
        assert embedded.images.dtype == np.uint8
        assert len(embedded.train) == 1500
        assert len(embedded.test) == 297
        assert "embedded 1,797 digits" in embedded.description

    def test_they_look_like_mnist(self, embedded):
        """Means over all images; MNIST's are 0.131, 0.191 and 19.7 rows."""
        assert embedded.images.mean() / 255 == pytest.approx(0.131, abs=0.005)
        assert np.mean(embedded.images > 0) == pytest.approx(0.191, abs=0.01)
        rows = embedded.images.any(axis=2).sum(axis=1)
        assert rows.mean() == pytest.approx(19.7, abs=1)
        assert np.all(embedded.images.max(axis=(1, 2)) > 200)

    def test_they_are_centred(self, embedded):
        weights = embedded.images / embedded.images.sum(axis=(1, 2), keepdims=True)
        for axis in ("nhw,h->n", "nhw,w->n"):
            centre = np.einsum(axis, weights, np.arange(28))
            np.testing.assert_allclose(centre, 13.5, atol=0.51)

    def test_each_is_one_digit(self, embedded):
        assert len(np.unique(embedded.images.reshape(1797, -1), axis=0)) == 1797

    def test_it_is_said(self, caplog):
        with caplog.at_level(logging.INFO, "earthformer_jax"):
            digits.load_digits("")
        assert "digits=FOLDER" in caplog.text


class TestIdx:
    @pytest.mark.parametrize("packed", [True, False])
    def test_folder(self, tmp_path, packed):
        write_mnist(tmp_path, packed)
        loaded = digits.load_digits(str(tmp_path))
        np.testing.assert_array_equal(loaded.train, images(5, 0))
        np.testing.assert_array_equal(loaded.test, images(3, 1))
        assert loaded.description == "5 + 3 digits of MNIST"

    def test_one_of_the_files(self, tmp_path):
        write_mnist(tmp_path)
        loaded = digits.load_digits(str(tmp_path / f"{NAMES['test']}.gz"))
        assert (len(loaded.train), len(loaded.test)) == (5, 3)

    def test_names_with_a_dot(self, tmp_path):
        names = {split: name.replace("-idx", ".idx") for split, name in NAMES.items()}
        write_mnist(tmp_path, packed=False, names=names)
        assert len(digits.load_digits(str(tmp_path)).images) == 8

    def test_mnist(self):
        folder = golden_files.shared_file("data", "mnist")
        mnist = digits.load_digits(str(folder))
        assert (len(mnist.train), len(mnist.test)) == (60_000, 10_000)
        assert mnist.train.mean() == pytest.approx(33.318421, abs=1e-6)
        assert mnist.description == "60,000 + 10,000 digits of MNIST"


class TestErrors:
    def test_no_such_folder(self, tmp_path):
        (tmp_path / "mnist").mkdir()
        with pytest.raises(
            FileNotFoundError,
            match="digits=.*mnst does not exist; did you mean 'mnist'",
        ):
            digits.load_digits(str(tmp_path / "mnst"))

    def test_the_same_file_twice(self, tmp_path):
        write_mnist(tmp_path, packed=False)
        one, other = (tmp_path / name for name in NAMES.values())
        other.write_bytes(one.read_bytes())
        with pytest.raises(
            ValueError, match="100% of the test digits .* are also trai"
        ):
            digits.load_digits(str(tmp_path))

    def test_missing_file(self, tmp_path):
        write_mnist(tmp_path)
        (tmp_path / f"{NAMES['test']}.gz").unlink()
        with pytest.raises(
            FileNotFoundError, match="contains neither t10k-images-idx3-ubyte nor t10k"
        ):
            digits.load_digits(str(tmp_path))

    def read(self, tmp_path, data):
        path = tmp_path / "digits"
        path.write_bytes(data)
        return digits.read_idx(path)

    def test_truncated(self, tmp_path):
        data = idx(images(3))
        with pytest.raises(ValueError, match="2268 bytes where 3 images need 2368"):
            self.read(tmp_path, data[:-100])

    def test_truncated_gzip(self, tmp_path):
        data = gzip.compress(idx(images(3)))
        with pytest.raises(ValueError, match="cannot be unpacked.*download it again"):
            self.read(tmp_path, data[:-100])

    def test_labels(self, tmp_path):
        labels = np.array([0x801, 3], ">i4").tobytes() + bytes([5, 0, 4]) * 5
        with pytest.raises(
            ValueError, match="not an idx file of images: it begins with 00 00 08 01"
        ):
            self.read(tmp_path, labels)

    @pytest.mark.parametrize("data", [b"", b"abc", b"a web page, not found"])
    def test_something_else(self, tmp_path, data):
        with pytest.raises(ValueError, match="not an idx file of images"):
            self.read(tmp_path, data)

    def test_other_size(self, tmp_path):
        with pytest.raises(ValueError, match="images of 16 x 16.*expected 28 x 28"):
            self.read(tmp_path, idx(np.zeros((2, 16, 16), np.uint8)))

    def test_no_images(self, tmp_path):
        with pytest.raises(ValueError, match="0 images"):
            self.read(tmp_path, idx(images(0)))


class TestTfds:
    def test_order_of_the_files(self, tmp_path, monkeypatch):
        splits = {"train": images(9, 1)[..., None], "test": images(4, 2)[..., None]}
        tfds_folder.write(
            tmp_path / "mnist" / "3.0.1", "mnist", "image", tfds_folder.image, splits
        )
        monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
        loaded = digits.load_digits("tfds")
        np.testing.assert_array_equal(loaded.train, images(9, 1))
        np.testing.assert_array_equal(loaded.test, images(4, 2))
        assert loaded.description == "9 + 4 digits of MNIST by TFDS"

    def test_not_prepared(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
        with pytest.raises(FileNotFoundError, match="tfds build mnist"):
            digits.load_digits("tfds")

    def test_not_installed(self, tmp_path, monkeypatch):
        folder = tmp_path / "mnist" / "3.0.1"
        folder.mkdir(parents=True)
        (folder / "dataset_info.json").write_text("{}")
        monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
        monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
        with pytest.raises(ValueError, match="tensorflow-datasets.*not installed"):
            digits.load_digits("tfds")
