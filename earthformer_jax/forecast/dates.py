"""Calendar arithmetic in JAX: seasons, months and following times of int32 minutes.

Minutes count from 1970-01-01 00:00 UTC, in the Gregorian calendar, as everywhere in the
package (`data.readers.times`). Everything is in integers until the last division, so
that a season in float32 is exact to its last digit whatever the year.

Reference: Hinnant, "chrono-compatible low-level date algorithms",
https://howardhinnant.github.io/date_algorithms.html
"""

import jax
import jax.numpy as jnp

from earthformer_jax.data.readers.times import DAY, MONTH

ERA = 146097  # days of 400 years
EPOCH = 719468  # days from 0000-03-01 to 1970-01-01


def civil(days: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Year, month 1 to 12 and day of the month of days since 1970-01-01."""
    era, day = jnp.divmod(days + EPOCH, ERA)
    year = (day - day // 1460 + day // 36524 - day // (ERA - 1)) // 365
    day = day - (365 * year + year // 4 - year // 100)  # since the first of March
    month = (5 * day + 2) // 153  # since March
    day = day - (153 * month + 2) // 5 + 1
    month = jnp.where(month < 10, month + 3, month - 9)
    return 400 * era + year + (month <= 2), month, day


def days_of(year: jax.Array, month: jax.Array | int, day: jax.Array | int) -> jax.Array:
    """Days since 1970-01-01; the inverse of `civil`."""
    month = jnp.asarray(month, jnp.int32)
    era, year = jnp.divmod(year - (month <= 2), 400)
    since_march = jnp.where(month > 2, month - 3, month + 9)
    day_of_year = (153 * since_march + 2) // 5 + day - 1
    return ERA * era + 365 * year + year // 4 - year // 100 + day_of_year - EPOCH


def month_of(minutes: jax.Array) -> jax.Array:
    """Calendar month, January = 0."""
    return civil(minutes // DAY)[1] - 1


def waves_of_year(minutes: jax.Array, count: int) -> jax.Array:
    """1, cos, sin, cos 2, sin 2, ... of the season, float32 `[..., 1 + 2 count]`."""
    days = minutes // DAY
    year = civil(days)[0]
    begin = days_of(year, 1, 1)
    length = DAY * (days_of(year + 1, 1, 1) - begin)
    return _waves(minutes - DAY * begin, length, count)


def waves_of_day(minutes: jax.Array, count: int) -> jax.Array:
    """1, cos, sin, ... of the time of day (UTC), float32 `[..., 1 + 2 count]`."""
    return _waves(minutes % DAY, jnp.full_like(minutes, DAY), count)


def waves_of_month(minutes: jax.Array) -> jax.Array:
    """1, cos and sin of the calendar month, float32 `[..., 3]`."""
    return _waves(month_of(minutes), jnp.full_like(minutes, 12), 1)


def following(minutes: jax.Array, count: int) -> jax.Array:
    """The times `[b, k]` after times `[b, t]` of equal steps, or of consecutive months.

    Months keep the day of the month, or take the last day of a shorter one.

    Args:
        minutes: int32 `[b, t]`, t at least 2.
        count: k.
    """
    step = jnp.sort(jnp.diff(minutes, axis=1), axis=1)
    step = step[:, (step.shape[1] - 1) // 2][:, None]  # the median
    last, ahead = minutes[:, -1:], jnp.arange(1, count + 1, dtype=jnp.int32)
    monthly = (step >= MONTH[0]) & (step <= MONTH[1])
    return jnp.where(monthly, _months_later(last, ahead), last + step * ahead)


def _months_later(minutes: jax.Array, months: jax.Array) -> jax.Array:
    year, month, day = civil(minutes // DAY)
    years, month = jnp.divmod(month - 1 + months, 12)
    first = days_of(year + years, month + 1, 1)
    next_first = days_of(year + years + (month == 11), (month + 1) % 12 + 1, 1)
    days = first + jnp.minimum(day, next_first - first) - 1
    return DAY * days + minutes % DAY


def _waves(part: jax.Array, whole: jax.Array, count: int) -> jax.Array:
    """1, cos, sin, cos 2, ... of part / whole turns."""
    waves = [jnp.ones(part.shape, jnp.float32)]
    for k in range(1, count + 1):
        # Within half a turn of 0, where float32 angles are most exact.
        turns = (k * part) % whole
        turns = jnp.where(2 * turns > whole, turns - whole, turns)
        angle = 2 * jnp.pi * turns.astype(jnp.float32) / whole
        waves += [jnp.cos(angle), jnp.sin(angle)]
    return jnp.stack(waves, axis=-1)
