"""Shows samples of a data set: numbers, a contact sheet and an animation."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb

from earthformer_jax import plotting
from earthformer_jax.data.dataset import Data
from earthformer_jax.data.source import Example
from earthformer_jax.plotting.frames import INPUT_COLOUR, TARGET_COLOUR

SPLITS = ("train", "validation", "test")
FPS = 5.0
WIDTH = 1200  # approximate width of an animation, in pixels
MOST_PIXELS, LEAST_PIXELS = 256, 96  # width of one sample in it
BORDER, GAP = 3, 4  # pixels
KNOWN = ("inputs", "targets", "observed", "time")


@dataclasses.dataclass(frozen=True)
class Samples:
    """Examples of one split.

    Attributes:
        data: the data set they are from.
        split: "train", "validation" or "test".
        indices: their indices in the split.
        examples: the examples, as in training.
        augmented: whether they were augmented as in training.
    """

    data: Data
    split: str
    indices: tuple[int, ...]
    examples: tuple[Example, ...]
    augmented: bool

    @property
    def name(self) -> str:
        """The name of the files: "sevir-test"."""
        name = f"{self.data.name}-{self.split}"
        return f"{name}-augmented" if self.augmented else name


def choose(
    data: Data,
    split: str = "test",
    count: int = 6,
    *,
    augmented: bool = False,
    seed: int = 0,
) -> Samples:
    """Takes evenly spaced examples from a split, including the first and the last.

    Args:
        data: the splits.
        split: "train", "validation" or "test".
        count: number of examples; all of them if the split has fewer.
        augmented: augment them as in training.
        seed: of the augmentation.

    Raises:
        ValueError: if the split is empty, `count` is too small, or `augmented` is set
            for a split or data set without augmentation.
    """
    source = getattr(data, split)
    if count < 1:
        raise ValueError(f"--count={count}: expected 1 or more")
    if len(source) == 0:
        raise ValueError(f"the {split} split of {data.name!r} is empty")
    if augmented and split != "train":
        raise ValueError(
            f"--augmented with --split={split}: only training examples are augmented; "
            "use --split=train"
        )
    augment = data.augment if augmented else None
    if augmented and augment is None:
        raise ValueError(
            f"--augmented: the examples of {data.name!r} are not augmented in "
            "training; switch on an augmentation in config.data, or omit the flag"
        )
    apart = np.linspace(0, len(source) - 1, min(count, len(source)))
    indices = tuple(int(i) for i in np.round(apart))
    examples = [source[i] for i in indices]
    if augment is not None:
        examples = [
            augment(example, np.random.default_rng([seed, i]))
            for i, example in zip(indices, examples, strict=True)
        ]
    return Samples(data, split, indices, tuple(examples), augmented)


def describe(samples: Samples) -> str:
    """Describes the data set and the samples in several lines of text."""
    data, examples = samples.data, samples.examples
    sizes = ", ".join(f"{s} {len(getattr(data, s)):,}" for s in SPLITS)
    which = " ".join(map(str, samples.indices))
    changed = ", augmented" if samples.augmented else ""
    lines = [
        f"data      {data.name}: {data.description}",
        f"examples  {sizes}",
        f"shown     {samples.split} {which}{changed}",
    ]
    for key in ("inputs", "targets"):
        value = examples[0][key]
        size = " x ".join(map(str, value.shape))
        lines.append(f"{key:9} {size} (time x height x width x channel) {value.dtype}")
    for number, channel in enumerate(data.display.channels):
        for key in ("inputs", "targets"):
            lines.append(f"{key:9} {_range(examples, key, number, channel)}")
    lines.append(f"unknown   {_unknown(samples)}")
    times = [example["time"] for example in examples if "time" in example]
    if times:
        first, last = (
            [str(t[i].astype("datetime64[m]")).replace("T", " ") for t in times]
            for i in (0, -1)
        )
        spans = zip(samples.indices, first, last, strict=True)
        lines += [f"time      {i}: {a} to {b} UTC" for i, a, b in spans]
    more = [
        f"{key} {list(np.shape(value))}"
        for key, value in examples[0].items()
        if key not in KNOWN
    ]
    if more:
        lines.append(f"also      {', '.join(more)}")
    return "\n".join(lines)


def write(samples: Samples, folder: Path) -> list[Path]:
    """Writes `<name>-<split>.png` and `.gif`; returns their paths."""
    sheet, film = (Path(folder) / f"{samples.name}.{end}" for end in ("png", "gif"))
    plotting.save(contact_sheet(samples), sheet)
    plotting.save_animation(animation(samples), film, FPS)
    return [sheet, film]


def contact_sheet(samples: Samples):
    """The samples as a matplotlib figure, one per row; grey where never scored."""
    data = samples.data
    counted = _counted(data)
    masked = [
        {
            **example,
            "inputs": _masked(example["inputs"], counted),
            "targets": _masked(example["targets"], counted),
        }
        for example in samples.examples
    ]
    what = re.sub(r" ?\([^()]*\)", "", data.description).partition(";")[0]
    title = f"{samples.name}: {what}"
    return plotting.contact_sheet(masked, data.display, title)


def animation(samples: Samples) -> np.ndarray:
    """The samples side by side, inputs then targets, with a row for each channel.

    A grey border marks input frames, a red one target frames.

    Returns:
        uint8 RGB `[t + k, H, W, 3]`.
    """
    display, examples = samples.data.display, samples.examples
    steps, count = len(examples[0]["inputs"]), len(examples)
    across = WIDTH // count - 2 * BORDER - GAP
    rows = []
    for number, channel in enumerate(display.channels):
        films = np.concatenate([_film(samples, x, number) for x in examples])
        thin = -(-max(films.shape[1:]) // MOST_PIXELS)
        pictures = plotting.render_frames(  # all at once, to share one colour scale
            films[:, ::thin, ::thin],
            channel,
            display.south_first,
            size=min(max(across, LEAST_PIXELS), MOST_PIXELS),
        )
        framed = [_framed(part, steps) for part in np.split(pictures, count)]
        rows.append(np.concatenate(framed, axis=2))
    return np.concatenate(rows, axis=1)


def _film(samples: Samples, example: Example, channel: int) -> np.ndarray:
    """`[t + k, h, w]` of one channel in model units; NaN where unknown."""
    counted = _counted(samples.data)
    inputs = _masked(example["inputs"], counted)[..., channel]
    targets = _masked(example["targets"], counted)[..., channel]
    if "observed" in example:
        targets = np.where(example["observed"][..., channel], targets, np.nan)
    return np.concatenate([inputs, targets])


def _counted(data: Data) -> np.ndarray:
    """Bool `[h, w, c]` or broadcastable: where the loss has weight, e.g. the ocean."""
    return np.any(np.asarray(data.loss_weights) != 0, axis=0)


def _masked(fields: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Fields with NaN where a channel of the targets never counts."""
    fields = np.array(fields, np.float32)
    channels = fields[..., : counted.shape[-1]] if counted.shape[-1] > 1 else fields
    channels[:, ~np.broadcast_to(counted, channels.shape[1:])] = np.nan
    return fields


def _framed(pictures: np.ndarray, steps: int) -> np.ndarray:
    """Pictures `[t, h, w, 3]` with a border and a white gap to the next."""
    t, h, w, _ = pictures.shape
    edge = np.empty((t, h + 2 * BORDER, w + 2 * BORDER, 3), np.uint8)
    edge[:steps], edge[steps:] = _rgb(INPUT_COLOUR), _rgb(TARGET_COLOUR)
    edge[:, BORDER:-BORDER, BORDER:-BORDER] = pictures
    return np.pad(edge, ((0, 0), (0, GAP), (0, GAP), (0, 0)), constant_values=255)


def _rgb(colour: str) -> np.ndarray:
    return np.round(255 * np.array(to_rgb(colour))).astype(np.uint8)


def _range(examples: Sequence[Example], key: str, number: int, channel) -> str:
    """ "vil: 0 .. 0.93, mean 0.12, that is 0 .. 237 code", of the observed values."""
    values = [np.asarray(example[key])[..., number].ravel() for example in examples]
    if key == "targets":
        values = [
            value[example["observed"][..., number].ravel()]
            if "observed" in example
            else value
            for value, example in zip(values, examples, strict=True)
        ]
    values = np.concatenate(values)
    if not values.size:
        return f"{channel.name}: nothing observed"
    low, high = float(values.min()), float(values.max())
    text = f"{channel.name}: {low:.4g} .. {high:.4g}, mean {values.mean():.4g}"
    if (channel.scale, channel.offset) != (1.0, 0.0):
        ends = channel.shown([low, high])
        ends[np.abs(ends) < 1e-6 * np.ptp(ends)] = 0  # remove rounding errors
        ends = f"{ends[0]:.4g} .. {ends[1]:.4g}"
        text += f", that is {ends} {channel.units}".rstrip()
    return text


def _unknown(samples: Samples) -> str:
    """The shares of targets that are not observed and of cells that never count."""
    observed = [x["observed"].ravel() for x in samples.examples if "observed" in x]
    missing = 1 - np.concatenate(observed).mean() if observed else 0.0
    text = f"{100 * missing:.3g} % of the target values of these samples"
    left_out = 1 - _counted(samples.data).mean()
    return (
        f"{text}; {100 * left_out:.3g} % of the cells never count" if left_out else text
    )
