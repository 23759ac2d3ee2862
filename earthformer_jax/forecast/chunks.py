"""Forecasts of a trained model, one batch and one stretch of time after the other."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing

from earthformer_jax.data.forecasting.beginnings import Beginnings

Model = Callable[[np.ndarray], np.typing.ArrayLike]


@dataclasses.dataclass(frozen=True)
class Members:
    """A model of which every forecast has several members.

    Attributes:
        count: number of members of a forecast.
        part: how many of them are made at once; the last part is cut.
        begin: `(inputs [b, t, h, w, c], m, first) -> [m, b, k, h, w, c]`, the forecasts
            of m members, from number `first` on.
        resume: `(inputs [m, b, t, h, w, c], beginning [b, t, h, w, c], stretch, first)
            -> [m, b, k, h, w, c]`, the forecasts of members with inputs of their own,
            which began with `beginning` and have forecast `stretch` times before.
    """

    count: int
    part: int
    begin: Callable[[np.ndarray, int, int], np.typing.ArrayLike]
    resume: Callable[[np.ndarray, np.ndarray, int, int], np.typing.ArrayLike]


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Some steps of the forecasts of some windows that follow each other.

    Attributes:
        first: number of the first of these windows.
        step: the first of these steps, from 0.
        values: `[n, k, h, w, c]` in model units, or `[n, m, k, h, w, c]` of m members.
        filled: `[n]`, the share of the input values of each window that were filled.
        member: the first of these members, from 0.
    """

    first: int
    step: int
    values: np.ndarray
    filled: np.ndarray
    member: int = 0


def chunks(
    model: Model | Members,
    beginnings: Beginnings,
    steps: int,
    batch_size: int,
    *,
    out_len: int,
) -> Iterator[Chunk]:
    """The forecasts of all windows.

    Memory depends on the size of a batch and of a part of the members alone: neither on
    the number of windows, nor on that of members or of steps.

    Args:
        model: from inputs `[b, t, h, w, c]` to forecasts `[b, out_len, h, w, c]`, or
            the members of such forecasts.
        beginnings: what they begin from.
        steps: number of frames of a forecast. Up to `out_len` are those of the model;
            for later ones its own frames are fed back (roll-out), those of each member
            to this member.
        batch_size: most windows at once; every batch has the same size, so that the
            model is compiled once.
        out_len: number of frames that the model forecasts at once.

    Returns:
        iterator over the windows in batches, over the members of each batch in parts,
        and over the steps of each part.

    Raises:
        ValueError: at once, if the forecasts cannot be fed back; while iterating, if a
            forecast is not finite.
    """
    if steps > out_len and beginnings.advance is None:
        raise ValueError(
            f"steps={steps}: the model forecasts {out_len} frames, and further ones "
            f"cannot follow from its own, because {beginnings.not_advanced}; use at "
            f"most {out_len}"
        )
    if isinstance(model, Members):
        return _chunks(model, beginnings, steps, batch_size, out_len)
    alone = Members(
        count=1,
        part=1,
        begin=lambda inputs, count, first: np.asarray(model(inputs))[None],
        resume=lambda inputs, *_: np.asarray(model(inputs[0]))[None],
    )
    made = _chunks(alone, beginnings, steps, batch_size, out_len)
    return (dataclasses.replace(chunk, values=chunk.values[:, 0]) for chunk in made)


def _chunks(
    members: Members, beginnings: Beginnings, steps: int, batch_size: int, out_len: int
) -> Iterator[Chunk]:
    windows, part = beginnings.windows, members.part
    size = min(batch_size, len(windows))
    for first in range(0, len(windows), size):
        numbers = range(first, min(first + size, len(windows)))
        examples = [windows[i] for i in numbers]
        # What fills the last batch is forecast, and not used.
        padding = [example["inputs"] for example in examples[-1:]]
        padding *= size - len(examples)
        beginning = np.stack([example["inputs"] for example in examples] + padding)
        filled = np.array([example["filled"] for example in examples], np.float32)
        for member in range(0, members.count, part):
            inputs = np.stack([beginning] * part)
            for stretch, step in enumerate(range(0, steps, out_len)):
                if stretch:
                    made = members.resume(inputs, beginning, stretch, member)
                else:
                    made = members.begin(beginning, part, member)
                values = np.asarray(made)
                used = values[: members.count - member, : len(examples)]
                used = np.swapaxes(used, 0, 1)
                _check_finite(used, first, step)
                yield Chunk(first, step, used[:, :, : steps - step], filled, member)
                if steps > step + out_len:
                    moved = [
                        _advanced(beginnings, numbers, step, inputs[i], values[i])
                        for i in range(part)
                    ]
                    inputs = np.stack(moved)


def _advanced(
    beginnings: Beginnings,
    numbers: range,
    step: int,
    inputs: np.ndarray,
    values: np.ndarray,
) -> np.ndarray:
    """Inputs of the forecasts after those from `step` on, `values`.

    What fills the batch, after the windows of `numbers`, stays as it is.
    """
    assert beginnings.advance is not None
    count = step + values.shape[1]
    moved = []
    for number, before, forecast in zip(numbers, inputs, values, strict=False):
        minutes = None
        if beginnings.following is not None:
            minutes = beginnings.following(number, count).minutes[step:]
        moved.append(beginnings.advance(before, forecast, minutes))
    return np.stack([*moved, *inputs[len(moved) :]])


def _check_finite(values: np.ndarray, first: int, step: int) -> None:
    """Rejects values `[n, m, k, h, w, c]` that a file would show as missing.

    Raises:
        ValueError: with the first step that is not finite.
    """
    finite = np.isfinite(values).all(axis=(1, 3, 4, 5))
    if not finite.all():
        window, frame = np.argwhere(~finite)[0]
        raise ValueError(
            f"the forecast of window {first + window} is not finite from step "
            f"{step + frame + 1} on; the model cannot be used for this input"
            + (", or not for as many `steps`" if step else "")
        )
