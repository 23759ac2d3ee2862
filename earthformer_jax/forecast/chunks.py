"""Forecasts of a trained model, one batch and one stretch of time after the other."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing

from earthformer_jax.data.forecasting.beginnings import Beginnings

Model = Callable[[np.ndarray], np.typing.ArrayLike]


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Some steps of the forecasts of some windows that follow each other.

    Attributes:
        first: number of the first of these windows.
        step: the first of these steps, from 0.
        values: `[n, k, h, w, c]` in model units, or `[n, m, k, h, w, c]` of m members.
        filled: `[n]`, the share of the input values of each window that were filled.
    """

    first: int
    step: int
    values: np.ndarray
    filled: np.ndarray


def chunks(
    model: Model, beginnings: Beginnings, steps: int, batch_size: int, *, out_len: int
) -> Iterator[Chunk]:
    """The forecasts of all windows.

    Memory depends on the size of a batch alone: neither on the number of windows nor on
    that of steps.

    Args:
        model: from inputs `[b, t, h, w, c]` to forecasts `[b, out_len, h, w, c]`.
        beginnings: what they begin from.
        steps: number of frames of a forecast. Up to `out_len` are those of the model;
            for later ones its own frames are fed back (roll-out).
        batch_size: most windows at once; every batch has the same size, so that the
            model is compiled once.
        out_len: number of frames that the model forecasts at once.

    Returns:
        iterator over the windows in batches, and over the steps of each batch.

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
    return _chunks(model, beginnings, steps, batch_size, out_len)


def _chunks(
    model: Model, beginnings: Beginnings, steps: int, batch_size: int, out_len: int
) -> Iterator[Chunk]:
    windows = beginnings.windows
    size = min(batch_size, len(windows))
    for first in range(0, len(windows), size):
        numbers = range(first, min(first + size, len(windows)))
        examples = [windows[i] for i in numbers]
        inputs = [example["inputs"] for example in examples]
        filled = np.array([example["filled"] for example in examples], np.float32)
        for step in range(0, steps, out_len):
            padding = inputs[-1:] * (size - len(inputs))  # forecast, and not used
            values = np.asarray(model(np.stack(inputs + padding)))[: len(inputs)]
            _check_finite(values, first, step)
            yield Chunk(first, step, values[:, : steps - step], filled)
            if steps > step + out_len:
                inputs = _advanced(beginnings, numbers, step, inputs, values)


def _advanced(
    beginnings: Beginnings,
    numbers: range,
    step: int,
    inputs: list[np.ndarray],
    values: np.ndarray,
) -> list[np.ndarray]:
    """Inputs of the forecasts after those from `step` on, `values`."""
    assert beginnings.advance is not None
    count = step + values.shape[1]
    moved = []
    for number, before, forecast in zip(numbers, inputs, values, strict=True):
        minutes = None
        if beginnings.following is not None:
            minutes = beginnings.following(number, count).minutes[step:]
        moved.append(beginnings.advance(before, forecast, minutes))
    return moved


def _check_finite(values: np.ndarray, first: int, step: int) -> None:
    """Rejects values that a file would show as missing.

    Raises:
        ValueError: with the first step that is not finite.
    """
    finite = np.isfinite(values).all(axis=(2, 3, 4))
    if not finite.all():
        window, frame = np.argwhere(~finite)[0]
        raise ValueError(
            f"the forecast of window {first + window} is not finite from step "
            f"{step + frame + 1} on; the model cannot be used for this input"
            + (", or not for as many `steps`" if step else "")
        )
