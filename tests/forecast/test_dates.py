"""Calendar arithmetic in JAX against that of NumPy and cftime."""

import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.data import windows
from earthformer_jax.data.climatology import cycles
from earthformer_jax.data.forecasting import choosing
from earthformer_jax.data.readers import decoding, times
from earthformer_jax.data.readers.frames import ArrayFrames
from earthformer_jax.data.readers.series import Cube
from earthformer_jax.forecast import dates

# Every 1,237th day of 1,600 years, and days at the edges of months, years, centuries.
DAYS = np.arange(-400_000, 200_000, 1237)
EDGES = np.array(
    [
        np.datetime64(day, "D").astype(int) + i
        for day in (
            "1600-03-01",
            "1900-03-01",
            "2000-03-01",
            "2024-03-01",
            "1970-01-01",
        )
        for i in (-2, -1, 0, 1)
    ]
)
MINUTES = 1440 * np.r_[DAYS, EDGES] + np.r_[DAYS, EDGES] % 1440


def test_dates_are_those_of_numpy():
    days = jnp.asarray(np.r_[DAYS, EDGES], jnp.int32)
    year, month, day = map(np.asarray, dates.civil(days))
    moments = np.asarray(days).astype("datetime64[D]")
    np.testing.assert_array_equal(
        year, moments.astype("datetime64[Y]").astype(int) + 1970
    )
    np.testing.assert_array_equal(
        month - 1, times.month_of(1440 * np.asarray(days, int)) % 12
    )
    first = moments.astype("datetime64[M]").astype("datetime64[D]")
    np.testing.assert_array_equal(day, (moments - first).astype(int) + 1)
    np.testing.assert_array_equal(dates.days_of(*dates.civil(days)), days)


def test_waves_are_those_of_the_statistics():
    minutes = jnp.asarray(MINUTES, jnp.int32)
    year = np.asarray(dates.waves_of_year(minutes, 3))
    day = np.asarray(dates.waves_of_day(minutes, 2))
    np.testing.assert_allclose(year, cycles(MINUTES, 3, 0), atol=3e-7)
    np.testing.assert_allclose(day, cycles(MINUTES, 0, 2), atol=3e-7)
    channels = windows.calendar_channels(MINUTES, time_of_day=True)
    mine = np.concatenate([year[:, 1:3], day[:, 1:3]], axis=1)
    np.testing.assert_allclose(mine, channels, atol=3e-7)


@pytest.mark.parametrize(
    ("first", "step"),
    [("2023-10-31", 0), ("1999-08-15", 0), ("1903-01-01", 1440), ("2024-02-28", 180)],
)
def test_what_follows_is_what_files_say(first, step):
    """Months (step 0), days and hours, as `choosing.following` continues a series."""
    start = int(np.datetime64(first, "m").astype(int))
    if step:
        minutes = start + step * np.arange(5)
    else:
        months = times.month_of(np.array(start)) + np.arange(5)
        offset = start - times.of_months(months[:1]).minutes[0]
        lengths = np.diff(times.of_months(np.append(months, months[-1] + 1)).minutes)
        minutes = times.of_months(months).minutes + np.minimum(offset, lengths - 1440)
    cube = Cube(
        label="a", format="", frames=ArrayFrames(np.zeros((5, 1, 1, 1))), names=("a",),
        units=("",), segments=np.array([[0, 5]]),
        cadence=times.cadence(decoding.of_seconds(60.0 * minutes, "standard")),
        times=decoding.of_seconds(60.0 * minutes, "standard"),
    )  # fmt: skip
    want = choosing.following(cube, 4, 7).minutes
    got = dates.following(jnp.asarray(minutes[None], jnp.int32), 7)
    np.testing.assert_array_equal(got, want[None])
