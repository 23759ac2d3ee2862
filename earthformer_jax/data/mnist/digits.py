"""Handwritten digits of 28 x 28 pixels, from MNIST or embedded.

The digits are read from

- a folder with the four idx files of MNIST, gzipped or not (two of them are read:
  train-images-idx3-ubyte and t10k-images-idx3-ubyte), or one of these files;
- "tfds": the data set "mnist" of TensorFlow Datasets, prepared as ArrayRecord;
- "" (default): the 1,797 digits of 8 x 8 pixels that come with scikit-learn, scaled up.

Reference:
    http://yann.lecun.com/exdb/mnist/ for the idx format; scikit-learn's digits are the
    test part of https://archive.ics.uci.edu/dataset/80.
"""

import dataclasses
import gzip
import logging
import zlib
from pathlib import Path
from typing import Any, cast

import numpy as np
from scipy import ndimage
from sklearn import datasets as sklearn_datasets

from earthformer_jax.data import tfds_source
from earthformer_jax.data.mnist.frames import SIZE
from earthformer_jax.data.readers import paths

TFDS = "tfds"
FIELD = "digits"

_IDX_FILES = ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte")
_IDX_MAGIC = 0x00000803  # unsigned bytes, three axes
_IDX_HEADER = 16

_SKLEARN_TRAINING = 1500
_SKLEARN_LEVELS = 16  # grey values of scikit-learn's digits are 0 .. 16
_MARGIN = 2  # pixels around them, so that strokes fade out smoothly
_ZOOM = 2.5  # 8 pixels become 20, the size of digits in MNIST
_DARK, _BRIGHT = 0.35, 0.85  # grey values that become 0 and 1

MOST_KNOWN = 0.01  # share of test digits that may be training digits

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Digits:
    """Images of digits.

    Attributes:
        images: uint8 `[n, 28, 28]`, bright strokes on a background of 0.
        training: number of training images, which come first; the rest are test images.
        description: "60,000 + 10,000 digits of MNIST".
    """

    images: np.ndarray
    training: int
    description: str

    @property
    def train(self) -> np.ndarray:
        """The training images."""
        return self.images[: self.training]

    @property
    def test(self) -> np.ndarray:
        """The test images."""
        return self.images[self.training :]


def load_digits(path: str) -> Digits:
    """Loads the digits that the setting `digits` selects.

    Args:
        path: a folder with MNIST's idx files, or one of them; "tfds"; or "" for the
            embedded digits.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: if a file is damaged or has the wrong content.
    """
    if not path:
        digits = _embedded()
        logger.info(
            "no MNIST files are given, so the digits are %s; to use MNIST, set "
            "digits=FOLDER",
            digits.description,
        )
        return digits
    if path == TFDS:
        training, test = _from_tfds()
        return _together(training, test, "MNIST by TFDS")
    folder = paths.existing(path, FIELD)
    folder = folder if folder.is_dir() else folder.parent
    training, test = (read_idx(_find(folder, name)) for name in _IDX_FILES)
    return _together(training, test, "MNIST")


def read_idx(path: Path) -> np.ndarray:
    """uint8 `[n, 28, 28]` images of an idx file, gzipped or not.

    Raises:
        ValueError: if the file is damaged or holds something else.
    """
    data = Path(path).read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(
                f"`{FIELD}`: {path} cannot be unpacked ({error}): it is truncated or "
                "damaged; download it again"
            ) from error
    header = np.frombuffer(data[:_IDX_HEADER], np.uint8)
    if header.size < _IDX_HEADER or header[:4].view(">i4")[0] != _IDX_MAGIC:
        raise ValueError(
            f"`{FIELD}`: {path} is not an idx file of images: it begins with "
            f"{data[:4].hex(' ') or 'nothing'}, expected {_IDX_MAGIC:08x}"
        )
    count, height, width = (int(size) for size in header.view(">i4")[1:])
    if (height, width) != (SIZE, SIZE):
        raise ValueError(
            f"`{FIELD}`: {path} holds images of {height} x {width} pixels; expected "
            f"{SIZE} x {SIZE}, as in MNIST"
        )
    expected = _IDX_HEADER + count * height * width
    if len(data) != expected or not count:
        raise ValueError(
            f"`{FIELD}`: {path} has {len(data)} bytes where {count} images need "
            f"{expected}: it is truncated or damaged; download it again"
        )
    return np.frombuffer(data, np.uint8, offset=_IDX_HEADER).reshape(
        count, height, width
    )


def _find(folder: Path, name: str) -> Path:
    """The idx file of a name, gzipped or not, written with "-idx" or ".idx"."""
    for written in (name, name.replace("-idx", ".idx")):
        for ending in (".gz", ""):
            path = folder / f"{written}{ending}"
            if path.is_file():
                return path
    raise FileNotFoundError(
        f"{FIELD}={folder} contains neither {name} nor {name}.gz; expected the files "
        f"of MNIST ({', '.join(_IDX_FILES)})"
    )


def _from_tfds() -> list[np.ndarray]:
    """Training and test images in the order of the idx files."""
    parts = []
    for split in ("train", "test"):
        source = tfds_source.open_named("mnist", split)
        images = [source[int(i)]["image"][..., 0] for i in source.positions()]
        parts.append(np.stack(images))
    return parts


def _together(training: np.ndarray, test: np.ndarray, name: str) -> Digits:
    seen = {image.tobytes() for image in training}
    known = np.mean([image.tobytes() in seen for image in test])
    if known > MOST_KNOWN:
        raise ValueError(
            f"`{FIELD}`: {known:.0%} of the test digits of {name} are also training "
            "digits, so scores on them would mean nothing. Are the two files copies of "
            "each other?"
        )
    return Digits(
        np.concatenate([training, test]),
        len(training),
        f"{len(training):,} + {len(test):,} digits of {name}",
    )


def _embedded() -> Digits:
    """scikit-learn's digits, made to look like MNIST."""
    small = cast(Any, sklearn_datasets.load_digits()).images / _SKLEARN_LEVELS
    images = np.stack([_centred(image) for image in _enlarged(small)])
    return Digits(
        images,
        _SKLEARN_TRAINING,
        f"scikit-learn's embedded {len(small):,} digits, scaled up from 8 x 8 pixels",
    )


def _enlarged(small: np.ndarray) -> np.ndarray:
    """Enlarges `[n, 8, 8]` in 0..1 to uint8 `[n, 30, 30]` with cubic splines.

    The digit fills 20 x 20 pixels. The contrast is stretched so that the mean intensity
    and the share of lit pixels match those of MNIST (13 % and 19 %).
    """
    padded = np.pad(small, [(0, 0), (_MARGIN, _MARGIN), (_MARGIN, _MARGIN)])
    weights = np.asarray(
        ndimage.zoom(
            np.eye(padded.shape[1]),
            (_ZOOM, 1),
            order=3,
            mode="grid-constant",
            grid_mode=True,
        )
    )
    large = weights @ padded @ weights.T
    large = np.clip((large - _DARK) / (_BRIGHT - _DARK), 0, 1)
    return np.round(255 * large).astype(np.uint8)


def _centred(image: np.ndarray) -> np.ndarray:
    """The lit part of an image on 28 x 28 pixels, centred by its centre of mass."""
    rows, columns = (np.flatnonzero(image.any(axis=axis)) for axis in (1, 0))
    box = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    middle = np.array(ndimage.center_of_mass(box))
    corner = np.round((SIZE - 1) / 2 - middle).astype(int)
    top, left = np.clip(corner, 0, SIZE - np.array(box.shape))
    centred = np.zeros((SIZE, SIZE), np.uint8)
    centred[top : top + box.shape[0], left : left + box.shape[1]] = box
    return centred
