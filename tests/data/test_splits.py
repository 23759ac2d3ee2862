"""The periods of training, validation and test, and the windows in them."""

import numpy as np
import pytest

from earthformer_jax.data import splits
from earthformer_jax.data.splits import Dates
from tests.data.cube_files import series


def split(data, in_len=4, out_len=2, share=1 / 2, **dates):
    return splits.split_periods(data, Dates(**dates), in_len, out_len, share)


class TestPeriods:
    def test_default_shares(self):
        periods = split(series())
        assert periods == {
            "train": (0, 70),
            "validation": (70, 85),
            "test": (85, 100),
        }

    def test_share_of_validation(self):
        assert split(series(), share=1 / 3) == {
            "train": (0, 70),
            "validation": (70, 80),
            "test": (80, 100),
        }
        periods = split(series(), share=1 / 3, train_until="2001-02-19")
        assert periods["validation"] == (50, 66)

    def test_dates(self):
        """Until is inclusive; the day after begins the next."""
        periods = split(
            series(),
            train_from="2001-01-03",
            train_until="2001-02",
            validate_until="2001-03-10",
            test_until="2001-03-31",
        )
        assert periods == {
            "train": (2, 59),
            "validation": (59, 69),
            "test": (69, 90),
        }

    def test_one_date(self):
        assert split(series(), train_until="2001-02-19")["train"] == (0, 50)
        assert split(series(), train_until="2001-02-19")["validation"] == (50, 75)

    def test_small_series_leave_room_for_targets(self):
        periods = split(series(12), in_len=4, out_len=2)
        assert [stop - start for start, stop in periods.values()] == [8, 2, 2]

    def test_pieces_without_dates_stay_whole(self):
        periods = split(series(100, pieces=10 * [10], dated=False))
        assert periods == {"train": (0, 70), "validation": (70, 80), "test": (80, 100)}
        periods = split(series(30, pieces=3 * [10], dated=False))
        assert periods == {"train": (0, 10), "validation": (10, 20), "test": (20, 30)}
        periods = split(series(100, pieces=2 * [50], dated=False))
        assert periods["train"] == (0, 70)

    @pytest.mark.parametrize(
        ("dates", "message"),
        [
            (
                dict(train_until="79-12"),
                "train_until='79-12' is not a date; write YYYY",
            ),
            (
                dict(train_until="2002"),
                "train_until=2002 is outside the data: c.nc has",
            ),
            (
                dict(train_until="1999"),
                "is outside the data: c.nc has 2001-01-01..2001",
            ),
            (dict(train_from="2003"), "train_from=2003 is outside the data"),
            (
                dict(train_until="2001-03", validate_until="2001-02"),
                "validate_until=2001-02 must come after train_until=2001-03",
            ),
            (dict(train_until="2001-04-10"), "04-10 leaves no frames for test"),
            (dict(train_from="2001-02", train_until="2001-01"), "must come after"),
            (dict(validate_until="2001-01-03"), "leaves no frames for validation"),
        ],
    )
    def test_impossible_dates(self, dates, message):
        with pytest.raises(ValueError, match=message):
            split(series(), **dates)

    def test_no_dates_to_split_by(self):
        with pytest.raises(
            ValueError, match="train_until=2001 cannot be used: c.nc has no dates"
        ):
            split(series(dated=False), train_until="2001")

    def test_too_short(self):
        message = (
            "in_len=4 and out_len=2 need at least 10 frames, .* c.nc has 9 .2001-01"
        )
        with pytest.raises(ValueError, match=message):
            split(series(9))


class TestStarts:
    def starts(self, data, stride=1, **dates):
        periods = split(data, **dates)
        return periods, splits.window_starts(data, periods, 4, 2, stride)

    def test_targets_lie_in_their_period(self):
        periods, starts = self.starts(series())
        for name, (first, stop) in periods.items():
            assert starts[name][0] + 4 == (first if name != "train" else 4)
            assert starts[name][-1] + 6 == stop
            np.testing.assert_array_equal(np.diff(starts[name]), 1)
        assert len(starts["train"]) == 70 - 5
        assert len(starts["validation"]) == len(starts["test"]) == 15 - 1

    def test_no_window_crosses_an_interruption(self):
        data = series(100, pieces=(7, 40, 3, 50))
        _, starts = self.starts(data)
        piece = np.repeat(np.arange(4), (7, 40, 3, 50))
        for found in starts.values():
            for start in found:
                assert len(set(piece[start : start + 6])) == 1
        assert len(starts["train"]) == 2 + 35 + 0 + 15

    def test_stride(self):
        _, starts = self.starts(series(), stride=5)
        assert starts["train"].tolist() == list(range(0, 65, 5))

    def test_no_window(self):
        data = series(30, pieces=6 * [5], dated=False)
        with pytest.raises(
            ValueError,
            match="the train period of 20 frames is too short for a window, which "
            "needs 4 input and 2 target frames in a row; there are 30 frames, in 6 "
            "pieces of at most 5. ",
        ):
            self.starts(data)
        data = series(100)
        with pytest.raises(
            ValueError,
            match="validation period .2001-03-01..2001-03-01. of 1 frames is too short",
        ):
            self.starts(data, train_until="2001-02", validate_until="2001-03-01")

    def test_text(self):
        data = series()
        periods, starts = self.starts(data)
        text = splits.split_text(data, periods, starts)
        assert text.startswith("train 2001-01-01..2001-03-11 (65 windows), validation")
        bare = series(dated=False)
        text = splits.split_text(bare, periods, starts)
        assert text.startswith("train frames 0..69 (65 windows)")
