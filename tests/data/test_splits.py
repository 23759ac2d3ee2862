"""The periods of training, validation and test, and the windows in them."""

from typing import Any

import numpy as np
import pytest

from earthformer_jax.data import leaks, splits
from earthformer_jax.data.splits import Dates
from tests.data.cube_files import series


def split(data, in_len=4, out_len=2, share=1 / 2, fold=splits.NO_FOLD, **dates):
    return splits.split_periods(data, Dates(**dates), in_len, out_len, share, fold)


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


class TestFolds:
    def test_blocks_cover_the_training_period(self):
        edges = [0]
        for i in range(3):
            periods = split(series(), fold=splits.Fold(3, i))
            assert periods["train"] == (0, 70)
            assert periods["test"] == (85, 100)
            begin, end = periods["validation"]
            assert begin == edges[-1]
            edges.append(end)
        assert edges == [0, 23, 46, 70]

    @pytest.mark.parametrize("number", range(4))
    def test_no_training_window_meets_the_block(self, number):
        data = series()
        periods = split(data, fold=splits.Fold(4, number))
        starts = splits.window_starts(data, periods, 4, 2)
        first, stop = periods["validation"]
        used = starts["train"][:, None] + np.arange(6)
        assert not np.any((used >= first) & (used < stop))
        pieces = splits.training_pieces(periods)
        assert len(starts["train"]) == sum(b - a - 5 for a, b in pieces)
        assert sum(b - a for a, b in pieces) == 70 - (stop - first)
        targets = starts["validation"][:, None] + 4 + np.arange(2)
        assert targets.min() == max(first, 4)
        assert targets.max() == stop - 1
        spans = {k: leaks.of_starts(x, 4, 2) for k, x in starts.items()}
        leaks.check_apart("series", spans)

    def test_no_folds(self):
        periods = split(series())
        assert splits.training_pieces(periods) == [periods["train"]]

    def test_blocks_of_less_than_a_window(self):
        message = (
            "folds=12 divides .* into blocks of 5 frames, .* in_len=4 and out_len=2"
        )
        with pytest.raises(ValueError, match=message):
            split(series(), fold=splits.Fold(12, 11))

    def test_months_between_training_and_test_are_not_used(self):
        dates: dict[str, Any] = dict(
            train_until="2001-02-19", validate_until="2001-03-01"
        )
        periods = split(series(), fold=splits.Fold(2, 1), **dates)
        assert periods == {"train": (0, 50), "validation": (25, 50), "test": (60, 100)}
        periods = split(
            series(),
            fold=splits.Fold(2, 0),
            train_until="2001-02-19",
            test_from="2001-02-20",
        )
        assert periods == {"train": (0, 50), "validation": (0, 25), "test": (50, 100)}


class TestTestFrom:
    def test_after_validation(self):
        periods = split(series(), train_until="2001-02-19", test_from="2001-03-12")
        assert periods == {"train": (0, 50), "validation": (50, 70), "test": (70, 100)}
        periods = split(
            series(),
            train_until="2001-02-19",
            validate_until="2001-03-01",
            test_from="2001-03-12",
            test_until="2001-03-31",
        )
        assert periods == {"train": (0, 50), "validation": (50, 60), "test": (70, 90)}

    def test_before_training(self):
        dates: dict[str, Any] = dict(train_from="2001-02-10", train_until="2001-03-12")
        early: dict[str, Any] = dict(test_from="2001-01-11")
        data = series()
        periods = split(data, **dates, **early)
        expected = {"train": (40, 71), "validation": (71, 100), "test": (10, 40)}
        assert periods == expected
        assert splits.tests_before(periods)
        starts = splits.window_starts(data, periods, 4, 2)
        assert [int(x[0]) for x in starts.values()] == [40, 67, 6]
        assert int(starts["test"][-1]) + 6 == 40
        early["test_until"] = "2001-01-31"
        periods = split(data, validate_until="2001-04-01", **dates, **early)
        assert periods == {"train": (40, 71), "validation": (71, 91), "test": (10, 31)}
        periods = split(data, fold=splits.Fold(2, 0), **dates, **early)
        starts = splits.window_starts(data, periods, 4, 2)
        assert int(starts["validation"][0]) == 40  # not the last of the test period

    def test_training_is_a_segment_of_its_own_after_testing(self):
        data = series()
        periods = split(data, train_from="2001-02-10", test_from="2001-01-11")
        assert splits.parted(data, periods).segments.tolist() == [[0, 40], [40, 100]]
        assert splits.parted(data, split(data)) is data

    @pytest.mark.parametrize(
        ("dates", "message"),
        [
            (
                dict(train_until="2001-02", test_from="2001-02-10"),
                "test_from=2001-02-10 must come after train_until=2001-02",
            ),
            (
                dict(validate_until="2001-03-20", test_from="2001-03-18"),
                "test_from=2001-03-18 lies in the time of training and validation, "
                "2001-01-01..2001-03-20; choose a date after it",
            ),
            (
                dict(train_from="2001-02-10", test_from="2001-01-11")
                | dict(test_until="2001-02-20"),
                "test_until=2001-02-20 must come before train_from=2001-02-10, as "
                "test_from=2001-01-11 does",
            ),
            (
                dict(train_from="2001-02-10", test_from="2001-01-11")
                | dict(test_until="2001-01-10"),
                "test_until=2001-01-10 must come after test_from=2001-01-11",
            ),
            (dict(test_from="2002"), "test_from=2002 is outside the data"),
            (
                dict(train_from="2001-02-10", train_until="2001-04-10")
                | dict(test_from="2001-01-11"),
                "train_until=2001-04-10 leaves no frames for validation",
            ),
        ],
    )
    def test_impossible(self, dates, message):
        with pytest.raises(ValueError, match=message):
            split(series(), **dates)


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
