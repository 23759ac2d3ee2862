"""What honest scores of El Niño forecasts are computed from, kept for every window.

These are the indices of the Niño regions, the squared error of the map, and for maps
of skill the sums over windows in every cell. All are gathered in the pass over the
test windows that the streamed scores make anyway.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from earthformer_jax.data.dataset import Data
from earthformer_jax.data.enso.examples import MIN_OBSERVED
from earthformer_jax.data.readers.grid import (
    NINO3,
    NINO4,
    NINO12,
    NINO34,
    Grid,
    box_weights,
)
from earthformer_jax.data.source import Batch
from earthformer_jax.data.task import ForecastNino
from earthformer_jax.metrics.batches import broadcast_weights, valid_of
from earthformer_jax.metrics.enso import EPSILON, NinoSkill, three_month_mean

MAP_LEADS = (3, 6, 9, 12, 18, 24)


@dataclasses.dataclass(frozen=True, eq=False)
class Windows:
    """Forecasts and truth of all test windows.

    Attributes:
        names: of the forecasts, `f` of them.
        regions: names of the Niño regions, `r` of them; the first is Nino3.4.
        start_month: int `[n]`, calendar month of the first lead, January = 0.
        forecast: `[f, n, k, r]` monthly indices in K.
        observed: `[n, k, r]` in K, NaN where unknown.
        observed_three_month: `[n, k - 2]` Niño3.4 in K, means of a month and the next
            two.
        squared_error: `[f, n]` mean over the map and all leads in the units of the
            score "mse"; NaN where nothing was observed.
        map_leads: int `[l]`, the leads of the maps, from 1.
        map_correlation: `[f, l, h, w]` correlation over the windows in each cell.
        map_error: `[f, l, h, w]` mean squared error in K^2.
    """

    names: tuple[str, ...]
    regions: tuple[str, ...]
    start_month: np.ndarray
    forecast: np.ndarray
    observed: np.ndarray
    observed_three_month: np.ndarray
    squared_error: np.ndarray
    map_leads: np.ndarray
    map_correlation: np.ndarray
    map_error: np.ndarray

    def three_month(self) -> np.ndarray:
        """`[f, n, k - 2]` Niño3.4 of the forecasts, three-month means."""
        return three_month_mean(self.forecast[..., 0])


def region_weights(task: ForecastNino, data: Data) -> dict[str, np.ndarray]:
    """Weights `[h, w]` of the Niño regions that the grid covers, by name.

    Those of Nino3.4 are the task's own; the others are area means of the ocean.
    """
    found = {NINO34.name: np.asarray(task.nino_weights, np.float64)}
    grid = Grid(data.coordinates["latitude"], data.coordinates["longitude"], task.ocean)
    for box in (NINO12, NINO3, NINO4):
        try:
            found[box.name] = box_weights(grid, box)
        except ValueError:  # the grid covers too little of this box
            continue
    return found


class Gatherer:
    """Gathers `Windows` batch by batch; `add` is a `scoring.Watch`."""

    def __init__(self, task: ForecastNino, data: Data):
        self._regions = region_weights(task, data)
        weights = np.stack(list(self._regions.values()))
        self._cells = np.flatnonzero(weights.any(axis=0))
        self._weights = weights.reshape(len(weights), -1)[:, self._cells]
        self._decode = data.normalization.decode
        self._ocean, self._sea = task.ocean, np.flatnonzero(task.ocean)
        metric = task.metric
        assert isinstance(metric, NinoSkill)
        self._leads = np.array([k for k in MAP_LEADS if k <= metric.out_len])
        self._unit = metric.scale**2 if metric.mse_in_kelvin else 1.0
        shape = (metric.out_len, *task.ocean.shape, 1)
        given = 1 if metric.pixel_weights is None else metric.pixel_weights
        weights = broadcast_weights(given, shape)
        self._share = (weights / weights.sum()).astype(np.float32)
        self._truth: list[dict[str, np.ndarray]] = []
        self._index: dict[str, list[np.ndarray]] = {}
        self._squared: dict[str, list[np.ndarray]] = {}
        self._sums: dict[str, dict[str, np.ndarray]] = {}

    def add(self, batch: Batch, fields: Mapping[str, np.ndarray]) -> None:
        """Adds a batch and its forecasts `[b, k, h, w, 1]` in model units."""
        valid = np.asarray(valid_of(batch))
        targets = np.asarray(batch["targets"])
        observed = batch.get("observed")
        observed = None if observed is None else np.asarray(observed)
        truth = self._means(targets, observed)
        if "nino34" in batch:
            truth[..., 0] = batch["nino34"]
        three_month = batch.get("nino34_three_month")
        if three_month is None:
            three_month = three_month_mean(truth[..., 0])
        self._truth.append(
            {
                "start_month": np.asarray(batch["start_month"])[valid],
                "observed": truth[valid],
                "three_month": np.asarray(three_month, np.float64)[valid],
            }
        )
        true_cells, known = self._map_cells(targets, valid, observed)
        for name, field in fields.items():
            self._index.setdefault(name, []).append(self._means(field)[valid])
            errors = self._unit * self._errors(field, targets, observed)
            self._squared.setdefault(name, []).append(errors[valid])
            cells, _ = self._map_cells(field, valid)
            sums = _cell_sums(cells, true_cells, known)
            before = self._sums.get(name)
            if before is not None:
                sums = {key: before[key] + value for key, value in sums.items()}
            self._sums[name] = sums

    def windows(self) -> Windows:
        """All that was added.

        Raises:
            ValueError: if nothing was added.
        """
        if not self._truth:
            raise ValueError("there are no test windows to score")
        names = tuple(self._index)
        truth = {
            key: np.concatenate([part[key] for part in self._truth])
            for key in self._truth[0]
        }
        maps = {name: self._maps(self._sums[name]) for name in names}
        return Windows(
            names=names,
            regions=tuple(self._regions),
            start_month=truth["start_month"].astype(int),
            forecast=np.stack([np.concatenate(self._index[name]) for name in names]),
            observed=truth["observed"],
            observed_three_month=truth["three_month"],
            squared_error=np.stack(
                [np.concatenate(self._squared[name]) for name in names]
            ),
            map_leads=self._leads,
            map_correlation=np.stack([maps[name][0] for name in names]),
            map_error=np.stack([maps[name][1] for name in names]),
        )

    def _errors(self, field, targets, observed) -> np.ndarray:
        """Mean squared error `[b]` of examples in model units, as the metric's.

        NaN where nothing that counts was observed.
        """
        share = np.broadcast_to(self._share, targets.shape)
        if observed is not None:
            share = np.where(observed, share, 0)
        counts = share > 0
        error = np.subtract(field, targets, dtype=np.float32)
        error *= error
        np.copyto(error, 0, where=~counts)
        total = np.einsum("bkhwc,bkhwc->b", error, share, dtype=np.float64)
        if observed is None:
            return total
        seen = np.einsum("bkhwc->b", share, dtype=np.float64)
        return total / np.where(seen > 0, seen, np.nan)

    def _means(self, field, observed=None) -> np.ndarray:
        """Area means `[b, k, r]` in K of fields in model units, NaN where unknown."""

        def cells(x):
            return np.take(x.reshape(*x.shape[:2], -1), self._cells, axis=-1)

        kelvin = self._decode(cells(np.asarray(field)).astype(np.float64))
        if observed is None:
            return kelvin @ self._weights.T
        seen = cells(observed)
        share = seen @ self._weights.T
        known = share >= MIN_OBSERVED
        total = np.where(seen, kelvin, 0) @ self._weights.T
        return np.where(known, total / np.where(known, share, 1), np.nan)

    def _map_cells(self, field, valid, observed=None):
        """Ocean cells `[b, l, cells]` in K at the leads of the maps; those observed."""

        def chosen(x):
            months = x[np.ix_(valid, self._leads - 1)][..., 0]
            return np.take(months.reshape(*months.shape[:2], -1), self._sea, axis=-1)

        cells = np.asarray(self._decode(chosen(np.asarray(field))), np.float32)
        return cells, None if observed is None else chosen(observed)

    def _maps(self, sums: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Correlation and mean squared error `[l, h, w]`, NaN on land."""
        n = np.where(sums["n"] > 0, sums["n"], np.nan)
        pp = np.maximum(sums["pp"] - sums["p"] ** 2 / n, 0)
        tt = np.maximum(sums["tt"] - sums["t"] ** 2 / n, 0)
        pt = sums["pt"] - sums["p"] * sums["t"] / n
        error = (sums["pp"] + sums["tt"] - 2 * sums["pt"]) / n
        shape = (len(self._leads), *self._ocean.shape)
        maps = np.full((2, *shape), np.nan)
        maps[0][:, self._ocean] = pt / (np.sqrt(pp * tt) + EPSILON)
        maps[1][:, self._ocean] = np.maximum(error, 0)
        return maps[0], maps[1]


def _cell_sums(p, t, known) -> dict[str, np.ndarray]:
    """Sums over a batch `[l, cells]`, of anomalies: float32 is enough for a batch."""
    if known is None:
        n = np.full(p.shape[1:], float(len(p)))
    else:
        n = known.sum(axis=0).astype(np.float64)
        p, t = np.where(known, p, 0), np.where(known, t, 0)
    products = {"pp": (p, p), "tt": (t, t), "pt": (p, t)}
    return {
        "n": n,
        "p": p.sum(axis=0).astype(np.float64),
        "t": t.sum(axis=0).astype(np.float64),
    } | {
        key: np.einsum("blc,blc->lc", *pair).astype(np.float64)
        for key, pair in products.items()
    }
