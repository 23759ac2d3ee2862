import numpy as np
import pytest

from earthformer_jax.data.enso import windows
from earthformer_jax.data.readers.months import format_month, parse_month


def month(text):
    return parse_month(text, "month")


def series(first="2000-01", months=60):
    fields = np.arange(months, dtype=np.float32)[:, None, None] * np.ones((1, 2, 3))
    return windows.MonthlySeries(fields.astype(np.float32), month(first))


class TestPeriods:
    def split(self, first="2000-01", last="2019-12", **dates):
        periods = windows.split_periods(month(first), month(last), **dates)
        return [
            tuple(map(format_month, p))
            for p in (periods.train, periods.validation, periods.test)
        ]

    def test_dates(self):
        assert self.split(
            train_from="2001-01",
            train_until="2010-12",
            validate_until="2012-06",
            test_until="2018-12",
        ) == [
            ("2001-01", "2010-12"),
            ("2011-01", "2012-06"),
            ("2012-07", "2018-12"),
        ]

    def test_defaults_cover_the_file(self):
        assert self.split() == [
            ("2000-01", "2013-12"),
            ("2014-01", "2015-12"),
            ("2016-01", "2019-12"),
        ]

    def test_defaults_leave_a_window_to_each_split(self):
        assert self.split(last="2004-06", min_months=14) == [
            ("2000-01", "2002-02"),
            ("2002-03", "2003-04"),
            ("2003-05", "2004-06"),
        ]

    @pytest.mark.parametrize(
        ("dates", "message"),
        [
            (dict(train_until="2015-12", validate_until="2015-12"), "must come after"),
            (dict(train_until="2016-01", validate_until="2015-12"), "must come after"),
            (dict(train_until="2019-12"), "outside the data|must come after"),
            (dict(train_until="1990-01"), "1990-01 is outside the data: the file has "),
            (dict(test_until="2050-01"), "the file has 2000-01 to 2019-12"),
            (dict(train_from="2015-1"), "train_from='2015-1' is not a month"),
        ],
    )
    def test_wrong_dates(self, dates, message):
        with pytest.raises(ValueError, match=message):
            self.split(**dates)


class TestWindows:
    periods = windows.Periods(
        train=(month("2000-01"), month("2002-12")),
        validation=(month("2003-01"), month("2003-12")),
        test=(month("2004-01"), month("2004-12")),
    )

    def test_training_windows_lie_in_the_training_period(self):
        starts = windows.period_starts(series(), self.periods, 12, 6)
        assert starts["train"][0] == 0
        assert starts["train"][-1] + 12 + 6 == 36
        np.testing.assert_array_equal(np.diff(starts["train"]), 1)

    @pytest.mark.parametrize("split, first", [("validation", 36), ("test", 48)])
    def test_targets_of_the_others_lie_in_their_period(self, split, first):
        starts = windows.period_starts(series(), self.periods, 12, 6)[split]
        np.testing.assert_array_equal(starts + 12, np.arange(first, first + 7))

    def test_splits_share_no_target_month(self):
        starts = windows.period_starts(series(), self.periods, 12, 6)
        targets = {
            split: {t for s in positions for t in range(s + 12, s + 18)}
            for split, positions in starts.items()
        }
        assert not targets["train"] & targets["validation"]
        assert not targets["validation"] & targets["test"]

    @pytest.mark.parametrize(
        ("in_len", "out_len", "message"),
        [
            (
                12,
                13,
                "validation period 2003-01 to 2003-12 .12 months. holds no window",
            ),
            (
                30,
                12,
                "30 input and 12 target months; the series has 2000-01 to 2004-12",
            ),
        ],
    )
    def test_windows_that_do_not_fit(self, in_len, out_len, message):
        with pytest.raises(ValueError, match=message):
            windows.period_starts(series(), self.periods, in_len, out_len)

    def test_source(self):
        two = [series(), series("1990-07", 30)]
        source = windows.WindowSource(two, [np.array([3]), np.array([0, 5])], 12, 4)
        assert len(source) == 3
        example = source[2]
        assert example["inputs"].shape == (12, 2, 3, 1)
        np.testing.assert_array_equal(example["inputs"][:, 0, 0, 0], 5 + np.arange(12))
        np.testing.assert_array_equal(example["targets"][:, 1, 2, 0], 17 + np.arange(4))
        assert example["start_month"] == (6 + 17) % 12
        assert "nino34_three_month" not in example

    def test_given_index_goes_with_the_targets(self):
        fields = np.zeros((30, 2, 2), np.float32)
        given = windows.MonthlySeries(fields, 0, np.arange(30.0))
        example = windows.WindowSource([given], [np.array([2])], 12, 5)[0]
        np.testing.assert_array_equal(example["nino34_three_month"], [14, 15, 16])

    def test_starts_cover_the_series(self):
        np.testing.assert_array_equal(windows.window_starts(10, 4), np.arange(7))
        np.testing.assert_array_equal(windows.window_starts(10, 4, 3), [0, 3, 6])
        assert not len(windows.window_starts(3, 4))
