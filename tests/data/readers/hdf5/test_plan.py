"""Which data sets are the fields: variables, sequences, frames, splits."""

import numpy as np
import pytest

from earthformer_jax.data import splits
from earthformer_jax.data.readers.layout import Undecided, Wanted
from earthformer_jax.data.readers.series import open_cube
from tests.data.readers.hdf5 import files


def opened(path, *variables, **wanted):
    return open_cube(str(path), Wanted(variables=variables, **wanted))


def read(cube):
    return cube.frames.read(0, cube.frames.shape[0])


class TestSequences:
    @pytest.mark.parametrize("name", ["{}", "events/{}/vil", "event_{}", "{}/x"])
    def test_numbered_data_sets(self, tmp_path, name):
        """Sorted by number, and of the lengths that they have."""
        events = {name.format(i): files.frames(20 + i, seed=i) for i in range(11)}
        cube = opened(files.write(tmp_path / "a.h5", events))
        assert len(cube.names) == 1
        lengths = cube.segments[:, 1] - cube.segments[:, 0]
        assert lengths.tolist() == [*range(20, 31)]
        np.testing.assert_array_equal(
            read(cube)[..., 0], np.concatenate(list(events.values()))
        )

    def test_groups_are_splits(self, tmp_path):
        """No event of the group test is trained on, whatever the shares."""
        events = {f"train/{i}": files.frames(25, seed=i) for i in range(10)}
        events |= {f"test/{i}": files.frames(25, seed=50 + i) for i in range(9)}
        cube = opened(
            files.write(tmp_path / "a.h5", events, {"train": {"all_len": 10}})
        )
        assert cube.frames.shape == (19 * 25, 10, 12, 1)
        periods = splits.split_periods(cube, splits.NO_DATES, 4, 2)
        want = {"train": (0, 200), "validation": (200, 250), "test": (250, 475)}
        assert periods == want
        np.testing.assert_array_equal(read(cube)[250:275, ..., 0], events["test/0"])
        only = opened(tmp_path / "a.h5", "train")
        assert only.frames.shape[0] == 250 and not only.splits

    def test_three_groups_of_sequences(self, tmp_path):
        arrays = {
            "val/x": np.stack([files.frames(12)] * 9),
            "train/x": np.stack([files.frames(12)] * 10),
            "test/x": np.stack([files.frames(12)] * 11),
        }
        cube = opened(files.write(tmp_path / "a.h5", arrays))
        want = {"train": (0, 120), "validation": (120, 228), "test": (228, 360)}
        assert cube.splits == want

    def test_groups_without_a_test(self, tmp_path):
        arrays = {f"{s}/{i}": files.frames() for s in ("train", "val") for i in "12"}
        with pytest.raises(
            ValueError, match="train and val.*; expected train and test"
        ):
            opened(files.write(tmp_path / "a.h5", arrays))

    def test_variables_of_each_event(self, tmp_path):
        arrays = {
            f"{i}/{name}": files.frames(20, seed=2 * i + (name == "wind"))
            for i in range(3)
            for name in ("rain", "wind")
        }
        cube = opened(files.write(tmp_path / "a.h5", arrays))
        assert cube.names == ("rain", "wind")
        np.testing.assert_array_equal(read(cube)[20:40, ..., 1], arrays["1/wind"])

    def test_names_keep_their_digits(self, tmp_path):
        arrays = {f"member{i:02d}/t2m": files.frames() for i in range(3)}
        assert opened(files.write(tmp_path / "a.h5", arrays)).names == ("t2m",)

    def test_inputs_and_targets_are_no_variables(self, tmp_path):
        every = np.stack([files.frames(12)] * 9)
        for targets in (12, 6):
            arrays = {f"X_{s}": every for s in ("train", "test")}
            arrays |= {f"Y_{s}": every[:, :targets] for s in ("train", "test")}
            with pytest.raises(ValueError, match="X and Y .*'X_train'. seem to be the"):
                opened(files.write(tmp_path / "a.h5", arrays))

    def test_variables_or_sequences(self, tmp_path):
        arrays = {f"band_{i}": files.frames(seed=i) for i in range(3)}
        path = files.write(tmp_path / "a.h5", arrays)
        with pytest.raises(Undecided, match="variables=band_0,band_1,band_2 or var"):
            opened(path)
        assert opened(path, "band_0", "band_2").names == ("band_0", "band_2")
        cube = opened(path, "band_*")
        assert cube.segments.tolist() == [[0, 40], [40, 80], [80, 120]]

    def test_levels_are_variables(self, tmp_path):
        arrays = {f"t{level}": files.frames(seed=level) for level in (500, 850)}
        cube = opened(files.write(tmp_path / "a.h5", arrays))
        assert cube.names == ("t500", "t850")

    def test_years_with_times_are_one_series(self, tmp_path):
        arrays = {}
        for year in (2018, 2016, 2017):
            arrays[f"{year}/rain"] = files.frames(31, seed=year)
            dates = [f"{year}01{day:02d}" for day in range(1, 32)]
            arrays[f"{year}/time"] = np.array(dates, "S8")
        cube = opened(files.write(tmp_path / "a.h5", arrays))
        assert cube.period(0, 93) == "2016-01-01..2018-01-31"
        assert cube.segments.tolist() == [[0, 31], [31, 62], [62, 93]]
        np.testing.assert_array_equal(read(cube)[31:62, ..., 0], arrays["2017/rain"])

    def test_other_grids_are_refused(self, tmp_path):
        arrays = {"event_0": files.frames(), "event_1": files.frames(rows=9)}
        with pytest.raises(ValueError, match=r"'event_1' .40, 9, 12.; variables must"):
            opened(files.write(tmp_path / "a.h5", arrays))


class TestFrames:
    def test_numbered(self, tmp_path):
        every = files.frames(12)
        arrays = {f"frame_{i}": every[i] for i in range(12)}
        cube = opened(files.write(tmp_path / "a.h5", arrays))
        assert cube.segments.tolist() == [[0, 12]]
        np.testing.assert_array_equal(read(cube)[..., 0], every)
        np.testing.assert_array_equal(cube.frames.read(3, 7)[..., 0], every[3:7])

    @pytest.mark.parametrize("name", ["{}/{}/{}/{}00", "radar_{}{}{}{}00"])
    def test_dated(self, tmp_path, name):
        every = files.frames(6)
        hours = (0, 1, 2, 5, 6, 7)
        arrays = {
            name.format("2016", "09", "28", f"{hour:02d}"): every[i]
            for i, hour in enumerate(hours)
        }
        cube = opened(files.write(tmp_path / "a.h5", arrays))
        assert cube.period(0, 6) == "2016-09-28..2016-09-28 07:00"
        assert cube.segments.tolist() == [[0, 3], [3, 6]]

    def test_frames_of_events_are_refused(self, tmp_path):
        every = files.frames(5)
        arrays = {f"event_{e}/frame_{t}": every[t] for e in "12" for t in range(5)}
        with pytest.raises(ValueError, match=r"Write one array .time, row, column. or"):
            opened(files.write(tmp_path / "a.h5", arrays))
