"""Which examples form a block, by event, by date and by number."""

import numpy as np
import pytest

from earthformer_jax.data import leaks
from earthformer_jax.data.leaks import Spans
from earthformer_jax.data.pipeline import evaluation_batches
from earthformer_jax.reports.verification.blocks import blocks_of
from tests.reports.verification.fields import IN_LEN, OUT_LEN, data

DAY = 24 * 60


def found(data, batch_size=4):
    """The text of the blocks, and their numbers for all examples."""
    blocks, keys, at = blocks_of(data), [], 0
    for batch in evaluation_batches(data.test, batch_size):
        new = blocks.keys(batch, at)[batch["valid"]]
        keys, at = [*keys, *new.tolist()], at + len(new)
    return blocks.text, keys


def series(times):
    """Windows that begin with every frame of a series with dates."""
    times = np.asarray(times, "datetime64[m]").astype(np.int32)
    count = len(times) - IN_LEN - OUT_LEN + 1
    windows = [times[i : i + IN_LEN + OUT_LEN] for i in range(count)]
    spans = leaks.of_starts(np.arange(count), IN_LEN, OUT_LEN)
    return data(count, spans=spans, time=windows)


def test_an_event_is_a_block():
    text, keys = found(data(7, event=np.array([3, 3, 3, 9, 9, 4, 4], np.int32)))
    assert (text, keys) == ("an event", [3, 3, 3, 9, 9, 4, 4])


def test_independent_examples_are_blocks():
    assert found(data(6)) == ("an example", list(range(6)))
    sequences = Spans(*(np.zeros(6, np.int64) for _ in range(3)), place=np.arange(6))
    assert found(data(6, spans=sequences)) == ("an example", list(range(6)))


def test_months_of_a_long_series_form_years():
    months = np.arange("1990-01", "2004-06", dtype="datetime64[M]")
    text, keys = found(series(months))
    assert text == "a year"
    np.testing.assert_array_equal(keys, np.arange(len(months) - 4) // 12)


def test_a_block_is_as_long_as_a_window():
    """Five frames that are half a year apart are more than one year."""
    half_years = np.arange("1950-01", "2010-01", 6, dtype="datetime64[M]")
    text, keys = found(series(half_years))
    assert text == "2 years"
    np.testing.assert_array_equal(keys, np.arange(116) // 4)


@pytest.mark.parametrize(
    "first, last, step, text, size",
    [
        ("2001-03-05", "2003-03-05", DAY, "a month", (25, 31)),
        ("2001-03-05", "2001-03-25", 60, "a day", (24, 24)),
        ("2001-03-05", "2001-03-06", 5, "an hour", (12, 12)),
    ],
)
def test_the_longest_unit_of_which_there_are_ten(first, last, step, text, size):
    moments = np.arange(first, last, step, dtype="datetime64[m]")
    made, keys = found(series(moments))
    assert made == text
    sizes = np.bincount(keys)
    assert len(sizes) >= 10 and sizes[-1] <= size[1]  # the last may be shorter
    assert size[0] <= sizes[:-1].min() and sizes.max() <= size[1]


def test_a_short_series_has_blocks_of_a_window():
    months = np.arange("1990-01", "1991-01", dtype="datetime64[M]")
    text, keys = found(series(months))
    assert text == "5 frames"
    np.testing.assert_array_equal(keys, 0)  # less than two whole blocks of 5


def test_a_series_without_dates_has_blocks_of_frames():
    spans = leaks.of_starts(np.arange(400), IN_LEN, OUT_LEN)
    text, keys = found(data(400, spans=spans))
    assert text == "19 frames"
    sizes = np.bincount(keys)
    assert set(sizes[:-1]) == {19} and 19 <= sizes[-1] < 38


def test_one_window_is_one_block():
    spans = leaks.of_starts(np.arange(1), IN_LEN, OUT_LEN)
    assert found(data(1, spans=spans)) == ("an example", [0])
