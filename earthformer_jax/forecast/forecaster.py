"""Forecasts, one after the other, from a trained model and what they begin from."""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing

from earthformer_jax.data.source import Source


def forecasts(
    model: Callable[[np.ndarray], np.typing.ArrayLike], windows: Source, batch_size: int
) -> Iterator[np.ndarray]:
    """The forecasts `[k, h, w, c]` of all windows, in model units.

    Args:
        model: from inputs `[b, t, h, w, c]` to forecasts `[b, k, h, w, c]`.
        windows: source of examples with `inputs`.
        batch_size: most windows at once; every batch has the same size, so that the
            model is compiled once.
    """
    size = min(batch_size, len(windows))
    for first in range(0, len(windows), size):
        count = min(size, len(windows) - first)
        inputs = [windows[first + i]["inputs"] for i in range(count)]
        inputs += inputs[-1:] * (size - count)  # repeated, and not used
        yield from np.asarray(model(np.stack(inputs)))[:count]
