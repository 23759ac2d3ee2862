"""What reference forecasts of the embedded twin are fitted to."""

import functools
from collections.abc import Callable

import numpy as np

from earthformer_jax.data.enso import twin
from earthformer_jax.data.enso.systems.fitting import Fitted, fitting
from earthformer_jax.data.enso.systems.past import past_of
from earthformer_jax.data.enso.systems.training import Training
from earthformer_jax.data.readers.grid import Grid, point_weights

SERIES_MONTHS = 12 * 400
GRID = Grid(twin.LATITUDE, twin.LONGITUDE, twin.OCEAN_MASK)


@functools.lru_cache(maxsize=1)
def series(seed: int) -> Callable[[], list[np.ndarray]]:
    """Makes one long series `[months, h, w]` in K, once."""
    return functools.cache(lambda: [twin.training_series(seed, SERIES_MONTHS)])


@functools.lru_cache(maxsize=1)
def training(seed: int, in_len: int) -> Training:
    """The months of that series.

    They remember as many months as those of a window, which are independent of others.
    """
    (fields,) = series(seed)()
    whole = [(0, len(fields))]
    past = past_of(fields, point_weights(GRID), whole, reach=in_len - 1)
    return Training([fields], [fields], [past], [0])


def references(seed: int, in_len: int, out_len: int) -> Callable[[], Fitted]:
    """Fits the reference forecasts, once, when they are asked for."""
    weights = point_weights(GRID)
    months = functools.partial(training, seed, in_len)
    return fitting(months, GRID, weights, out_len, reach=in_len - 1)
