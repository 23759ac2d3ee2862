"""Windows of a series."""

import pickle

import numpy as np
import pytest

from earthformer_jax.data import windows as windows_lib
from earthformer_jax.data.cubes.statistics import Normalizer
from earthformer_jax.data.readers.times import DAY
from earthformer_jax.data.windows import Windows
from tests.data import cube_files
from tests.data.cube_files import minutes, series


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


class TestWindows:
    def test_example(self):
        source = windows(series(), [0, 7, 50])
        assert len(source) == 3
        example = source[1]
        assert {name: (x.shape, x.dtype.name) for name, x in example.items()} == {
            "inputs": ((4, 2, 3, 2), "float32"),
            "targets": ((2, 2, 3, 2), "float32"),
            "observed": ((2, 2, 3, 2), "bool"),
            "inputs_observed": ((4, 2, 3, 2), "bool"),
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
        data = cube_files.cube(np.zeros((40, 2, 3, 2)), 6 * 60)
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

    def test_values_as_they_are(self):
        data = series()
        source = Windows(data.frames, data.minutes, [3, 9], in_len=4, out_len=2)
        example = source[1]
        np.testing.assert_array_equal(example["inputs"], data.frames.read(9, 13))
        np.testing.assert_array_equal(example["targets"], data.frames.read(13, 15))
        before = example["inputs"].copy()
        example["inputs"][:] = 99
        np.testing.assert_array_equal(source[1]["inputs"], before)

    def test_more_values_of_every_frame(self):
        data = series()
        example = windows(data, [3, 9], beside={"index": 10 * np.arange(100)})[1]
        np.testing.assert_array_equal(example["index"], [130, 140])

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
