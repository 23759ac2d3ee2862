"""Dates from numbers and strings."""

import cftime
import numpy as np
import pytest

from earthformer_jax.data.readers import decoding
from earthformer_jax.data.readers import times as times_lib
from earthformer_jax.data.readers.decoding import decode


def moments(*texts):
    return np.array(texts, "datetime64[m]").astype(np.int64)


class TestDecode:
    @pytest.mark.parametrize(
        ("values", "units", "first", "last"),
        [
            ([0, 1.5], "days since 2000-02-28", "2000-02-28", "2000-02-29T12:00"),
            ([1026372], "hours since 1900-01-01 00:00:00.0", "2017-02-01T12:00", None),
            ([1551398400], "seconds since 1970-01-01", "2019-03-01", None),
            # The usual calendar is Julian until 1582: two days more.
            ([738522], "days since 0001-01-01", "2023-01-01", None),
            ([0, 90], "minutes since 2020-12-31 23:00", "2020-12-31T23:00", None),
            ([0.5, 13.5], "months since 1960-01-01", "1960-01-01", "1961-02-01"),
            ([1, 2], "years since 1999-01-01", "2000-01-01", "2001-01-01"),
            ([20160928, 20161001], "", "2016-09-28", "2016-10-01"),
            ([201609281445.0], "", "2016-09-28T14:45", None),
            ([b"201609281445", b"201609281800"], "", "2016-09-28T14:45", None),
            ([20160928.25], "day as %Y%m%d.%f", "2016-09-28T06:00", None),
            ([199011, 199012, 199101], "", "1990-11-01", "1991-01-01"),
            ([199011.0, 199102.0], "YYYYMM", "1990-11-01", "1991-02-01"),
            ([199011.5], "month as %Y%m.%f", "1990-11-01", None),
            ([b"199011", b"199012"], "", "1990-11-01", "1990-12-01"),
            (["2016-09-28T14:45:00Z"], "", "2016-09-28T14:45", None),
            (["2016-09-28 14:45:00.000000"], "", "2016-09-28T14:45", None),
            (["2016-09-28T14:45:00,5+00:00"], "", "2016-09-28T14:45", None),
            (["2016-09-28 01:45 +0200"], "", "2016-09-27T23:45", None),
            (["2016-09-28T23:45-05:30"], "", "2016-09-29T05:15", None),
            ([b"2016-09-28_14:45:00", b"2016-09-28_15:45:00"], "", "2016-09-28T14:45")
            + ("2016-09-28T15:45",),
            (["2016/09/28 14:45", "2016/9/30"], "", "2016-09-28T14:45", "2016-09-30"),
            (["20160928T144500"], "", "2016-09-28T14:45", None),
            (["2016-12-31T24:00"], "", "2017-01-01", None),
            (["2016-12-31T23:59:60Z"], "", "2017-01-01", None),
            (["2016-09"], "", "2016-09-01", None),
        ],
    )
    def test_known(self, values, units, first, last):
        times = decode(np.array(values), units)
        assert times.minutes[0] == moments(first)[0]
        if last:
            assert times.minutes[-1] == moments(last)[0]

    @pytest.mark.parametrize(
        ("values", "units"),
        [
            ([1, 2, 3], ""),
            ([0.5, 1.5], ""),
            ([b"a"], ""),
            ([99999999], ""),
            (range(1950, 1958), ""),  # years, or a count
            (["1950", "1951"], ""),
            (range(199010, 199016), ""),  # no 13th month
            ([199002, 199001], ""),
            (range(200001, 200007), "hours"),
            ([199001.5, 199002.5], ""),
            (["28/09/2016"], ""),  # or a month 28
            (["2016-09-28T25:00"], ""),
            (["2016092"], ""),
            ([20010229], ""),
            (range(1601010100, 1601013100, 300), ""),  # seconds since 1970
        ],
    )
    def test_unknown(self, values, units):
        assert decode(np.array(values), units) is None

    def test_a_note_says_what_is_not_understood(self):
        note = decoding.not_understood("time", np.arange(1950, 1958), "")
        assert note.startswith("'time' (1950..1957, no units) is not understood as")
        note = decoding.not_understood("t", np.array([b"28/09/2016"]), "day")
        assert note.startswith("'t' (28/09/2016, the units 'day') is not understood")

    @pytest.mark.parametrize(
        ("a", "b", "name"),
        [
            ("", "proleptic_gregorian", "standard"),
            ("gregorian", "standard", "standard"),
            ("365_day", "noleap", "noleap"),
            ("366_day", "ALL_LEAP", "all_leap"),
        ],
    )
    def test_names_of_one_calendar(self, a, b, name):
        one, two = (decode(np.arange(90), "days since 2001-01-01", c) for c in (a, b))
        assert one.calendar == two.calendar == name
        np.testing.assert_array_equal(one.seconds, two.seconds)

    def test_calendars_that_differ_before_1582(self):
        for calendar in ("standard", "proleptic_gregorian"):
            times = decode(np.arange(3), "days since 1500-01-01", calendar)
            assert times.calendar == calendar

    def test_digits_and_texts_of_a_model_calendar(self):
        times = decode(np.array([20010228, 20010301]), "", "noleap")
        assert np.diff(times.seconds) == 86400
        assert decode(np.array([20040229]), "", "noleap") is None
        times = decode(np.array(["2001-02-30"]), "", "360_day")
        assert times_lib.text(times.minutes[0]) == "2001-02-28"

    @pytest.mark.parametrize("calendar", ["noleap", "360_day", "julian", "all_leap"])
    def test_model_calendars(self, calendar):
        """Equal steps in the file's calendar; the dates people know beside them."""
        days = np.arange(700)
        times = decode(days, "days since 2003-01-01", calendar)
        np.testing.assert_array_equal(np.diff(times.seconds), 86400)
        assert len(times_lib.interruptions(times)) == 0
        date = cftime.num2date(423, "days since 2003-01-01", calendar)
        shown = times_lib.text(times.minutes[423])
        if calendar != "julian":
            assert shown == f"{date.year:04d}-{date.month:02d}-{date.day:02d}"

    def test_julian_dates_keep_their_month(self):
        """The usual calendar is Julian before 1582; 0100-02-29 was a day of it."""
        times = decode(np.array([0, 36218, 36219]), "days since 0001-01-01", "standard")
        shown = [times_lib.text(minutes) for minutes in times.minutes]
        assert shown == ["0001-01-01", "0100-02-28", "0100-03-01"]

    def test_days_that_do_not_exist(self):
        times = decode(np.arange(29, 62), "days since 2001-01-01", "360_day")
        assert times_lib.text(times.minutes[-3]) == "2001-02-28"  # the 30th

    @pytest.mark.parametrize(
        "values",
        [
            np.array([199001, np.nan, 199003]),
            np.array(["2016-09-28", "", "2016-09-30"]),
        ],
    )
    def test_missing(self, values):
        with pytest.raises(ValueError, match="1 time is missing, the first at step 1"):
            decode(values)

    def test_dates_that_their_type_rounds(self):
        """float32 holds no odd numbers beyond 2**24: 20160929 becomes 20160928."""
        with pytest.raises(ValueError, match="20160928 are stored as float32, which"):
            decode(np.array([20160929], np.float32))

    @pytest.mark.parametrize(
        ("step", "form"),
        [
            (1 / 4, "float32"),
            (1 / 24, "float32"),
            (1 / 24, "four decimals"),
            (1 / 288, "four decimals"),
            (1 / 288, "float64"),
        ],
    )
    def test_rounded_numbers(self, step, form):
        """0.0833 days are two hours; float32 rounds 2020 to six minutes."""
        days = 43829 + step * np.arange(50)
        rounded = {
            "float32": days.astype(np.float32),
            "four decimals": np.round(days, 4),
            "float64": days,
        }[form]
        times = decode(rounded, "days since 1900-01-01")
        want = moments("2020-01-01")[0] + np.round(1440 * step * np.arange(50))
        np.testing.assert_array_equal(times.minutes, want)

    def test_moments_that_are_not_rounded(self):
        """The last second of a month belongs to it."""
        days = np.cumsum([31, 28, 31]) - 1 / 86400
        times = decode(days, "days since 2001-01-01")
        assert times_lib.text(times.minutes[1]) == "2001-02-28 23:59"
        odd = decode(np.array([0.5, 0.75, 1.5]), "hours since 2001-01-01")
        np.testing.assert_array_equal(np.diff(odd.minutes), [15, 45])

    def test_attributes(self):
        times, name = decoding.of_attributes(
            {"title": "2001", "Date": "soon", "time_coverage_start": "2016-09-28T05Z"}
        )
        assert (times_lib.text(times.minutes[0]), name) == (
            "2016-09-28 05:00",
            "time_coverage_start",
        )
        assert decoding.of_attributes({"date": "28 Sep", "time": 5.0}) is None

    def test_refused(self):
        with pytest.raises(ValueError, match="1 time is missing"):
            decode(np.array([0, np.nan]), "days since 2000-01-01")
        with pytest.raises(ValueError, match="unit 'fortnight' of .*use one of second"):
            decode(np.array([0]), "fortnights since 2000-01-01")
        with pytest.raises(ValueError, match="'days since long ago' cannot be decoded"):
            decode(np.array([0]), "days since long ago")
