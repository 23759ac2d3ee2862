"""Months of one or more series as single arrays, which systems are fitted to."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from earthformer_jax.statistics.linear_system import MONTHS
from earthformer_jax.statistics.memory import Months


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """All months, one series after the other.

    Attributes:
        ocean_mask: `[h, w]` bool.
        cells: `[m, cells]` anomalies of the ocean in K.
        memory: `[m, r]` in K months, for each of `RATES`.
        index: `[m]` Nino3.4 in K.
        index_weights: `[cells]`, of that index.
        root_area: `[cells]`, square root of the cosine of latitude.
        calendar: `[m]`, calendar month of each.
        series: `[m]`, number of the series of each.
    """

    ocean_mask: np.ndarray
    cells: np.ndarray
    memory: np.ndarray
    index: np.ndarray
    index_weights: np.ndarray
    root_area: np.ndarray
    calendar: np.ndarray
    series: np.ndarray

    @classmethod
    def of(
        cls, months: Sequence[Months], ocean_mask, latitude, index_weights
    ) -> "Record":
        """Joins series.

        Args:
            months: the series, each of consecutive months.
            ocean_mask: `[h, w]` bool.
            latitude: `[h]`, degrees north.
            index_weights: `[h, w]` of the Nino3.4 index, zero outside the box.

        Raises:
            ValueError: if there are none, they are not finite over the ocean, or the
                index has no cell over the ocean or never changes.
        """
        ocean = np.asarray(ocean_mask, bool)
        months = [x for x in months if len(x.fields)]
        if not months:
            raise ValueError("there are no months to fit a system to")
        for x in months:
            if x.fields.shape[1:] != ocean.shape:
                raise ValueError(
                    f"fields of {x.fields.shape[1:]} cells do not match an ocean of "
                    f"{ocean.shape}"
                )
        cells = np.concatenate([x.fields[:, ocean] for x in months]).astype(np.float64)
        if not np.all(np.isfinite(cells)):
            raise ValueError("anomalies over the ocean must be finite")
        weights = np.asarray(index_weights, np.float64)[ocean]
        if not weights.any():
            raise ValueError("the index has no cell over the ocean")
        index = cells @ weights
        if np.ptp(index) == 0:
            raise ValueError(
                f"the Nino3.4 index is {index[0]:g} K in all {len(index)} months; a "
                "system cannot be fitted to an index that never changes"
            )
        area = np.cos(np.deg2rad(np.asarray(latitude, np.float64)))
        area = np.broadcast_to(area[:, None], ocean.shape)[ocean]
        lengths = [len(x.fields) for x in months]
        calendar = [x.first_month + np.arange(len(x.fields)) for x in months]
        return cls(
            ocean_mask=ocean,
            cells=cells,
            memory=np.concatenate([x.memory for x in months]).astype(np.float64),
            index=index,
            index_weights=weights,
            root_area=np.sqrt(area),
            calendar=np.concatenate(calendar) % MONTHS,
            series=np.repeat(np.arange(len(months)), lengths),
        )

    def __len__(self) -> int:
        return len(self.cells)

    def part(self, chosen: slice) -> "Record":
        """Some of the months, in their order."""
        by_month = ("cells", "memory", "index", "calendar", "series")
        return dataclasses.replace(
            self, **{name: getattr(self, name)[chosen] for name in by_month}
        )

    def pairs(self, kept) -> np.ndarray:
        """Indices of kept months whose next month is kept, and of the same series."""
        both = kept[:-1] & kept[1:] & (self.series[:-1] == self.series[1:])
        return np.flatnonzero(both)

    def thinned(self, months: int) -> "Record":
        """Every k-th series, so that about `months` are left of many more."""
        step = max(round(len(self) / months), 1)
        if self.series[-1] < step:
            return self
        kept = self.series % step == 0
        return dataclasses.replace(
            self,
            cells=self.cells[kept],
            memory=self.memory[kept],
            index=self.index[kept],
            calendar=self.calendar[kept],
            series=self.series[kept] // step,
        )
