"""No frame that is scored has been trained on, whatever the data are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earthformer_jax.data import leaks
from earthformer_jax.data.dataset import Data
from earthformer_jax.data.leaks import Spans, kept_apart, shared

PLACES = np.array(
    [
        [30, 100, 34, 104],
        [33, 103, 37, 107],  # overlaps the first in a corner
        [34, 100, 38, 103],  # touches both, overlaps neither
        [30, -182, 34, -178],  # across the date line
        [30, 179, 34, 183],  # overlaps the one before
        [np.nan] * 4,  # anywhere
    ]
)
MEET = np.array(
    [
        [1, 1, 0, 0, 0, 1],
        [1, 1, 0, 0, 0, 1],
        [0, 0, 1, 0, 0, 1],
        [0, 0, 0, 1, 1, 1],
        [0, 0, 0, 1, 1, 1],
        [1, 1, 1, 1, 1, 1],
    ],
    bool,
)


@st.composite
def windows(draw):
    """Windows `[n]` of one to nine frames, and the numbers of their places."""
    count = draw(st.integers(1, 6))
    numbers = st.lists(st.integers(0, 20), min_size=count, max_size=count)
    small = st.lists(st.integers(0, 4), min_size=count, max_size=count)
    first = np.array(draw(numbers))
    target = first + np.array(draw(small))
    last = target + np.array(draw(small))
    places = st.lists(st.integers(0, 5), min_size=count, max_size=count)
    return Spans(first, target, last), np.array(draw(places))


def slowly(later, earlier, meet, inputs):
    """`shared`, window by window."""
    begin = later.first if inputs else later.target
    return [
        any(
            meet[i, j] and begin[i] <= earlier.last[j] and earlier.first[j] <= last
            for j in range(len(earlier))
        )
        for i, last in enumerate(later.last)
    ]


class TestShared:
    @given(windows(), windows(), st.booleans())
    @settings(max_examples=100, deadline=None)
    def test_is_what_it_says(self, one, other, inputs):
        (later, a), (earlier, b) = one, other
        everywhere = np.ones((len(a), len(b)), bool)
        found = shared(later, earlier, inputs=inputs)
        assert found.tolist() == slowly(later, earlier, everywhere, inputs)

        def boxed(spans, places):
            return Spans(spans.first, spans.target, spans.last, boxes=PLACES[places])

        found = shared(boxed(later, a), boxed(earlier, b), inputs=inputs)
        assert found.tolist() == slowly(later, earlier, MEET[a][:, b], inputs)

        def numbered(spans, places):
            return Spans(spans.first, spans.target, spans.last, place=places)

        found = shared(numbered(later, a), numbered(earlier, b), inputs=inputs)
        same = a[:, None] == b[None]
        assert found.tolist() == slowly(later, earlier, same, inputs)

    def test_none(self):
        nothing = leaks.of_starts(np.zeros(0, int), 2, 1)
        assert shared(leaks.of_starts(np.arange(3), 2, 1), nothing).tolist() == [0] * 3
        assert not len(shared(nothing, leaks.of_starts(np.arange(3), 2, 1)))

    @given(st.tuples(windows(), windows(), windows()))
    @settings(max_examples=50, deadline=None)
    def test_kept_apart(self, made):
        spans = {s: spans for s, (spans, _) in zip(leaks.ORDER, made, strict=True)}
        kept = kept_apart(spans)
        assert kept["train"].all()
        used = {split: spans[split].take(kept[split]) for split in leaks.ORDER}
        leaks.check_apart("any", used)
        for split, before in (("validation", "train"), ("test", "train")):
            assert not shared(used[split], used[before], inputs=True).any()


class TestGuard:
    def data(self, **starts):
        spans = {
            split: leaks.of_starts(np.array(x), 3, 2) for split, x in starts.items()
        }
        source = [{"inputs": np.zeros((3, 1, 1, 1)), "targets": np.zeros((2, 1, 1, 1))}]
        return Data(
            name="rain",
            description="",
            train=source,
            validation=source,
            test=source,
            loss_weights=np.ones((1, 1, 1, 1)),
            spans=spans,
        )

    def test_inputs_may_reach_back(self):
        self.data(train=[0, 1, 2], validation=[4], test=[6, 7])

    @pytest.mark.parametrize(
        ("starts", "message"),
        [
            (
                dict(train=[0, 1, 2], validation=[3], test=[6]),
                "'rain': 1 of 1 windows of the validation split have .* the train",
            ),
            (
                dict(train=[0], validation=[2], test=[0, 1, 4]),
                "2 of 3 windows of the test split have .* of the train split",
            ),
            (
                dict(train=[0], validation=[4], test=[4, 6]),
                "1 of 2 windows of the test split have .* of the validation split",
            ),
        ],
    )
    def test_targets_may_not(self, starts, message):
        with pytest.raises(ValueError, match=message):
            self.data(**starts)


class TestKeys:
    def test_frames_that_come_twice(self):
        keys = {
            "train": np.array([[1, 2], [3, 0]]),
            "validation": np.array([[4, 3], [5, 0]]),
            "test": np.array([[4, 0], [0, 5], [1, 9]]),
        }
        kept = leaks.unrepeated(keys)
        assert {split: x.tolist() for split, x in kept.items()} == {
            "train": [True, True],
            "validation": [False, True],
            "test": [True, False, False],  # 4 was left out of validation
        }

    def test_key(self):
        assert leaks.key(b"a") == leaks.key(b"a") != leaks.key(b"b")
        assert 0 < leaks.key(b"") < 2**63
