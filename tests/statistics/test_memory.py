import numpy as np
import pytest

from earthformer_jax.statistics import memory
from earthformer_jax.statistics.memory import RATES, Months, leaky_integrals


def test_it_is_the_sum_of_the_past_that_fades():
    index = np.random.default_rng(0).normal(size=40)
    found = leaky_integrals(index)
    for m in (0, 1, 7, 39):
        age = np.arange(m)[::-1]  # of the months before m - 1
        for r, rate in enumerate(RATES):
            expected = -np.sum(np.exp(-rate * age / 12) * index[:m])
            np.testing.assert_allclose(found[m, r], expected, atol=1e-12)


def test_it_knows_nothing_later_than_the_month_before():
    index = np.random.default_rng(1).normal(size=30)
    later = index.copy()
    later[20:] += 1
    found, changed = leaky_integrals(index), leaky_integrals(later)
    np.testing.assert_array_equal(found[:21], changed[:21])
    assert np.all(found[21] != changed[21])


def test_it_continues_from_a_start():
    index = np.random.default_rng(2).normal(size=(30, 2))
    whole = leaky_integrals(index, (0.7,))
    assert whole.shape == (30, 2, 1)
    later = leaky_integrals(index[12:], (0.7,), start=whole[12])
    np.testing.assert_allclose(later, whole[12:], rtol=1e-12)


def test_gaps_are_refused():
    with pytest.raises(ValueError, match="months that are not finite"):
        leaky_integrals([0.0, np.nan])


def test_months_are_checked():
    fields, known = np.zeros((5, 2, 3)), np.zeros((5, len(RATES)))
    Months(fields, known, 11)
    with pytest.raises(ValueError, match=r"its shape is \(4, 4\)"):
        Months(fields, known[1:], 0)
    with pytest.raises(ValueError, match="first_month=12 is not"):
        Months(fields, known, 12)
    with pytest.raises(ValueError, match="not finite"):
        memory.Months(fields, known * np.nan, 0)
