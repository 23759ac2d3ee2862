"""Every data set, from random files: no target is in a window of an earlier split.

A file is refused, or its splits share no frame, at no place. What is looked at are the
examples: their times and corners, or the pixels themselves.
"""

import datetime
import itertools
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from earthformer_jax import data
from earthformer_jax.data.mnist import digits, nbody_mnist
from tests import golden_files
from tests.data import sst_files

SPLITS = ("train", "validation", "test")
PAIRS = (("train", "validation"), ("train", "test"), ("validation", "test"))
QUICK = settings(max_examples=25, deadline=None)


def examples(dataset):
    """The examples of every split."""
    return {
        split: [source[i] for i in range(len(source))]
        for split in SPLITS
        for source in [getattr(dataset.data, split)]
    }


def assert_apart(windows, targets, meet=lambda a, b: a == b):
    """No target of a later split meets a frame of a window of an earlier one."""
    for before, split in PAIRS:
        for window, wanted in itertools.product(windows[before], targets[split]):
            for frame, target in itertools.product(window, wanted):
                assert not meet(frame, target), (before, split, frame, target)


def load_or_refuse(refusals, **config):
    """The data set; None if it is refused with one of these messages."""
    try:
        dataset = data.load(config, 0)
    except ValueError as error:
        assert any(text in str(error) for text in refusals), error
        return None
    assert list(dataset.data.spans) == list(SPLITS)  # the guard has seen it
    return dataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("apart")


# Latitudes and longitudes: the second overlaps the first, the third the fourth.
BOXES = [(30, 100, 34, 104), (33, 103, 37, 107), (0, 178, 4, 182), (2, -179, 6, -175)]
BOXES += [(40, 10, 44, 14), (np.nan,) * 4]


class TestRadar:
    @given(
        events=st.lists(
            st.tuples(
                st.integers(0, 40),  # five minutes
                st.integers(0, 5),  # of `BOXES`
                st.integers(0, 2),  # the file
                st.integers(-1, 4),  # the episode
            ),
            min_size=3,
            max_size=8,
        ),
        limits=st.tuples(st.integers(0, 40), st.integers(0, 40)),
        rule=st.sampled_from(["fraction", "date"]),
        stride=st.integers(1, 4),
    )
    @QUICK
    def test_overlapping_events(self, folder, events, limits, rule, stride):
        frames, start = 9, datetime.datetime(2019, 5, 1)
        rows = []
        for number, (when, box, file, episode) in enumerate(events):
            moment = start + datetime.timedelta(minutes=5 * when)
            corners = dict(
                zip(
                    ("llcrnrlat", "llcrnrlon", "urcrnrlat", "urcrnrlon"),
                    BOXES[box],
                    strict=True,
                )
            )
            rows.append(
                dict(
                    id=f"E{7 * number % 10}",
                    file_name=f"{file}.h5",
                    file_index=number,
                    img_type="vil",
                    time_utc=str(moment),
                    minute_offsets=":".join(str(5 * k - 20) for k in range(frames)),
                    episode_id=episode if episode >= 0 else np.nan,
                    pct_missing=0,
                    **corners,
                )
            )
        pd.DataFrame(rows).to_csv(folder / "CATALOG.csv", index=False)
        for file in range(3):
            with h5py.File(folder / f"{file}.h5", "w") as opened:
                opened["vil"] = np.zeros((len(events), 4, 4, frames), np.uint8)
        first, second = (start + datetime.timedelta(minutes=5 * x) for x in limits)
        dataset = load_or_refuse(
            ["split is empty", "contains no events", "cannot be divided"]
            + ["must come after"],
            name="sevir",
            path=str(folder),
            split=rule,
            train_until=str(first),
            validate_until=str(second),
            in_len=2,
            out_len=2,
            stride=stride,
        )
        if dataset is None:
            return
        made = examples(dataset)

        def places(example, frames):
            corners = tuple(float(x) for x in example["corners"])
            return [(int(t), corners) for t in example["time"][frames]]

        assert_apart(
            {s: [places(x, slice(None)) for x in made[s]] for s in SPLITS},
            {s: [places(x, slice(2, None)) for x in made[s]] for s in SPLITS},
            lambda a, b: a[0] == b[0] and overlap(a[1], b[1]),
        )


def overlap(a, b):
    if np.isnan([*a, *b]).any():
        return True
    rows = a[0] < b[2] and b[0] < a[2]
    shifts = (-360, 0, 360)
    return rows and any(a[1] < b[3] + x and b[1] + x < a[3] for x in shifts)


def test_events_of_the_radar_twin():
    dataset = data.load(
        dict(name="sevir", in_len=2, out_len=2, space_step=96)
        | {f"twin_{split}": 5 for split in SPLITS},
    )
    made = examples(dataset)
    times = {s: [x["time"] for x in made[s]] for s in SPLITS}
    assert_apart(times, times)


class TestCubes:
    @given(
        present=st.lists(st.integers(0, 79), min_size=50, max_size=80, unique=True),
        limits=st.tuples(st.integers(30, 50), st.integers(45, 65)),
        dates=st.sampled_from(["", "train_until", "validate_until", "hours", "days"]),
        lengths=st.tuples(st.integers(1, 4), st.integers(0, 3)),
        stride=st.integers(1, 5),
    )
    @QUICK
    def test_series_with_gaps(self, folder, present, limits, dates, lengths, stride):
        """Every six hours, so that a date has several frames."""
        hours = 6 * np.sort(np.array(present))
        time = np.datetime64("2001-01-01", "h") + hours
        rng = np.random.default_rng(0)
        xr.Dataset(
            {"x": (("time", "lat", "lon"), rng.random((len(hours), 2, 2)))},
            coords={
                "time": time.astype("datetime64[ns]"),
                "lat": [0, 1],
                "lon": [5, 6],
            },
        ).to_netcdf(folder / "gaps.nc")
        moments = [str(np.datetime64("2001-01-01", "h") + 6 * x) for x in limits]
        dates = {
            name: moment[: 10 if dates == "days" else 13] + ":00" * (dates != "days")
            for name, moment in zip(
                ("train_until", "validate_until"), moments, strict=True
            )
            if dates in (name, "hours", "days")
        }
        dataset = load_or_refuse(
            ["too short", "outside the data", "must come after", "leaves no frames"]
            + ["need at least", "needs at least", "nothing to learn"],
            name="custom",
            path=str(folder / "gaps.nc"),
            in_len=lengths[0],
            out_len=lengths[1],
            stride=stride,
            **dates,
        )
        if dataset is None:
            return
        made = examples(dataset)
        begin = lengths[0] if lengths[1] else 0
        assert_apart(
            {s: [x["time"] for x in made[s]] for s in SPLITS},
            {s: [x["time"][begin:] for x in made[s]] for s in SPLITS},
        )

    @given(
        sequences=st.lists(st.integers(0, 12), min_size=3, max_size=8),
        stride=st.integers(1, 3),
    )
    @QUICK
    def test_sequences_cut_from_one_record(self, folder, sequences, stride):
        """Each is eight frames of the record, from some frame on."""
        record = np.random.default_rng(1).random((20, 3, 3)).astype(np.float32)
        values = np.stack([record[first : first + 8] for first in sequences])
        np.save(folder / "sequences.npy", values)
        dataset = load_or_refuse(
            ["in an earlier split"],
            name="custom",
            path=str(folder / "sequences.npy"),
            axes="nthw",
            in_len=2,
            out_len=1,
            stride=stride,
        )
        if dataset is None:
            return
        made = examples(dataset)

        def pixels(frames):
            return [frame.tobytes() for frame in frames]

        targets = {s: [pixels(x["targets"]) for x in made[s]] for s in SPLITS}
        assert_apart(
            {
                s: [pixels(x["inputs"]) + pixels(x["targets"]) for x in made[s]]
                for s in SPLITS
            },
            targets,
        )


class TestMonths:
    def test_windows_say_which_months_they_have(self, folder):
        sst_files.write(sst_files.dataset(), folder / "sst.nc")
        dates = dict(train_until="2006-12", validate_until="2009-06")
        gridded = data.load(
            dict(name="enso", path=str(folder / "sst.nc"), in_len=6, out_len=5) | dates,
            0,
        )
        assert list(gridded.data.spans) == list(SPLITS)
        for split in SPLITS:
            spans, source = gridded.data.spans[split], getattr(gridded.data, split)
            assert len(spans) == len(source)
            months = [int(source[i]["start_month"]) for i in range(len(source))]
            np.testing.assert_array_equal(spans.target % 12, months)
            np.testing.assert_array_equal(spans.target - spans.first, 6)
            np.testing.assert_array_equal(spans.last - spans.target, 4)


class TestDigits:
    @given(
        numbers=st.lists(st.integers(0, 15), min_size=3, max_size=20),
        shift=st.integers(0, 3),
    )
    @QUICK
    def test_sequences_that_come_twice(self, folder, numbers, shift):
        """Some of them begin later in the same film."""
        film = np.random.default_rng(2).integers(0, 255, (16, 24, 4, 4), np.uint8)
        file = np.stack(
            [film[n, shift * (i % 2) :][:20] for i, n in enumerate(numbers)], axis=1
        )
        np.save(folder / "moving.npy", file)
        dataset = load_or_refuse(
            ["are also in an earlier split"],
            name="moving_mnist",
            path=str(folder / "moving.npy"),
            in_len=3,
            out_len=3,
        )
        if dataset is None:
            return
        made = examples(dataset)
        frames = {
            s: [
                {f.tobytes() for f in np.concatenate([x["inputs"], x["targets"]])}
                for x in made[s]
            ]
            for s in SPLITS
        }
        for before, split in PAIRS:
            for a, b in itertools.product(frames[before], frames[split]):
                assert not a & b

    @given(
        numbers=st.lists(
            st.lists(st.integers(0, 4), min_size=1), min_size=3, max_size=3
        )
    )
    @QUICK
    def test_draws_that_come_twice(self, folder, numbers):
        every = golden_files.group(
            golden_files.load("x_nbody_generator"), "official/replay"
        )
        for chosen, name in zip(numbers, nbody_mnist.FILES.values(), strict=True):
            drawn: dict[str, Any] = {
                key: np.repeat(every[key][:1], len(chosen), axis=0)
                for key in ("digit_indices", "init_velocity_magnitude")
                + ("affine_transforms_multipliers",)
            }
            drawn["init_velocity_angle"] = np.array(chosen)[:, None] + np.zeros(3)
            np.savez(folder / name, **drawn)
        some = digits.Digits(np.zeros((20, 28, 28), np.uint8), 20, "20 digits")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(nbody_mnist, "load_digits", lambda path: some)
            dataset = load_or_refuse(
                ["are also in an earlier split"],
                name="nbody_mnist",
                path=str(folder),
                digits="MNIST",
            )
        train, validation, test = (set(x) for x in numbers)
        if dataset is None:
            assert validation <= train or test <= train | validation
            return
        sizes = [len(getattr(dataset.data, split)) for split in SPLITS]
        assert sizes == [
            len(numbers[0]),
            sum(x not in train for x in numbers[1]),
            sum(x not in train | validation for x in numbers[2]),
        ]
