"""A small recharge oscillator that knows the ocean from sea surface temperature alone.

Its state is Nino3.4, the means of a few boxes that lead it, and the standardised memory
of Nino3.4 (`statistics.memory`) in place of the heat content; each has its own
equation, whose coefficients follow the season (`statistics.seasonal_fit`). The map that
belongs to a state is the regression of the field on it, so that the Nino3.4 of the map
is that of the state.

Reference:
    Jin 1997, "An equatorial ocean recharge paradigm for ENSO"; Zhao et al. 2024,
    "Explainable El Nino predictability from climate mode interactions", for the boxes.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from earthformer_jax.statistics.cross_validation import (
    ENOUGH_MONTHS,
    RIDGES,
    Candidate,
    Space,
    best_choices,
)
from earthformer_jax.statistics.memory import RATES, Months
from earthformer_jax.statistics.record import Record
from earthformer_jax.statistics.seasonal_fit import Choices, fit_model
from earthformer_jax.statistics.state_model import StateModel

# South, north in degrees north; west, east in degrees east.
BOXES: Mapping[str, tuple[float, float, float, float]] = {
    "north Pacific meridional mode": (10.0, 25.0, 200.0, 240.0),
    "south Pacific meridional mode": (-25.0, -15.0, 250.0, 270.0),
    "Nino1+2": (-10.0, 0.0, 270.0, 280.0),
    "western equatorial Pacific": (-5.0, 5.0, 182.0, 210.0),
}
MIN_COVERAGE = 0.5  # of a box by the ocean's cells; otherwise it is left out


def fit_oscillator(
    months: Sequence[Months],
    ocean_mask,
    latitude,
    longitude,
    index_weights,
    out_len: int,
    *,
    choices: Choices | None = None,
) -> StateModel:
    """Fits the oscillator.

    Args:
        months: training months, in the order of time, or of many climate model runs.
        ocean_mask: `[h, w]` bool.
        latitude: `[h]`, degrees north.
        longitude: `[w]`, degrees east.
        index_weights: `[h, w]` of the Nino3.4 index.
        out_len: months of the forecast.
        choices: ridge, rate and skipped months; None: by withheld blocks of the
            training (`statistics.cross_validation`).

    Raises:
        ValueError: if there are too few months.
    """
    record = Record.of(months, ocean_mask, latitude, index_weights)
    boxes = box_means(record.ocean_mask, latitude, longitude)
    projection = np.stack([record.index_weights, *boxes.values()], axis=1)
    if choices is None:
        choices = _cross_validated(record, projection, out_len)
    cells = record.cells[choices.skip :]

    def patterns(states: np.ndarray) -> np.ndarray:
        return np.linalg.lstsq(states, cells, rcond=None)[0]

    return fit_model(record, choices, projection, patterns, out_len)


def _cross_validated(record: Record, projection: np.ndarray, out_len: int) -> Choices:
    """Chooses ridge, rate and skipped months."""
    record = record.thinned(ENOUGH_MONTHS)
    means = record.cells @ projection
    cells = record.cells * record.root_area
    count = means.shape[1]

    def space(kept: np.ndarray) -> Space:
        memory = record.memory - record.memory[kept].mean(axis=0)
        states = np.append(means, memory, axis=1)
        gram, cross = states[kept].T @ states[kept], states[kept].T @ cells[kept]
        candidates = []
        for r, rate in enumerate(RATES):
            chosen = np.append(np.arange(count), count + r)
            maps = np.linalg.lstsq(
                gram[np.ix_(chosen, chosen)], cross[chosen], rcond=None
            )[0]
            candidates.append(
                Candidate(
                    Choices(ridge=0.0, rate=rate),
                    chosen,
                    maps @ (record.index_weights / record.root_area),
                    maps @ maps.T,
                    cells @ maps.T,
                )
            )
        return Space(states, candidates)

    return best_choices(record, space, Choices(max(RIDGES), 1.0), out_len)


def box_means(ocean_mask: np.ndarray, latitude, longitude) -> dict[str, np.ndarray]:
    """Weights `[cells]` of the ocean's area mean over each box that the grid covers."""
    latitude, longitude = np.asarray(latitude), np.asarray(longitude) % 360
    area = np.broadcast_to(np.cos(np.deg2rad(latitude))[:, None], ocean_mask.shape)
    area = area * ocean_mask
    cell = _spacing(latitude) * _spacing(longitude)
    found = {}
    for name, (south, north, west, east) in BOXES.items():
        rows = (latitude >= south) & (latitude <= north)
        columns = (longitude >= west) & (longitude <= east)
        weights = area * rows[:, None] * columns
        covered = np.count_nonzero(weights) * cell / ((north - south) * (east - west))
        if covered >= MIN_COVERAGE:
            found[name] = (weights / weights.sum())[ocean_mask]
    return found


def _spacing(coordinate: np.ndarray) -> float:
    """Degrees from cell to cell; 0 of a single cell."""
    return float(np.median(np.abs(np.diff(coordinate)))) if len(coordinate) > 1 else 0.0
