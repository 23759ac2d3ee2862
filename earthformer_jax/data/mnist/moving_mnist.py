"""MovingMNIST: two digits that move at constant speed and bounce off the walls.

The sequences come from one of

- no path: any number of sequences, generated from digits (`moving_generator`);
- mnist_test_seq.npy, uint8 (20, 10000, 64, 64), or a folder that contains it;
- "tfds": the same data as the data set "moving_mnist" of TensorFlow Datasets, or the
  folder where that is prepared.

Files are split as in the paper: the last tenth of the sequences is for testing, and a
fixed random tenth of the others for validation. 10,000 sequences give 8,100 for
training, 900 for validation and 1,000 for testing.

Reference:
    Srivastava et al. 2015, https://arxiv.org/abs/1502.04681; the split is that of
    Gao et al. 2022, Earthformer, https://arxiv.org/abs/2207.05833.
"""

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from earthformer_jax.data import tfds_source
from earthformer_jax.data.dataset import Dataset
from earthformer_jax.data.forecasting.beginnings import Beginnings, Starts
from earthformer_jax.data.mnist import beginnings as begin
from earthformer_jax.data.mnist import video
from earthformer_jax.data.mnist.digits import TFDS, load_digits
from earthformer_jax.data.mnist.frames import check_lengths, check_space_step
from earthformer_jax.data.mnist.moving_sequences import (
    FileSequences,
    GeneratedSequences,
)
from earthformer_jax.data.mnist.prepared import PreparedSequences
from earthformer_jax.data.protocols.following import ByProtocol
from earthformer_jax.data.readers import paths
from earthformer_jax.data.readers.arrays import NpyArray
from earthformer_jax.data.source import Source
from earthformer_jax.data.splits import SPLITS
from earthformer_jax.data.state import DataState
from earthformer_jax.settings import at_least, setting, settings_from

FILE = "mnist_test_seq.npy"
NPY, GZIP = b"\x93NUMPY", b"\x1f\x8b"  # signatures of files
TFDS_NAME, TFDS_SPLIT, TFDS_FEATURE = "moving_mnist", "test", "image_sequence"
SEQUENCES, FRAMES = 10_000, 20  # of the official file
SMALLEST = 32  # pixels, so that digits of 28 have room to move
SPLIT_SEED = 123  # of the paper's split
LEAST_SEQUENCES = 3


@dataclasses.dataclass(frozen=True)
class Settings(ByProtocol):
    """Settings of MovingMNIST.

    Attributes:
        name: "moving_mnist".
        path: mnist_test_seq.npy, a folder with it or with data prepared by TFDS, or
            "tfds"; empty (default): sequences are generated.
        digits: source of the digits of generated sequences: a folder with the files of
            MNIST, or "tfds"; empty (default): the embedded digits.
        num_digits: number of digits in a generated sequence.
        size: side of a generated frame in pixels.
        space_step: n × n pixels are averaged into one.
        in_len: number of input frames.
        out_len: number of target frames.
        train: number of generated training sequences, from training digits.
        validation: number of generated validation sequences, from test digits.
        test: number of generated test sequences, from test digits.
    """

    name: str = "moving_mnist"
    path: str = ""
    digits: str = ""
    num_digits: int = setting(2, at_least(1))
    size: int = setting(64, at_least(SMALLEST))
    space_step: int = setting(1, at_least(1))
    in_len: int = setting(10, at_least(1))
    out_len: int = setting(10, at_least(1))
    train: int = setting(8100, at_least(1))
    validation: int = setting(900, at_least(1))
    test: int = setting(1000, at_least(1))


def load(config: Mapping[str, Any]) -> Dataset:
    """Loads the data set that settings describe.

    Args:
        config: any of the fields of `Settings`.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: if a setting is invalid or a file cannot be used.
    """
    settings = settings_from(Settings, config, "the MovingMNIST data")
    if not settings.path:
        return _generated(settings)
    if settings.path == TFDS:
        return _prepared(settings, tfds_source.open_named(TFDS_NAME, TFDS_SPLIT))
    path = paths.existing(settings.path, "path")
    if tfds_source.is_prepared(path):
        return _prepared(settings, tfds_source.open_split(path, TFDS_SPLIT))
    return _from_file(settings, path)


def beginnings(
    settings: Settings,
    state: DataState,
    starts: Starts,
    *,
    allow_other_grid: bool = False,
) -> Beginnings:
    """What forecasts begin from (`data.mnist.beginnings.find`)."""
    whole = _whole(settings)
    size = dict(allow_other_grid=allow_other_grid)
    return begin.find(*whole, settings.in_len, state, starts, **size)


encoding = begin.encoding


def split_numbers(count: int) -> dict[str, np.ndarray]:
    """Numbers of the sequences in each split, for a file of `count`.

    The last tenth is for testing. Of a permutation of the other m, the first
    ceil(m / 10) are for validation and the rest for training. With 10,000 sequences
    this is scikit-learn's
    `train_test_split(range(9000), test_size=0.1, random_state=123)`.

    Raises:
        ValueError: if there are not enough for three splits.
    """
    if count < LEAST_SEQUENCES:
        raise ValueError(
            f"{count} sequences cannot be divided into training, validation and test; "
            f"at least {LEAST_SEQUENCES} are needed"
        )
    first_test = count - max(count // 10, 1)
    order = np.random.RandomState(SPLIT_SEED).permutation(first_test)
    validation = -(-first_test // 10)
    return {
        "train": order[validation:],
        "validation": order[:validation],
        "test": np.arange(first_test, count),
    }


def _whole(settings: Settings) -> tuple[Source, str]:
    """Whole sequences as inputs, and a label of their files."""
    inputs_only = dataclasses.replace(settings, protocol="", out_len=0)
    if not settings.path:
        frames = settings.in_len + settings.out_len
        whole = dataclasses.replace(inputs_only, in_len=frames)
        images = load_digits(settings.digits).test
        made = GeneratedSequences(images, settings.test, whole, "test")
        return made, f"MovingMNIST generated (seed {settings.seed})"
    label = f"MovingMNIST of {settings.path}"
    if settings.path != TFDS:
        path = paths.existing(settings.path, "path")
        if not tfds_source.is_prepared(path):
            path = _npy(path)
            frames, count, *size = _check_file(path, inputs_only)
            check_space_step(settings, size)
            whole = dataclasses.replace(inputs_only, in_len=frames)
            return FileSequences(path, np.arange(count), whole), label
        source = tfds_source.open_split(path, TFDS_SPLIT)
    else:
        source = tfds_source.open_named(TFDS_NAME, TFDS_SPLIT)
    positions = source.positions().tolist()
    prepared = PreparedSequences(source, TFDS_FEATURE, positions, inputs_only)
    return prepared.whole(), label


def _generated(settings: Settings) -> Dataset:
    check_space_step(settings, (settings.size, settings.size))
    digits = load_digits(settings.digits)
    images = {"train": digits.train, "validation": digits.test, "test": digits.test}
    sources = {
        split: GeneratedSequences(
            images[split], getattr(settings, split), settings, split
        )
        for split in SPLITS
    }
    origin = (
        f"MovingMNIST generated (seed {settings.seed}), {settings.num_digits} digits "
        f"of {digits.description}"
    )
    return video.dataset(settings, sources, origin)


def _npy(path: Path) -> Path:
    """The .npy file of a path, which may be its folder."""
    if not path.is_dir():
        return path
    if not (path / FILE).is_file():
        raise FileNotFoundError(
            f"path={path} contains neither {FILE} nor data prepared by "
            f"TFDS ({tfds_source.INFO_FILE})"
        )
    return path / FILE


def _from_file(settings: Settings, path: Path) -> Dataset:
    path = _npy(path)
    _, count, *size = _check_file(path, settings)
    check_space_step(settings, size)
    numbers = split_numbers(count)
    keys = _file_keys(path, settings.in_len + settings.out_len)
    used = video.without_repeats({k: keys[n] for k, n in numbers.items()}, path)
    sources = {
        split: FileSequences(path, numbers[split][which], settings)
        for split, which in used.which.items()
    }
    origin = f"MovingMNIST of {path}, {_split(count)}{used.text}"
    return video.dataset(settings, sources, origin, used.spans)


def _file_keys(path: Path, frames: int) -> np.ndarray:
    """int64 `[n, frames]` of the first frames of every sequence of a file."""
    with contextlib.closing(NpyArray(path)) as file:
        return np.stack([video.frame_keys(file[t]) for t in range(frames)], axis=1)


def _prepared(settings: Settings, source: tfds_source.TfdsSource) -> Dataset:
    positions = source.positions()
    numbers = {split: positions[n] for split, n in split_numbers(len(source)).items()}
    every = {
        split: PreparedSequences(source, TFDS_FEATURE, chosen.tolist(), settings)
        for split, chosen in numbers.items()
    }
    keys = source.keys()[:, None]
    used = video.without_repeats(
        {split: keys[chosen] for split, chosen in numbers.items()}, settings.path
    )
    sources = {split: every[split].take(which) for split, which in used.which.items()}
    origin = f"MovingMNIST prepared by TFDS, {_split(len(source))}{used.text}"
    return video.dataset(settings, sources, origin, used.spans)


def _split(count: int) -> str:
    if count == SEQUENCES:
        return "the paper's split"
    return f"{count:,} sequences split in the paper's proportions"


def _check_file(path: Path, settings: Settings) -> tuple[int, ...]:
    """The shape `(t, n, h, w)` of a file.

    Raises:
        ValueError: if it cannot be used.
    """
    with open(path, "rb") as opened:
        start = opened.read(len(NPY))
    if start.startswith(GZIP):
        raise ValueError(f"path={path} is compressed; unpack it first: gunzip {path}")
    if start != NPY:
        raise ValueError(
            f"path={path} is not a .npy file (it starts with {start!r}); "
            f"expected {FILE}"
        )
    try:
        file = NpyArray(path)
        file.close()
    except TypeError as error:
        raise ValueError(f"path={path} cannot be read: {error}") from None
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(
            f"path={path} cannot be read ({error}): it is truncated or "
            "damaged; download it again"
        ) from error
    shape = file.shape
    if len(shape) != 4:
        raise ValueError(
            f"path={path} contains an array of shape {shape}; expected (time, "
            "sequence, height, width)"
        )
    if file.dtype != np.uint8:
        raise ValueError(
            f"path={path} is {file.dtype}; expected uint8, 0 to 255. Convert values "
            "of 0..1 with (255 * x).round().astype('uint8') and write it again"
        )
    # A few sequences without targets may be fewer than their frames.
    could_be_time = settings.out_len or shape[1] >= settings.in_len
    if shape[0] != FRAMES and (
        shape[1] == FRAMES or (shape[0] > shape[1] and could_be_time)
    ):
        raise ValueError(
            f"path={path} has shape {shape}; expected (time, sequence, height, width). "
            "Write it again after numpy.swapaxes(x, 0, 1)"
        )
    check_lengths(settings, shape[0], str(path))
    return shape
