"""What metrics and statistics offer: sums that add up, and scores made of them."""

from collections.abc import Mapping
from typing import Any, Protocol

import jax
import numpy as np

# Nested dictionaries of arrays.
State = dict[str, Any]
# Single numbers, and lists of one number per lead time.
Scores = dict[str, float | list[float]]


class Metric(Protocol):
    """A streaming score of forecasts.

    The state is a pytree of float32 and int32 arrays whose shapes depend on the metric
    alone, so `update` compiles once. `init`, `update` and `merge` are pure and run
    inside jit; `compute` runs on the host. States of disjoint sets of examples merge
    into the state of them all, in any order up to rounding, so scores add up over
    batches, devices and processes.
    """

    def init(self) -> State:
        """State of no examples."""
        ...

    def update(
        self, state: State, forecast: jax.Array, batch: Mapping[str, jax.Array]
    ) -> State:
        """Adds a batch.

        Args:
            state: of the examples so far.
            forecast: `[b, k, h, w, c]` in the units the model sees.
            batch: "targets" `[b, k, h, w, c]`; where they apply, "observed" (bool, like
                the targets) and "valid" (bool `[b]`, False for padding), which mark
                what is left out, and whatever else the metric reads.
        """
        ...

    def merge(self, a: State, b: State) -> State:
        """State of the examples of both."""
        ...

    def compute(self, state: State) -> Scores:
        """Scores by name; NaN where there are no examples to make them of."""
        ...


class Statistic(Protocol):
    """What each example adds to the sums that scores are made of.

    A frozen dataclass that is a pure function of a forecast and a batch, and runs
    inside jit. Its sums are plain additions, so that the total over any examples,
    blocks, batches, devices, processes or samples of a bootstrap is the sum of what
    they add (`metrics.totals`). Scores are made of totals (`metrics.scores`), and of
    nothing else: lead times, thresholds, variables and regions are axes of the sums.

    Attributes:
        names: of the sums.
        dtype: of all sums of one example: float32, or int32 for counts, which stay
            exact whatever is added.
        coords: the axes of a sum after those of the examples and of lead times, and
            what the positions along each stand for: numbers (thresholds, scales) or
            texts (variables, regions).
    """

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def dtype(self) -> Any: ...

    @property
    def coords(self) -> Mapping[str, tuple]: ...

    def __call__(
        self, forecast: jax.Array, batch: Mapping[str, jax.Array]
    ) -> dict[str, jax.Array]:
        """What every example adds.

        Args:
            forecast: `[b, k, h, w, c]` in the units the model sees.
            batch: as for `Metric.update`.

        Returns:
            for each of `names` an array `[b, k, *sizes]` of `dtype`, with one size for
            each of `coords`, in their order. Padding and what was not observed
            add 0.
        """
        ...


def dims_of(statistic: Statistic) -> tuple[str, ...]:
    """The axes of a total: "lead", as long as the forecast, and those of `coords`."""
    return ("lead", *statistic.coords)


def scalar_scores(metric: Metric) -> list[str]:
    """Names of the scores that are single numbers, sorted."""
    scores = metric.compute(metric.init())
    return sorted(name for name, value in scores.items() if is_scalar(value))


def is_scalar(score: float | list[float]) -> bool:
    """Whether a score is a single number and not one number per lead time."""
    return np.ndim(score) == 0
