"""Reference forecasts of anomalies, fitted to training data alone.

The linear inverse model works in K on `[b, t, h, w, 1]` inputs and gives
`[b, k, h, w, 1]` float32, zero on land. It uses only the inputs and the calendar
month. `damping_factors` are for damped persistence.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from earthformer_jax.statistics.eof import EofBasis, fit_eofs
from earthformer_jax.statistics.linear_system import LinearSystem

LIM_MODES = 16


@dataclasses.dataclass(frozen=True, eq=False)
class LinearInverseModel:
    """A fitted linear inverse model.

    Attributes:
        basis: the EOFs whose amplitudes are its state.
        system: their dynamics.
        out_len: months of the forecast.
    """

    basis: EofBasis
    system: LinearSystem
    out_len: int

    def __call__(self, inputs, start_month) -> np.ndarray:
        """Forecast in K from inputs `[b, t, h, w, 1]` and start months `[b]`."""
        return system_forecast(
            inputs,
            start_month,
            system=self.system,
            basis=self.basis,
            out_len=self.out_len,
        )


def fit_lim(
    series_K,
    ocean_mask,
    first_month: int | Sequence[int],
    out_len: int,
    *,
    latitude,
    modes: int = LIM_MODES,
) -> LinearInverseModel:
    """Fits the linear inverse model.

    Args:
        series_K: `[months, h, w]` anomalies in K, or a list of such series; finite over
            the ocean.
        ocean_mask: `[h, w]` bool.
        first_month: calendar month of the first row, 0 is January; one for all series
            or one for each.
        out_len: months of the forecast.
        latitude: `[h]`, degrees north.
        modes: EOFs of the model (fewer if the data have fewer).

    Raises:
        ValueError: if the series are too short.
    """
    series = as_series(series_K)
    ocean_mask = np.asarray(ocean_mask, bool)
    basis = fit_eofs(series, ocean_mask, latitude)
    basis = basis.part(slice(modes))
    system = LinearSystem.fit(
        [basis.amplitudes(x) for x in series], first_month, lags=1, harmonics=0
    )
    return LinearInverseModel(basis, system, out_len)


def as_series(series_K) -> list[np.ndarray]:
    """One `[months, h, w]` array or several, as a list of arrays."""
    if isinstance(series_K, np.ndarray) and series_K.ndim == 3:
        return [series_K]
    series = [np.asarray(x) for x in series_K]
    if not series or any(x.ndim != 3 for x in series):
        shapes = [x.shape for x in series]
        raise ValueError(f"series need the axes (months, h, w); got {shapes}")
    return series


def damping_factors(series, ocean_mask, out_len: int) -> np.ndarray:
    """Regression of each cell on itself 1 to `out_len` months before.

    Args:
        series: list of anomalies `[months, h, w]`, NaN where missing.
        ocean_mask: `[h, w]` bool.
        out_len: longest lead.

    Returns:
        `[out_len, h, w]`, zero on land and where there is no variance.

    Raises:
        ValueError: if a series is not longer than `out_len`.
    """
    shortest = min(len(x) for x in series)
    if shortest <= out_len:
        raise ValueError(
            f"training series of {shortest} months cannot be verified at {out_len}"
        )
    factors = np.zeros((out_len, *ocean_mask.shape))
    for lead in range(1, out_len + 1):
        covariance = np.zeros(ocean_mask.shape, series[0].dtype)
        variance = np.zeros_like(covariance)
        for x in series:
            both = np.isfinite(x[lead:]) & np.isfinite(x[:-lead])
            later, now = (np.where(both, y, 0) for y in (x[lead:], x[:-lead]))
            pairs = np.maximum(both.sum(axis=0), 1).astype(x.dtype)
            covariance += np.sum(later * now, axis=0) / pairs * len(x)
            variance += np.sum(now**2, axis=0) / pairs * len(x)
        usable = ocean_mask & (variance > 0)
        factors[lead - 1, usable] = covariance[usable] / variance[usable]
    return factors


def system_forecast(
    inputs, start_month, *, system: LinearSystem, basis: EofBasis, out_len: int
) -> np.ndarray:
    """Forecast of a fitted system from the last months its state holds."""
    modes, size = system.observation.shape
    lags = size // modes
    inputs = np.asarray(inputs, np.float64)
    if inputs.shape[1] < lags:
        raise ValueError(f"{inputs.shape[1]} months are fewer than the {lags} lags")
    latest = basis.amplitudes(inputs[:, : -lags - 1 : -1, :, :, 0])
    state = latest.reshape(len(latest), size)
    states = system.forecast(state, start_month, out_len)
    return basis.fields(system.observe(states))[..., None].astype(np.float32)
