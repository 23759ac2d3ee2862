"""N-body MNIST: three digits that attract each other, a chaotic video.

The sequences come from one of

- no path: any number of sequences, generated from digits (`nbody_generator`);
- a folder with the authors' nbody_train.npz, nbody_val.npz and nbody_test.npz, which
  contain the random draws rather than pixels, and MNIST's digits from `digits`;
- a folder prepared by TFDS (`datasets/nbody_mnist`).

Reference:
    Gao et al. 2022, Earthformer, https://arxiv.org/abs/2207.05833, section 4.1.
"""

import dataclasses
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from earthformer_jax.data import leaks, tfds_source
from earthformer_jax.data.dataset import Dataset
from earthformer_jax.data.forecasting.beginnings import Beginnings, Starts
from earthformer_jax.data.mnist import beginnings as begin
from earthformer_jax.data.mnist import video
from earthformer_jax.data.mnist.digits import Digits, load_digits
from earthformer_jax.data.mnist.frames import check_space_step
from earthformer_jax.data.mnist.nbody_rules import POWERS, Draw, Rules
from earthformer_jax.data.mnist.nbody_sequences import (
    RandomDraws,
    SavedDraws,
    Sequences,
)
from earthformer_jax.data.mnist.prepared import PreparedSequences
from earthformer_jax.data.protocols.following import ByProtocol
from earthformer_jax.data.readers import paths
from earthformer_jax.data.source import Source
from earthformer_jax.data.splits import SPLITS
from earthformer_jax.data.state import DataState
from earthformer_jax.settings import (
    FINITE,
    POSITIVE,
    ConfigError,
    at_least,
    choice,
    setting,
    settings_from,
)

FILES = {
    "train": "nbody_train.npz",
    "validation": "nbody_val.npz",
    "test": "nbody_test.npz",
}
TFDS_FEATURE = "frames"
PAPER_DIGITS = 40_000  # all splits use this many of the first training images of MNIST
SMALLEST_CANVAS, SMALLEST_SIZE = 48, 16  # pixels

_DIGITS, _PLACE = "digit_indices", "affine_transforms_multipliers"
_ANGLE, _SPEED = "init_velocity_angle", "init_velocity_magnitude"
# Further options of the authors' generator, and the values that disable them.
_NEUTRAL = {
    "appearance_mult": 1,
    "scale_variation": 1,
    "base_rotation_angle": 0,
    "random_acceleration_magnitude": 0,
}
_DISTRACTORS = "distractor_seeds"  # [sequences, steps, distractors, 5]


@dataclasses.dataclass(frozen=True)
class Settings(ByProtocol):
    """Settings of N-body MNIST.

    Attributes:
        name: "nbody_mnist".
        path: a folder with the authors' .npz files, or one prepared by TFDS; empty
            (default): sequences are generated.
        digits: a folder with the files of MNIST, or "tfds"; empty (default): the
            embedded digits, which cannot be used with the authors' files.
        train: number of generated training sequences.
        validation: number of generated validation sequences.
        test: number of generated test sequences.
        in_len: number of input frames.
        out_len: number of target frames.
        num_digits: number of digits in a sequence.
        size: side of a frame in pixels.
        space_step: n × n pixels are averaged into one.
        canvas: side, in pixels, of the canvas that the digits move on.
        every: steps from frame to frame.
        mode: "r0", "r1" or "r2": how the attraction decreases with distance.
        G: strength of the attraction.
        softening: length, in pixels of the canvas, that keeps the force finite.
        max_speed: largest speed in pixels of the canvas per step.
    """

    name: str = "nbody_mnist"
    path: str = ""
    digits: str = ""
    train: int = setting(20_000, at_least(1))
    validation: int = setting(1000, at_least(1))
    test: int = setting(1000, at_least(1))
    in_len: int = setting(10, at_least(1))
    out_len: int = setting(10, at_least(1))
    num_digits: int = setting(3, at_least(1))
    size: int = setting(64, at_least(SMALLEST_SIZE))
    space_step: int = setting(1, at_least(1))
    canvas: int = setting(128, at_least(SMALLEST_CANVAS))
    every: int = setting(5, at_least(1))
    mode: str = setting("r0", choice(*POWERS))
    G: float = setting(0.05, FINITE)
    softening: float = setting(10.0, POSITIVE)
    max_speed: float = setting(2.0, POSITIVE)

    @property
    def rules(self) -> Rules:
        """How sequences are made."""
        return Rules(
            num_digits=self.num_digits,
            frames=self.in_len + self.out_len,
            size=self.size,
            canvas=self.canvas,
            every=self.every,
            mode=self.mode,
            G=float(self.G),
            softening=float(self.softening),
            max_speed=float(self.max_speed),
        )

    def check(self) -> None:
        """Rejects values that are valid individually but not in combination.

        Raises:
            ConfigError: if there are any; the message names them.
        """
        super().check()
        if self.size > self.canvas:
            raise ConfigError(
                f"size={self.size} is larger than canvas={self.canvas}, which frames "
                "are shrunk from"
            )
        if not self.path:
            check_space_step(self, (self.size, self.size))


def load(config: Mapping[str, Any]) -> Dataset:
    """Loads the data set that settings describe.

    Args:
        config: any of the fields of `Settings`.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: if a setting is invalid or a file cannot be used.
    """
    settings = settings_from(Settings, config, "the N-body MNIST data")
    if not settings.path:
        return _generated(settings)
    path = paths.existing(settings.path, "path")
    if tfds_source.is_prepared(path):
        return _prepared(settings, path)
    return _from_draws(settings, path if path.is_dir() else path.parent)


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


def read_draws(path: Path) -> SavedDraws:
    """The draws in one of the authors' files.

    Raises:
        FileNotFoundError: if it does not exist.
        ValueError: if it is damaged, or has digits that are rotated, scaled, dimmed or
            randomly accelerated, or distractors.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"path={path.parent} contains no {path.name}; expected "
            f"{', '.join(FILES.values())}, or data prepared by TFDS "
            f"({tfds_source.INFO_FILE})"
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"`path`: {path} is not a complete .npz file ({error}); download it again"
        ) from error
    missing = [n for n in (_DIGITS, _PLACE, _ANGLE, _SPEED) if n not in found]
    if missing:
        raise ValueError(
            f"`path`: {path} has no {', '.join(missing)}; it contains "
            f"{', '.join(found) or 'nothing'}"
        )
    shape = found[_DIGITS].shape
    expected = {_DIGITS: shape[:2], _PLACE: (*shape, 2), _ANGLE: shape, _SPEED: shape}
    for name, size in expected.items():
        if found[name].shape != size or not found[name].size:
            raise ValueError(
                f"`path`: {path} has {name} of shape {found[name].shape} "
                f"but {_DIGITS} of shape {shape}; expected [sequences, digits]"
                f"{' with 2 numbers each' * (name == _PLACE)}"
            )
    for name, neutral in _NEUTRAL.items():
        if name in found and np.any(found[name] != neutral):
            raise ValueError(
                f"`path`: {path} has {name} other than {neutral}; only sequences like "
                "those of the paper can be rendered, without changes of brightness or "
                "scale, rotation, or random acceleration"
            )
    if found.get(_DISTRACTORS, np.empty(0)).size:
        raise ValueError(
            f"`path`: {path} has distractors ({_DISTRACTORS} of shape "
            f"{found[_DISTRACTORS].shape}); only sequences like those of the paper can "
            "be rendered, which have none"
        )
    return SavedDraws(
        Draw(
            found[_DIGITS].astype(np.int32),
            *(found[name].astype(np.float32) for name in (_PLACE, _ANGLE, _SPEED)),
        )
    )


def draw_keys(draws: SavedDraws) -> np.ndarray:
    """int64 `[n, 1]`, equal for equal draws."""
    rows = zip(*draws.arrays, strict=True)
    keys = [leaks.key(b"".join(x.tobytes() for x in row)) for row in rows]
    return np.array(keys, np.int64)[:, None]


def _whole(settings: Settings) -> tuple[Source, str]:
    """Whole test sequences as inputs, and a label of their files."""
    rules = settings.rules
    if not settings.path:
        images = load_digits(settings.digits).train[:PAPER_DIGITS]
        draws = RandomDraws(settings.seed, "test", settings.test, len(images), rules)
        label = f"N-body MNIST generated (seed {settings.seed})"
    else:
        path = paths.existing(settings.path, "path")
        label = f"N-body MNIST of {path} (test)"
        if tfds_source.is_prepared(path):
            source = tfds_source.open_split(path, "test")
            inputs_only = dataclasses.replace(settings, protocol="", out_len=0)
            prepared = PreparedSequences(
                source, TFDS_FEATURE, range(len(source)), inputs_only
            )
            return prepared.whole(), label
        file = (path if path.is_dir() else path.parent) / FILES["test"]
        digits = _mnist(settings)
        draws, images = read_draws(file), digits.train
        _check_draws(draws, digits, file, settings)
    frames = settings.in_len + settings.out_len
    return Sequences(draws, images, rules, frames, settings.space_step), label


def _generated(settings: Settings) -> Dataset:
    digits = load_digits(settings.digits)
    images, rules = digits.train[:PAPER_DIGITS], settings.rules
    sources = {}
    for split in SPLITS:
        count = getattr(settings, split)
        draws = RandomDraws(settings.seed, split, count, len(images), rules)
        sources[split] = Sequences(
            draws, images, rules, settings.in_len, settings.space_step
        )
    origin = (
        f"N-body MNIST generated (seed {settings.seed}), {_text(rules)}, of the first "
        f"{len(images):,} of {digits.description}"
    )
    return video.dataset(settings, sources, origin)


def _mnist(settings: Settings) -> Digits:
    """The digits that the authors' files refer to."""
    if not settings.digits:
        raise ValueError(
            f"path={settings.path} refers to digits of MNIST by their number, "
            "but `digits` is not set; set it to the folder with MNIST's files"
        )
    return load_digits(settings.digits)


def _check_draws(draws: SavedDraws, digits: Digits, path: Path, settings: Settings):
    """Rejects draws that do not fit the settings."""
    numbers = draws.arrays.digits
    if numbers.shape[1] != settings.num_digits:
        raise ValueError(
            f"num_digits={settings.num_digits}, but the sequences of {path} have "
            f"{numbers.shape[1]} digits"
        )
    if numbers.min() < 0 or numbers.max() >= len(digits.train):
        raise ValueError(
            f"{path} refers to digit {numbers.max()}, but digits={settings.digits} has "
            f"{len(digits.train)} training digits"
        )


def _from_draws(settings: Settings, folder: Path) -> Dataset:
    digits = _mnist(settings)
    draws = {split: read_draws(folder / name) for split, name in FILES.items()}
    for split, saved in draws.items():
        _check_draws(saved, digits, folder / FILES[split], settings)
    used = video.without_repeats({k: draw_keys(x) for k, x in draws.items()}, folder)
    sources = {
        split: Sequences(
            draws[split].take(which),
            digits.train,
            settings.rules,
            settings.in_len,
            settings.space_step,
        )
        for split, which in used.which.items()
    }
    origin = (
        f"N-body MNIST of {folder}, {_text(settings.rules)}, with "
        f"{digits.description}{used.text}"
    )
    return video.dataset(settings, sources, origin, used.spans)


def _prepared(settings: Settings, folder: Path) -> Dataset:
    every, keys = {}, {}
    for split in SPLITS:
        source = tfds_source.open_split(folder, split)
        every[split] = PreparedSequences(
            source, TFDS_FEATURE, range(len(source)), settings
        )
        keys[split] = source.keys()[:, None]
    used = video.without_repeats(keys, folder)
    sources = {split: every[split].take(which) for split, which in used.which.items()}
    origin = f"N-body MNIST prepared by TFDS in {folder}{used.text}"
    return video.dataset(settings, sources, origin, used.spans)


def _text(rules: Rules) -> str:
    """ "3 digits, r0" """
    return f"{rules.num_digits} digits attracting as {rules.mode} with G {rules.G:g}"
