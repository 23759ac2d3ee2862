"""Divides events between the splits, so that no frame is trained on and scored.

Events overlap: two of them may show the same place at the same time. Splits by number
(`split_by_fraction`) therefore go by time and keep together what belongs together. Of
any splits, the windows that share time and place with an earlier split are left out
(`divide`). Where nothing would be left, as with a single radar whose events follow each
other closely, the windows themselves are divided by time, like those of a time series:
training windows end before a limit, and the targets of the others come after it.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from earthformer_jax.data import leaks
from earthformer_jax.data.leaks import Spans
from earthformer_jax.data.readers import times
from earthformer_jax.data.sevir.catalog import Dates, split_by_date
from earthformer_jax.data.sevir.events import Events
from earthformer_jax.data.sevir.files import EventFiles
from earthformer_jax.data.sevir.windows import Windows
from earthformer_jax.data.splits import SPLITS

SHARES = (0.7, 0.85)  # of the events up to the end of training and of validation
# Minutes of an event before and after its time, if the catalog has no offsets.
USUAL_OFFSETS = (-120, 120)

Cut = Callable[[EventFiles], Windows]


@dataclasses.dataclass(frozen=True)
class Division:
    """The events and windows of each split.

    Attributes:
        events: by split.
        which: bool `[n]` by split: the windows of these events to use.
        spans: of those windows.
        left_out: descriptions of the windows that are not used.
    """

    events: Mapping[str, EventFiles]
    which: Mapping[str, np.ndarray]
    spans: Mapping[str, Spans]
    left_out: list[str]


def divide(
    events: Events, dates: Dates, make: Callable[[Events], EventFiles], cut: Cut
) -> Division:
    """Divides events and their windows.

    Args:
        events: all events to use.
        dates: limits of the splits; without `train_until`, the events are divided by
            number.
        make: opens the files of some events.
        cut: cuts all windows from events.

    Raises:
        ValueError: if a split is empty.
    """
    splits = _split(events, dates)
    if splits is not None:
        parts = {split: make(part) for split, part in splits.items()}
        spans = {split: window_spans(part, cut(part)) for split, part in parts.items()}
        which = leaks.kept_apart(spans)
        if all(kept.any() for kept in which.values()):
            dropped = sum(int(np.sum(~kept)) for kept in which.values())
            text = f"{dropped} windows that share time and place with an earlier split"
            used = {split: spans[split].take(which[split]) for split in SPLITS}
            return Division(parts, which, used, [text] * bool(dropped))
    source = make(events)
    every = window_spans(source, cut(source))
    limits = _limits(every, dates)
    which = _between_limits(every, limits)
    for split, kept in which.items():
        if not kept.any():
            raise ValueError(
                f"the {split} split is empty: the {len(events)} events overlap in time "
                "and place (events without corners may be anywhere), and no window "
                "has its targets after one split and before the next. Move the dates, "
                "shorten `in_len` or `out_len`, lower `stride`, or use more events"
            )
    crossing = len(every) - sum(int(kept.sum()) for kept in which.values())
    ends = " and ".join(map(times.text, limits))
    text = f"{crossing} windows across {ends}, the limits in time of overlapping events"
    used = {split: every.take(kept) for split, kept in which.items()}
    return Division(dict.fromkeys(which, source), which, used, [text])


def divide_whole(
    events: Events, dates: Dates, make: Callable[[Events], EventFiles]
) -> tuple[dict[str, EventFiles], int]:
    """Divides whole events, which are then prepared as they are.

    Returns:
        the events of each split, and the number left out because they share time and
        place with an event of an earlier split.

    Raises:
        ValueError: if a split is empty.
    """
    splits = _split(events, dates)
    kept = {}
    if splits is not None:
        kept = leaks.kept_apart({s: event_spans(part) for s, part in splits.items()})
    if splits is None or not all(mask.any() for mask in kept.values()):
        raise ValueError(
            f"the {len(events)} events overlap in time and place, so they cannot be "
            "divided as whole events; read the files without preparing them, which "
            "divides their windows by time"
        )
    dropped = sum(int(np.sum(~mask)) for mask in kept.values())
    return {s: make(part.take(kept[s])) for s, part in splits.items()}, dropped


def split_by_fraction(events: Events) -> dict[str, Events]:
    """Events of each split: about 70 %, 15 % and 15 %, the earliest for training.

    Events of one episode, or that share time and place, are in the same split.

    Raises:
        ValueError: if there are fewer than three such groups.
    """
    group = groups(events)
    sizes = np.bincount(group)
    n = len(events)
    if len(sizes) < len(SPLITS):
        raise ValueError(
            f"split='fraction': {n} event{'s' * (n != 1)} cannot be "
            "divided into training, validation and test; at least 3 are needed that "
            "do not share time and place (see `max_missing`, `train_from` and "
            "`test_until`)"
        )
    ends = np.cumsum(sizes)
    first = np.searchsorted(ends, int(SHARES[0] * n), side="right")
    first = min(max(first, 1), len(sizes) - 2)
    second = np.searchsorted(ends, int(SHARES[1] * n), side="right")
    second = min(max(second, first + 1), len(sizes) - 1)
    number = (group >= first).astype(int) + (group >= second)
    return {split: events.take(number == k) for k, split in enumerate(SPLITS)}


def groups(events: Events) -> np.ndarray:
    """Numbers `[n]` of groups of events that belong together, by their earliest time.

    Events belong together if they have the same episode or share time and place, and if
    both belong together with a third.
    """
    spans = event_spans(events)
    order = np.argsort(spans.first, kind="stable")
    after = np.searchsorted(spans.first[order], spans.last[order], side="right")
    assert spans.boxes is not None  # `event_spans` gives them
    pairs = [np.zeros((0, 2), np.int64)]
    for place, (i, stop) in enumerate(zip(order, after, strict=True)):
        near = order[place + 1 : stop]
        meets = near[leaks.boxes_meet(spans.boxes[i], spans.boxes[near])]
        pairs.append(np.stack([np.full_like(meets, i), meets], axis=1))
    _, episode = np.unique(events.episode.astype(str), return_inverse=True)
    known = np.flatnonzero(events.episode != "")
    known = known[np.argsort(episode[known], kind="stable")]
    same = episode[known[1:]] == episode[known[:-1]]
    pairs.append(np.stack([known[:-1][same], known[1:][same]], axis=1))
    rows, columns = np.concatenate(pairs).T
    n = len(events)
    links = sparse.coo_array((np.ones(len(rows)), (rows, columns)), shape=(n, n))
    count, label = csgraph.connected_components(links, directed=False)
    earliest = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(earliest, label, spans.first)
    # Groups that begin together keep the order of their events.
    begins = np.full(count, n)
    np.minimum.at(begins, label, np.arange(n))
    rank = np.empty(count, np.int64)
    rank[np.lexsort([begins, earliest])] = np.arange(count)
    return rank[label]


def event_spans(events: Events) -> Spans:
    """When and where whole events are, in minutes; all frames count as targets."""
    limits = np.array(
        [(x[0], x[-1]) if len(x) else USUAL_OFFSETS for x in events.offsets], np.int64
    ).reshape(-1, 2)
    moment = events.time.astype("datetime64[m]").astype(np.int64)
    first = moment + limits[:, 0]
    return Spans(first, first, moment + limits[:, 1], boxes=events.corners)


def window_spans(events: EventFiles, windows: Windows) -> Spans:
    """When and where windows of events are, in minutes."""
    moments = [events.times(i).astype(np.int64) for i in range(len(events))]
    frames = [
        moments[event][windows.frames(i)] for i, event in enumerate(windows.of_event)
    ]
    table = np.array([(x[0], x[windows.in_len], x[-1]) for x in frames], np.int64)
    first, target, last = table.reshape(-1, 3).T
    return Spans(first, target, last, boxes=events.corners[windows.of_event])


def _split(events: Events, dates: Dates) -> dict[str, Events] | None:
    """Events of each split; None if they cannot be divided by number."""
    if dates.train_until is not None:
        return split_by_date(events, dates)
    if len(events) >= len(SPLITS) > len(np.unique(groups(events))):
        return None
    return split_by_fraction(events)


def _limits(spans: Spans, dates: Dates) -> tuple[int, int]:
    """Last minutes of training and of validation.

    Without dates, validation and test get 15 % of the windows each, or a few more.
    """
    if dates.train_until is not None and dates.validate_until is not None:
        given = dates.train_until, dates.validate_until
        first, second = (int(d.astype("datetime64[m]").astype(np.int64)) for d in given)
        return first, second
    least = max(1, int((SHARES[1] - SHARES[0]) * len(spans)))

    def before_the_last(windows: Spans) -> int:
        latest = np.sort(windows.target)[-least:]
        return int(latest[0]) - 1 if len(latest) else int(spans.first.min())

    second = before_the_last(spans)
    return before_the_last(spans.take(spans.last <= second)), second


def _between_limits(spans: Spans, limits: tuple[int, int]) -> dict[str, np.ndarray]:
    """Which windows end by the first limit, or have their targets after a limit."""
    first, second = limits
    return {
        "train": spans.last <= first,
        "validation": (spans.target > first) & (spans.last <= second),
        "test": spans.target > second,
    }
