"""How forecasts are verified: statistics, and the scores that are made of them.

The sums of each statistic are kept with all their axes. A score says which of these are
added before it is made and which are averaged afterwards, and that is all in which the
tables of the literature differ: CSI pooled over lead times, or its mean over them.
"""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import numpy as np

from earthformer_jax.metrics.contract import State, Statistic, dims_of
from earthformer_jax.metrics.sums import ratio
from earthformer_jax.metrics.totals import Totals

# Which values of a score are better.
HIGHER, LOWER, NEAR_ONE, NEAR_ZERO = "higher", "lower", "near one", "near zero"

# Sums of one statistic by name, `[..., *dims]`: any leading axes, then its own.
Sums = Mapping[str, np.ndarray]
Batch = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Score:
    """A score made of the sums of one statistic.

    Attributes:
        statistic: key of the statistic in `Verification.statistics`.
        function: from sums by name, all of one shape, to an array of that shape, in
            float64 and NaN where the score is undefined.
        better: `HIGHER`, `LOWER`, `NEAR_ONE` or `NEAR_ZERO`.
        where: for some axes the positions that are used, as they are in `coords`; an
            axis of one position remains unless it is added or averaged.
        add: axes over which sums are added before the score is made.
        mean: axes over which the score is averaged, leaving out where it is undefined.
        units: of the values; "": none.
    """

    statistic: str
    function: Callable[[Sums], np.ndarray]
    better: str = HIGHER
    where: Mapping[str, tuple] = dataclasses.field(default_factory=dict)
    add: tuple[str, ...] = ()
    mean: tuple[str, ...] = ()
    units: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Verification:
    """Statistics of forecasts and the scores that are made of them.

    `init`, `update` and `merge` are those of a `Metric` and run inside jit; the batches
    they are given are those that `prepare` returns.

    Attributes:
        statistics: by name.
        scores: by name.
        extras: what statistics read of a batch that is not in it, by its key there:
            functions of the batch on the host, such as the climatology.

    Raises:
        ValueError: if a score names a statistic, an axis or a position that is not
            there.
    """

    statistics: Mapping[str, Statistic] = dataclasses.field(default_factory=dict)
    scores: Mapping[str, Score] = dataclasses.field(default_factory=dict)
    extras: Mapping[str, Callable[[Batch], np.ndarray]] = dataclasses.field(
        default_factory=dict
    )

    def __post_init__(self):
        for name, score in self.scores.items():
            _check(name, score, self.statistics)

    def prepare(self, batch: Batch) -> Batch:
        """A batch of the host with `extras`."""
        return {**batch, **{key: make(batch) for key, make in self.extras.items()}}

    def terms(self, forecast, batch) -> dict[str, dict[str, jax.Array]]:
        """What every example adds to each statistic, `[b, k, *sizes]` by name."""
        return {n: x(forecast, batch) for n, x in self.statistics.items()}

    def init(self) -> State:
        """State of no examples."""
        return {name: Totals(x).init() for name, x in self.statistics.items()}

    def update(self, state: State, forecast, batch) -> State:
        """Adds a batch; the arguments are those of `Metric.update`."""
        return {
            name: Totals(x).update(state[name], forecast, batch)
            for name, x in self.statistics.items()
        }

    def merge(self, a: State, b: State) -> State:
        """State of the examples of both."""
        return {n: Totals(x).merge(a[n], b[n]) for n, x in self.statistics.items()}

    def sums(self, state: State) -> dict[str, dict[str, np.ndarray]]:
        """By statistic, the totals by name `[k, *sizes]`, on the host."""
        return {n: Totals(x).values(state[n]) for n, x in self.statistics.items()}

    def dims(self, name: str, add: tuple[str, ...] = ()) -> tuple[str, ...]:
        """The axes of a score; `add` as for `value`."""
        score = self.scores[name]
        gone = {*score.add, *add, *score.mean}
        return tuple(
            x for x in dims_of(self.statistics[score.statistic]) if x not in gone
        )

    def coords(self, name: str, add: tuple[str, ...] = ()) -> dict[str, tuple]:
        """What positions along the axes of a score stand for; "lead" has none."""
        score = self.scores[name]
        coords = {**self.statistics[score.statistic].coords, **score.where}
        return {x: tuple(coords[x]) for x in self.dims(name, add) if x != "lead"}

    def value(
        self, name: str, sums: Mapping[str, Sums], add: tuple[str, ...] = ()
    ) -> np.ndarray:
        """A score.

        Args:
            name: of the score.
            sums: by statistic and name, `[..., k, *sizes]`; leading axes, such as
                samples of a bootstrap, are kept.
            add: axes over which sums are added first, besides those of the score:
                ("lead",) for all lead times together.

        Returns:
            float64 `[..., *dims(name, add)]`, NaN where the score is undefined.
        """
        score = self.scores[name]
        statistic = self.statistics[score.statistic]
        parts = {n: np.asarray(sums[score.statistic][n]) for n in statistic.names}
        dims = dims_of(statistic)
        for dim, chosen in score.where.items():
            places = [statistic.coords[dim].index(x) for x in chosen]
            axis = dims.index(dim) - len(dims)
            parts = {n: np.take(x, places, axis) for n, x in parts.items()}
        gone = tuple(dims.index(x) - len(dims) for x in {*score.add, *add})
        # Added axes stay with length 1 until the end, so that axes keep their numbers.
        parts = {n: x.sum(axis=gone, keepdims=True) for n, x in parts.items()}
        values = np.asarray(score.function(parts), np.float64)
        averaged = tuple(dims.index(x) - len(dims) for x in score.mean if x not in add)
        values = _mean_of_known(values, averaged)
        return np.squeeze(values, axis=(*gone, *averaged))


def _mean_of_known(values: np.ndarray, axis: tuple[int, ...]) -> np.ndarray:
    """Mean of the values that are not NaN; NaN if there are none. Axes stay."""
    if not axis:
        return values
    known = ~np.isnan(values)
    total = np.where(known, values, 0).sum(axis=axis, keepdims=True)
    return ratio(total, known.sum(axis=axis, keepdims=True))


def _check(name: str, score: Score, statistics: Mapping[str, Statistic]) -> None:
    statistic = statistics.get(score.statistic)
    if statistic is None:
        raise ValueError(
            f"the score {name!r} is of the statistic {score.statistic!r}: expected one "
            f"of {', '.join(statistics) or '(there are none)'}"
        )
    dims = dims_of(statistic)
    for dim in (*score.add, *score.mean, *score.where):
        if dim not in dims:
            raise ValueError(
                f"the score {name!r} has the axis {dim!r}: expected one of "
                f"{', '.join(dims)}"
            )
    if both := set(score.add) & set(score.mean):
        raise ValueError(
            f"the score {name!r} adds and averages over {', '.join(sorted(both))}: "
            "expected one of the two"
        )
    if "lead" in score.where:
        raise ValueError(
            f"the score {name!r} has where['lead']: lead times are chosen from its "
            "values"
        )
    for dim, chosen in score.where.items():
        missing = [x for x in chosen if x not in statistic.coords[dim]]
        if missing or not chosen:
            raise ValueError(
                f"the score {name!r} has where[{dim!r}]={chosen}: expected some of "
                f"{statistic.coords[dim]}"
            )
