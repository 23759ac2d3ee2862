import numpy as np
import pytest

from earthformer_jax.statistics import withholding

MONTHS, BLOCK, LEADS = 100, 24, 6
SERIES = np.arange(MONTHS, dtype=float)[:, None]  # each month holds its own number


def test_no_model_learns_from_what_it_forecasts_or_reaches():
    known, first = [], []

    def fit(parts, months):
        learned = np.concatenate(parts)[:, 0]

        def forecast(states, month):
            for start in states[:, 0]:
                reached = start + np.arange(LEADS + 1)
                assert not np.isin(reached, learned).any()
            known.append(len(learned))
            first.append(months)
            np.testing.assert_array_equal(month, (3 + states[:, 0]) % 12)
            return states[:, None] + np.arange(1, LEADS + 1)[:, None]

        return forecast

    found = withholding.hindcasts(SERIES, 3, fit, leads=LEADS, block=BLOCK)
    truth = withholding.matching(SERIES[:, 0], LEADS)
    reached = np.isfinite(truth)
    np.testing.assert_array_equal(found[..., 0][reached], truth[reached])
    assert known == [70, 70, 70, 72, 96]  # the last blocks reach beyond the end
    assert first == [[9], [3, 9], [3, 9], [3], [3]]


def test_what_happened_is_not_known_beyond_the_end():
    truth = withholding.matching(SERIES[:, 0], LEADS)
    np.testing.assert_array_equal(truth[0], np.arange(1, LEADS + 1))
    assert truth.shape == (MONTHS, LEADS)
    np.testing.assert_array_equal(np.isnan(truth).sum(axis=1)[-7:], np.arange(7))


def test_a_series_shorter_than_two_blocks_is_refused():
    with pytest.raises(ValueError, match="50 months are too few to withhold 24 and"):
        withholding.hindcasts(
            SERIES[:50], 0, lambda *_: lambda *_: SERIES, leads=6, block=24
        )
