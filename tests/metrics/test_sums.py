import jax
import numpy as np
import pytest

from earthformer_jax.metrics import sums


def total_of(values):
    """Sum of many numbers, one after the other."""

    def step(total, x):
        return sums.add(total, x), None

    return jax.jit(lambda x: jax.lax.scan(step, sums.empty_sum(), x)[0])(values)


def test_a_sum_of_many_is_as_good_as_float64():
    values = np.random.default_rng(0).random(200_000).astype(np.float32)
    exact = values.astype(np.float64).sum()
    assert sums.value(total_of(values)) == pytest.approx(exact, rel=1e-10)
    plain = jax.jit(lambda x: jax.lax.scan(lambda t, v: (t + v, None), 0.0, x)[0])
    assert abs(float(plain(values)) / exact - 1) > 1e-7  # what is avoided


def test_what_is_far_smaller_than_the_sum_is_not_lost():
    values = np.full(3000, 1e-5, np.float32)
    values[0] = 1e4
    expected = values.astype(np.float64).sum()
    assert sums.value(total_of(values)) == pytest.approx(expected, rel=1e-9)


def test_sums_can_be_merged():
    values = np.random.default_rng(1).random(1000).astype(np.float32)
    merged = sums.merge(total_of(values[:300]), total_of(values[300:]))
    expected = values.astype(np.float64).sum()
    assert sums.value(merged) == pytest.approx(expected, rel=1e-11)


def test_counts_are_exact_beyond_32_bits():
    most = np.int32(sums.MOST)

    def step(total, x):
        return sums.add_count(total, x), None

    numbers = np.array([most] * 20 + [1, 5, 7], np.int32)
    total, _ = jax.jit(lambda x: jax.lax.scan(step, sums.empty_count(), x))(numbers)
    expected = 20 * 2**30 + 13
    assert sums.count(total) == expected > 2e10
    both = sums.merge_counts(total, total)
    assert sums.count(both) == 2 * expected
    assert all(x.dtype == np.int32 for x in jax.tree.leaves(both))


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_tables_take_as_many_leads_as_come(dtype):
    empty = table = sums.empty_table(("a", "b"), 2, dtype=dtype)
    rows = np.arange(6, dtype=dtype).reshape(3, 2)
    shapes = jax.tree.map(np.shape, table)
    table = jax.jit(sums.add_to_table)(table, {"a": rows})
    table = sums.add_to_table(table, {"a": rows, "b": rows})
    assert jax.tree.map(np.shape, table) == shapes
    for together in (table, sums.merge_tables(empty, table)):
        values = sums.table_values(together)
        assert values["a"].dtype == (np.int64 if dtype is np.int32 else np.float64)
        np.testing.assert_array_equal(values["a"], 2 * rows)
        np.testing.assert_array_equal(values["b"], rows)


def test_too_many_leads_are_refused():
    with pytest.raises(ValueError, match="has 129 frames; scores by lead hold 128"):
        sums.by_lead(np.zeros(129))


def test_a_quotient_by_nothing_is_unknown():
    np.testing.assert_array_equal(
        sums.ratio([1, 0, 3], [2, 0, 0]), [0.5, np.nan, np.nan]
    )
