"""What anomalies of observed temperature are departures from, and how gaps are filled.

Climatology, land and plausibility are estimated from the training months alone.
"""

import dataclasses

import numpy as np

from earthformer_jax.data.climatology import MONTHS, Climatology, fit_monthly
from earthformer_jax.data.readers import times
from earthformer_jax.data.readers.grid import NINO34, Grid, box_weights
from earthformer_jax.data.readers.values import units

# A cell observed in fewer of the training months than this is treated as land.
MIN_OBSERVED = 0.5
# A missing value is carried forward from an observation at most this many months old.
MAX_CARRY = 3
# Mean temperature of the Nino3.4 box, degrees Celsius: the observed months since 1850
# lie between 24 and 30.
BOX_CELSIUS = (20.0, 35.0)
BOX_ANOMALY = 10.0
KELVIN_OFFSET = 273.15
SAME_BASE = 0.1  # K; observations of one period differ by less, base periods by more
ANOMALIES = "anomalies"  # else the unit of the temperatures
OFFSETS = {units.CELSIUS: 0.0, units.KELVIN: KELVIN_OFFSET}


@dataclasses.dataclass(frozen=True, eq=False)
class Base:
    """What anomalies are departures from, learned from the training months.

    Attributes:
        kind: of the values in the file: `ANOMALIES`, or temperatures in "degC" or "K".
        climatology: their monthly means, `[12, h, w, 1]`.
        grid: the cells.
        nino_weights: weights `[h, w]` of the Nino3.4 area mean.
    """

    kind: str
    climatology: Climatology
    grid: Grid
    nino_weights: np.ndarray

    def anomalies(self, values: np.ndarray, minutes: np.ndarray) -> np.ndarray:
        """Anomalies `[m, h, w]` in K of values `[m, h, w, 1]` of this kind."""
        return (values - self.climatology.at(minutes))[..., 0]

    def values(self, anomalies: np.ndarray, minutes: np.ndarray, kind: str):
        """The inverse of `anomalies`, `[m, h, w, 1]` both, in the unit of a kind."""
        return anomalies + self.climatology.at(minutes) + self._offset(kind)

    def of_this_kind(self, values: np.ndarray, kind: str) -> np.ndarray:
        """Values `[m, h, w, 1]` of another kind as such of this one.

        Raises:
            ValueError: if one of them are anomalies, and the other not.
        """
        if kind == self.kind:
            return values
        if kind == ANOMALIES:
            raise ValueError(
                "the values are anomalies, but the model was trained on temperatures "
                f"in {self.kind}: the mean that was removed from them is unknown. Add "
                "their climatology to them, or use a file of temperatures"
            )
        if self.kind == ANOMALIES:
            raise ValueError(
                f"the values are temperatures in {kind}, but the model was trained on "
                "anomalies, whose climatology is not known. Subtract it from them (of "
                "the same base period), or use a file of such anomalies"
            )
        return (values - self._offset(kind)).astype(values.dtype)

    def _offset(self, kind: str) -> np.float32:
        """What is to be added to values of this kind to get those of another unit."""
        if kind == self.kind:
            return np.float32(0)
        return np.float32(OFFSETS[kind] - OFFSETS[self.kind])


def fit(
    values: np.ndarray, minutes: np.ndarray, latitude: np.ndarray, longitude: np.ndarray
) -> Base:
    """Learns from training months.

    Args:
        values: `[m, h, w, 1]`, NaN where missing.
        minutes: `[m]` since 1970.
        latitude: degrees north `[h]`, ascending.
        longitude: degrees east `[w]`, ascending.

    Raises:
        ValueError: if there is too little to learn from, or it is not a temperature.
    """
    climatology = fit_monthly(values, minutes)
    ocean = find_ocean(values[..., 0], climatology)
    grid = Grid(latitude, longitude, ocean)
    weights = box_weights(grid)
    kind = kind_of(values, weights)
    return Base(kind, climatology, grid, weights)


def check_base_period(
    base: Base, anomalies: np.ndarray, minutes: np.ndarray, train: tuple[int, int]
) -> None:
    """Rejects anomalies of another base period, if it can be told.

    From those of the training the climatology of its months was removed, so that their
    mean over these months is 0.

    Args:
        base: what is learned from the training months.
        anomalies: `[m, h, w]` in K, NaN where missing.
        minutes: `[m]` since 1970.
        train: first and last time of training.

    Raises:
        ValueError: if all training months are there, and their mean is not 0.
    """
    first, last = times.month_of(np.array(train))
    months = times.month_of(minutes)
    if base.kind != ANOMALIES or months[0] > first or months[-1] < last:
        return
    inside = (months >= first) & (months <= last)
    mean = box_mean(anomalies[inside], base.nino_weights)
    if abs(mean) > SAME_BASE:
        raise ValueError(
            f"over the training months these anomalies are {mean:+.2f} K from those "
            f"that the model was trained on, on average over {NINO34}: they depart "
            "from another base period. Use anomalies from the same one"
        )


def find_ocean(training: np.ndarray, climatology: Climatology) -> np.ndarray:
    """Cells `[h, w]` with enough values to learn from.

    A cell counts if at least half of its training months are observed, including every
    calendar month, and its values are not all the same.

    Args:
        training: `[m, h, w]`, NaN where missing.
        climatology: its monthly means.

    Raises:
        ValueError: if no cell counts, or a calendar month is never observed.
    """
    if len(training) < MONTHS:
        raise ValueError(
            f"the training period has {len(training)} months; the climatology needs "
            f"at least {MONTHS}"
        )
    observed = np.isfinite(training)
    if not observed.any():
        raise ValueError("every value of the training period is missing (NaN)")
    enough = observed.mean(axis=0) >= MIN_OBSERVED
    enough &= np.isfinite(climatology.coefficients[..., 0]).all(axis=0)
    largest = np.where(observed, training, -np.inf).max(axis=0)
    smallest = np.where(observed, training, np.inf).min(axis=0)
    ocean = enough & (largest > smallest)
    if not ocean.any():
        raise ValueError(
            "no cell has changing values in half of the training months and in every "
            "calendar month"
        )
    return ocean


def kind_of(values: np.ndarray, weights: np.ndarray) -> str:
    """The kind of values, inferred from their mean over the Nino3.4 box.

    Args:
        values: `[m, h, w, 1]`, NaN where missing.
        weights: `[h, w]` of the box.

    Returns:
        `ANOMALIES`, "degC" or "K".

    Raises:
        ValueError: if they are neither anomalies nor temperatures in K or degC.
    """
    mean = box_mean(values[..., 0], weights)
    if abs(mean) < BOX_ANOMALY:
        return ANOMALIES
    low, high = BOX_CELSIUS
    for unit, offset in OFFSETS.items():
        if low <= mean - offset <= high:
            return unit
    raise ValueError(
        f"the mean over {NINO34} is {mean:g}; expected an anomaly near 0 or a sea "
        f"surface temperature of {low:g} to {high:g} degC "
        f"({low + KELVIN_OFFSET:g} to {high + KELVIN_OFFSET:g} K)"
    )


def box_mean(values: np.ndarray, weights: np.ndarray) -> float:
    """The mean over time and a box, of the observed values.

    Args:
        values: `[m, h, w]`, NaN where missing.
        weights: `[h, w]` of the box.

    Raises:
        ValueError: if none is observed.
    """
    known = np.isfinite(values)
    if not known[:, weights > 0].any():
        raise ValueError(f"every value in {NINO34} is missing")
    total = np.tensordot(np.where(known, values, 0), weights, 2).sum()
    return float(total / np.tensordot(known, weights, 2).sum())


def fill_gaps(anomalies: np.ndarray, ocean: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Fills missing inputs from the past only, so that targets do not leak.

    The last observed anomaly is carried forward up to `MAX_CARRY` months; after that,
    and at the start, the anomaly is 0 (climatology). Land becomes 0.

    Args:
        anomalies: float32 `[m, h, w]` in K, NaN where missing.
        ocean: bool `[h, w]`.

    Returns:
        anomalies without NaN, the number carried forward and the number set to 0.
    """
    missing = ~np.isfinite(anomalies) & ocean
    months = np.arange(len(anomalies))[:, None, None]
    last_seen = np.maximum.accumulate(np.where(missing, -1, months), axis=0)
    carry = missing & (last_seen >= 0) & (months - last_seen <= MAX_CARRY)
    carried = np.take_along_axis(anomalies, np.maximum(last_seen, 0), axis=0)
    known = np.where(carry, carried, np.where(missing, 0, anomalies))
    filled = np.where(ocean, known, 0).astype(np.float32)
    return filled, int(carry.sum()), int(missing.sum() - carry.sum())
