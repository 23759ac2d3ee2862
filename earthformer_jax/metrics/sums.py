"""Sums that stay accurate and counts that stay exact, as arrays inside jit.

float32 loses additions below 1e-7 of a sum and cannot count beyond 2**24; int32 cannot
beyond 2**31, fewer than a radar archive has pixels. Here a sum is two float32, and a
count two int32.

Sums and counts by lead time have room for `MAX_LEADS` frames: a metric learns how many
frames a forecast has only with the first batch, and its state must not change shape
then (the program that forecasts and adds would be compiled twice).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.metrics.contract import State

MAX_LEADS = 128
WORD = 24  # bits of the lower word of a count
MOST = 2**30  # the largest number that can be added to a count at once


def empty_sum(*shape: int) -> State:
    """An empty sum of arrays of a shape."""
    return {"sum": jnp.zeros(shape), "rest": jnp.zeros(shape)}


def add(total: State, x) -> State:
    """A sum and one more float32 array; the rounding error is kept in "rest".

    Reference:
        Knuth, The Art of Computer Programming 2, section 4.2.2, theorem B.
    """
    before = total["sum"]
    after = before + x
    added = after - before
    error = (before - (after - added)) + (x - added)
    return {"sum": after, "rest": total["rest"] + error}


def merge(a: State, b: State) -> State:
    """The sum of two sums."""
    both = add(a, b["sum"])
    return {"sum": both["sum"], "rest": both["rest"] + b["rest"]}


def value(total: State) -> np.ndarray:
    """The value of a sum, float64, on the host."""
    return np.asarray(total["sum"], np.float64) + np.asarray(total["rest"], np.float64)


def empty_count(*shape: int) -> State:
    """An empty count."""
    return {"low": jnp.zeros(shape, jnp.int32), "high": jnp.zeros(shape, jnp.int32)}


def add_count(total: State, x) -> State:
    """A count and an int32 array of at most `MOST` more; exact up to 2**54."""
    low = total["low"] + x
    return {"low": low & (2**WORD - 1), "high": total["high"] + (low >> WORD)}


def merge_counts(a: State, b: State) -> State:
    """The sum of two counts."""
    both = add_count(a, b["low"])
    return {"low": both["low"], "high": both["high"] + b["high"]}


def count(total: State) -> np.ndarray:
    """The value of a count, int64, on the host."""
    return (np.asarray(total["high"], np.int64) << WORD) + np.asarray(total["low"])


def by_lead(x) -> jax.Array:
    """`[MAX_LEADS, ...]` of `[k, ...]`: padded with zeros.

    Raises:
        ValueError: if there are more than `MAX_LEADS`.
    """
    leads = jnp.shape(x)[0]
    if leads > MAX_LEADS:
        raise ValueError(
            f"the forecast has {leads} frames; scores by lead hold {MAX_LEADS} at most"
        )
    return jnp.pad(x, [(0, MAX_LEADS - leads)] + [(0, 0)] * (jnp.ndim(x) - 1))


def empty_table(names: Sequence[str], *shape: int, dtype: Any = jnp.float32) -> State:
    """Named sums of arrays `[k, *shape]`, for any k; counts if `dtype` is int32."""
    empty = empty_count if jnp.dtype(dtype) == jnp.int32 else empty_sum
    table = {name: empty(MAX_LEADS, *shape) for name in names}
    return table | {"leads": jnp.zeros((), jnp.int32)}


def add_to_table(table: State, rows: Mapping[str, jax.Array]) -> State:
    """A table and one more array `[k, ...]` for each of some names."""
    leads = max(jnp.shape(x)[0] for x in rows.values())
    new = {
        name: (add_count if _is_count(table[name]) else add)(table[name], by_lead(x))
        for name, x in rows.items()
    }
    return {**table, **new, "leads": jnp.maximum(table["leads"], leads)}


def merge_tables(a: State, b: State) -> State:
    """The sums of both."""
    both = {
        name: (merge_counts if _is_count(x) else merge)(x, b[name])
        for name, x in a.items()
        if name != "leads"
    }
    return both | {"leads": jnp.maximum(a["leads"], b["leads"])}


def table_values(table: State) -> dict[str, np.ndarray]:
    """float64 `[k, ...]` by name, int64 if they are counts, on the host."""
    table = jax.device_get(table)
    leads = int(table["leads"])
    return {
        name: (count if _is_count(x) else value)(x)[:leads]
        for name, x in table.items()
        if name != "leads"
    }


def _is_count(total: State) -> bool:
    return "low" in total


def ratio(numerator, denominator) -> np.ndarray:
    """Quotient in float64; NaN where the denominator is 0."""
    numerator = np.asarray(numerator, np.float64)
    denominator = np.asarray(denominator, np.float64)
    known = denominator != 0
    return np.where(known, numerator / np.where(known, denominator, 1), np.nan)
