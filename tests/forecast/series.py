"""What forecasts of a small daily or monthly series begin from."""

import numpy as np

from earthformer_jax.data.forecasting.beginnings import Beginnings, Variable
from earthformer_jax.data.readers import decoding, times
from earthformer_jax.forecast.chunks import Chunk

DAY = 86400.0
HEIGHT, WIDTH = 3, 4


def beginnings(count, calendar="standard", dated=True, months=False, **changes):
    """Of `count` forecasts; cells below -0.9 in model units were never observed."""
    last = np.arange(5, 5 + count)

    def date(frames):
        if months:
            return times.of_months(360 + frames)
        return decoding.of_seconds(DAY * frames, calendar)

    given = {
        "label": "days.nc",
        "windows": [{}] * count,
        "last": last,
        "reference": date(last) if dated else None,
        "following": (lambda i, k: date(last[i] + np.arange(1, k + 1)))
        if dated
        else None,
        "variables": (Variable("t", "K"),),
        "decode": lambda x, minutes: np.where(x < -0.9, np.nan, 10 * x + 280),
        "latitude": np.linspace(-10, 10, HEIGHT),
        "longitude": np.linspace(0, 90, WIDTH),
    }
    return Beginnings(**given | changes)


def values(count, steps, members=1, channels=1):
    """Forecasts `[n, m, k, h, w, c]` in model units, without the first cell."""
    shape = (count, members, steps, HEIGHT, WIDTH, channels)
    made = np.random.default_rng(0).uniform(-0.5, 1, shape).astype(np.float32)
    made[..., 0, 0, :] = -1
    return made


def chunks(forecasts, count=2, steps=2, members=False):
    """Chunks of some windows and steps, the last ones first."""
    made = []
    for first in range(0, forecasts.shape[0], count):
        for step in range(0, forecasts.shape[2], steps):
            part = forecasts[first : first + count, :, step : step + steps]
            filled = 0.25 * np.arange(first, first + len(part), dtype=np.float32)
            made.append(Chunk(first, step, part if members else part[:, 0], filled))
    return made[::-1]
