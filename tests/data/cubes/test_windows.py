"""Windows of a series, and the periods they lie in."""

import dataclasses
import pickle

import numpy as np
import pytest

from earthformer_jax.data.cubes import windows as windows_lib
from earthformer_jax.data.cubes.statistics import Normalizer
from earthformer_jax.data.cubes.windows import Dates, Windows
from tests.data.cubes.test_statistics import DAY, HOUR, cube, minutes


def series(frames=100, pieces=None, dated=True):
    values = np.arange(float(frames))[:, None, None, None] * np.ones((1, 2, 3, 2))
    data = cube(values)
    if pieces:
        edges = np.cumsum([0, *pieces])
        data = dataclasses.replace(
            data, segments=np.stack([edges[:-1], edges[1:]], axis=1)
        )
    return data if dated else dataclasses.replace(data, times=None, cadence=0.0)


def split(data, in_len=4, out_len=2, **dates):
    return windows_lib.split_periods(data, Dates(**dates), in_len, out_len)


def windows(data, starts, **changes):
    options = dict(
        in_len=4,
        out_len=2,
        normalizer=Normalizer(
            np.ones(2, np.float32), np.zeros(2, np.float32), np.ones((2, 3, 2), bool)
        ),
        targets=2,
        observed=True,
    )
    return Windows(data.frames, data.minutes, np.asarray(starts), **(options | changes))


class TestPeriods:
    def test_default_shares(self):
        periods = split(series())
        assert periods == {
            "train": (0, 70),
            "validation": (70, 85),
            "test": (85, 100),
        }

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
            (dict(train_until="79-12"), "train_until='79-12' is no date; write YYYY"),
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
                "validate_until=2001-02 must come after .*data.train_until=2001-03",
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
            ValueError, match="train_until=2001 has no meaning for c.nc"
        ):
            split(series(dated=False), train_until="2001")

    def test_too_short(self):
        message = (
            "in_len=4 and out_len=2 need 10 frames or more, .* c.nc has 9 .2001-01"
        )
        with pytest.raises(ValueError, match=message):
            split(series(9))


class TestStarts:
    def starts(self, data, stride=1, **dates):
        periods = split(data, **dates)
        return periods, windows_lib.window_starts(data, periods, 4, 2, stride)

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
            match="the train period of 20 frames holds no window: it needs 4 input and "
            "2 target frames in a row; there are 30 frames, in 6 pieces of at most 5. ",
        ):
            self.starts(data)
        data = series(100)
        with pytest.raises(
            ValueError,
            match="validation period .2001-03-01..2001-03-01. of 1 frames holds no win",
        ):
            self.starts(data, train_until="2001-02", validate_until="2001-03-01")

    def test_text(self):
        data = series()
        periods, starts = self.starts(data)
        text = windows_lib.split_text(data, periods, starts)
        assert text.startswith("train 2001-01-01..2001-03-11 (65 windows), validation")
        bare = series(dated=False)
        text = windows_lib.split_text(bare, periods, starts)
        assert text.startswith("train frames 0..69 (65 windows)")


class TestWindows:
    def test_example(self):
        source = windows(series(), [0, 7, 50])
        assert len(source) == 3
        example = source[1]
        assert {name: (x.shape, x.dtype.name) for name, x in example.items()} == {
            "inputs": ((4, 2, 3, 2), "float32"),
            "targets": ((2, 2, 3, 2), "float32"),
            "observed": ((2, 2, 3, 2), "bool"),
            "time": ((6,), "int32"),
        }
        np.testing.assert_array_equal(example["inputs"][:, 0, 0, 0], [7, 8, 9, 10])
        np.testing.assert_array_equal(example["targets"][:, 1, 2, 1], [11, 12])
        assert example["observed"].all()
        np.testing.assert_array_equal(example["time"], minutes(100)[7:13])

    def test_an_example_is_a_function_of_its_number(self):
        data = series()
        source = windows(data, np.arange(50))
        before = {name: x.copy() for name, x in source[3].items()}
        source[3]["inputs"][:] = 99
        again = pickle.loads(pickle.dumps(source))
        for name, x in before.items():
            np.testing.assert_array_equal(source[3][name], x)
            np.testing.assert_array_equal(again[3][name], x)

    def test_missing_values(self):
        data = series()
        data.frames.values[[0, 2, 3, 5], 0, 0, 0] = np.nan
        example = windows(data, [0])[0]
        np.testing.assert_array_equal(example["inputs"][:, 0, 0, 0], [0, 1, 1, 1])
        np.testing.assert_array_equal(example["inputs"][:, 0, 0, 1], [0, 1, 2, 3])
        np.testing.assert_array_equal(example["targets"][:, 0, 0, 0], [4, 0])
        np.testing.assert_array_equal(example["observed"][:, 0, 0, 0], [True, False])
        assert np.isfinite(example["inputs"]).all()
        assert "observed" not in windows(data, [0], observed=False)[0]

    def test_fewer_targets(self):
        example = windows(series(), [0], targets=1)[0]
        assert example["inputs"].shape[-1] == 2
        assert example["targets"].shape[-1] == example["observed"].shape[-1] == 1

    def test_calendar(self):
        data = cube(np.zeros((40, 2, 3, 2)), 6 * HOUR)
        plain = windows(data, [20])[0]
        daily = windows(data, [20], calendar=True)[0]["inputs"]
        assert daily.shape == (4, 2, 3, 4)
        np.testing.assert_array_equal(daily[..., :2], plain["inputs"])
        days = (5 + np.arange(4) / 4) / 365  # since the beginning of 2001
        np.testing.assert_allclose(
            daily[:, 1, 2, 2], np.cos(2 * np.pi * days), rtol=1e-6
        )
        np.testing.assert_allclose(
            daily[:, 0, 0, 3], np.sin(2 * np.pi * days), rtol=1e-5
        )
        hourly = windows(data, [20], calendar=True, time_of_day=True)[0]["inputs"]
        np.testing.assert_allclose(hourly[:, 1, 1, 4], [1, 0, -1, 0], atol=1e-6)
        np.testing.assert_allclose(hourly[:, 1, 1, 5], [0, 1, 0, -1], atol=1e-6)

    def test_without_dates(self):
        assert "time" not in windows(series(dated=False), [0])[0]

    def test_times_beyond_int32(self):
        assert windows_lib.in_range(None) is None
        assert windows_lib.in_range(minutes(3, DAY, "9000-01-01")) is None
        assert windows_lib.in_range(minutes(3)) is not None


class TestWholeSeries:
    @pytest.mark.parametrize("length", [1, 2, 5, 8])
    @pytest.mark.parametrize("frames", [8, 9, 23, 24])
    def test_every_frame_is_central_once(self, frames, length):
        starts, central = windows_lib.cover(3, 3 + frames, length)
        seen = (starts[:, None] + np.arange(length))[central]
        np.testing.assert_array_equal(np.sort(seen), 3 + np.arange(frames))
        np.testing.assert_array_equal(seen, np.sort(seen))
        assert starts[0] == 3 and starts[-1] == 3 + frames - length

    def test_inside_it_is_the_middle(self):
        _, central = windows_lib.cover(0, 40, 8)
        want = [False, False, True, True, True, True, False, False]
        assert (central[1:-1] == want).all()

    def test_of_two_windows_as_near_the_earlier_has_seen_more(self):
        starts, central = windows_lib.cover(0, 21, 5)
        np.testing.assert_array_equal(starts[:2], [0, 2])
        np.testing.assert_array_equal(central[1], [False, False, True, True, False])

    def test_examples(self):
        data = series(30, pieces=[3, 12, 15])
        periods = {"train": (2, 15), "validation": (15, 20), "test": (20, 29)}

        def make(starts):
            return windows(data, starts, in_len=0, out_len=4)

        whole = windows_lib.WholeSeries(make, data.segments, 4, periods)
        examples = [whole[i] for i in range(len(whole))]
        frames = np.concatenate([e["frame"][e["central"]] for e in examples])
        splits = np.concatenate([e["split"][e["central"]] for e in examples])
        np.testing.assert_array_equal(frames, np.arange(3, 30))  # 0..2 are too short
        assert whole.frame_count == 27
        np.testing.assert_array_equal(splits, 12 * [0] + 5 * [1] + 9 * [2] + [-1])
        for example in examples:
            np.testing.assert_array_equal(
                example["targets"][:, 0, 0, 0], example["frame"]
            )
            np.testing.assert_array_equal(example["inputs"], example["targets"])
        pickle.loads(pickle.dumps(windows(data, [3], in_len=0)))
