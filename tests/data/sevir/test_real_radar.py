"""Events in SEVIR's layout that were cut from real radar composites."""

import numpy as np
import pytest

from tests import golden_files
from tests.data.sevir.test_sevir import SPLITS, load


@pytest.fixture
def path():
    return str(golden_files.shared_file("data", "radar", "sevir_layout"))


def test_mrms(path):
    """12 events of 36 frames every 2 minutes: one window each, 12 with stride 1."""
    dataset = load(path=path, split="fraction")
    assert [len(getattr(dataset.data, split)) for split in SPLITS] == [8, 2, 2]
    assert "5 of 17 events with more missing pixels" in dataset.data.description
    assert dataset.data.display.frame == "2 min"
    example = dataset.data.test[1]
    assert example["inputs"].shape == (13, 384, 384, 1)
    assert example["observed"].all()
    assert 0.5 < example["inputs"].max() < 1
    assert np.datetime64(0, "m") + example["time"][0] == np.datetime64(
        "2019-06-10T00:00"
    )
    dense = load(path=path, split="fraction", stride=1, space_step=8)
    assert [len(getattr(dense.data, split)) for split in SPLITS] == [96, 24, 24]
    with pytest.raises(
        ValueError, match="the train split .* contains no events: the 12"
    ):
        load(path=path)


def test_knmi(path):
    """5 events of 49 frames every 5 minutes; the corners are out of range."""
    settings = dict(split="fraction", max_missing=15.0, test_until="2011-01-01")
    dataset = load(path=path, space_step=8, **settings)
    assert [len(getattr(dataset.data, split)) for split in SPLITS] == [9, 2, 2]
    assert (
        "2 windows across 2010-08-26 05:04 and 2010-08-26 06:04, the limits in "
        "time of overlapping events" in dataset.data.description
    )
    assert "5 events with missing pixels, which are masked" in dataset.data.description
    example = dataset.data.train[4]
    corner = (slice(None), slice(0, 3), slice(0, 3))
    assert not example["observed"][corner].any()
    assert np.all(example["targets"][corner] == 0)
    assert np.all(example["inputs"][corner] == 0)
    assert 0.8 < example["observed"].mean() < 1
    assert 0 < example["inputs"].max() < 0.75
    assert dataset.data.display.frame == "5 min"
