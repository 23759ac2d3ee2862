"""Time axes: order, gaps, names of steps, dates."""

import numpy as np
import pytest

from earthformer_jax.data.readers import times as times_lib
from earthformer_jax.data.readers.decoding import decode


def moments(*texts):
    return np.array(texts, "datetime64[m]").astype(np.int64)


class TestSteps:
    def test_order(self):
        good = decode(np.array([0, 1, 5]), "days since 2000-01-01")
        times_lib.check_order(good)
        back = decode(np.array([0, 2, 1]), "days since 2000-01-01")
        with pytest.raises(ValueError, match="back from 2000-01-03 .step 1. to 2000"):
            times_lib.check_order(back)
        twice = decode(np.array([0, 1, 1, 1]), "days since 2000-01-01")
        with pytest.raises(ValueError, match="1 and 2 are both at 2000-01-02 .2 times"):
            times_lib.check_order(twice)

    def test_interruptions(self):
        days = np.array([0, 1, 2, 4, 5, 6, 6.25, 7.25])
        times = decode(days, "days since 2000-01-01")
        np.testing.assert_array_equal(times_lib.interruptions(times), [3, 6])
        assert times_lib.cadence(times) == 1440
        assert times_lib.cadence(times[:1]) == times_lib.cadence(None) == 0

    def test_months(self):
        times = times_lib.of_months(np.arange(-2, 30))
        assert times_lib.text(times.minutes[0]) == "1969-11-01"
        np.testing.assert_array_equal(
            times_lib.month_of(times.minutes + 9999), times_lib.month_of(times.minutes)
        )
        np.testing.assert_array_equal(
            times_lib.month_of(times.minutes), np.arange(-2, 30)
        )
        times_lib.check_monthly(times)
        assert (
            times_lib.period_text(times.minutes, times_lib.cadence(times))
            == "1969-11..1972-06"
        )

    @pytest.mark.parametrize(
        ("months", "message"),
        [
            (
                [0, 1, 2, 4, 5],
                "1970-03 is followed by 1970-05: 1970-04 is missing; fill",
            ),
            ([0, 1, 2, 3, 8], "1970-05 is missing and 3 more after it; fill the gap"),
            ([0, 1, 1, 2], "steps 1 and 2 are both in 1970-02; average the data"),
            ([0, 12, 24], "1970-01 is followed by 1971-01; monthly means are needed"),
        ],
    )
    def test_other_than_monthly(self, months, message):
        with pytest.raises(ValueError, match=message):
            times_lib.check_monthly(times_lib.of_months(months))

    def test_months_are_equal_steps(self):
        times = decode(np.arange(48), "months since 2000-01-01")
        assert len(times_lib.interruptions(times)) == 0
        without = decode(np.delete(np.arange(48), 13), "months since 2000-01")
        np.testing.assert_array_equal(times_lib.interruptions(without), [13])

    @pytest.mark.parametrize(
        ("minutes", "name"),
        [
            (5, "5 min"),
            (60, "1 hour"),
            (180, "3 hours"),
            (1440, "1 day"),
            (5 * 1440, "5 days"),
            (31 * 1440, "1 month"),
            (365.25 * 1440, "1 year"),
            (0.5, "0.5 min"),
            (0, ""),
        ],
    )
    def test_frame_name(self, minutes, name):
        assert times_lib.frame_name(minutes) == name


class TestDates:
    @pytest.mark.parametrize(
        ("date", "start", "end"),
        [
            ("2012", "2012-01-01", "2013-01-01"),
            ("2012-02", "2012-02-01", "2012-03-01"),
            ("2012-02-29", "2012-02-29", "2012-03-01"),
            ("2012-02-29T05:30", "2012-02-29T05:30", "2012-02-29T05:31"),
            ("2012-02-29 05", "2012-02-29T05:00", "2012-02-29T06:00"),
        ],
    )
    def test_whole_periods(self, date, start, end):
        assert times_lib.start_of(date, "x") == moments(start)[0]
        assert times_lib.end_of(date, "x") == moments(end)[0]

    @pytest.mark.parametrize("date", ["12-2012", "2012/02", "2012-13", "soon", "20"])
    def test_refused(self, date):
        with pytest.raises(
            ValueError, match=f"train_until='{date}' is not a date; write"
        ):
            times_lib.end_of(date, "train_until")

    def test_season_and_time_of_day(self):
        times = moments("2001-01-01", "2001-07-02T12:00", "2004-07-02")
        np.testing.assert_allclose(times_lib.season(times), [0, 0.5, 0.5])
        np.testing.assert_allclose(times_lib.time_of_day(times), [0, 0.5, 0])
