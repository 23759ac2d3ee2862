"""Scores of space: at which scales a forecast is right, and which it contains.

Every function maps sums by name, arrays of one shape `[..., n]`, in float64, to an
array; the last axis is that of the windows (`statistics.fractions`) or of the
wavelengths (`statistics.spectra`). NaN where a score is undefined.

Reference:
    Roberts and Lean 2008, "Scale-selective verification of rainfall accumulations from
    high-resolution forecasts of convective events".
"""

from collections.abc import Mapping, Sequence

import numpy as np

from earthformer_jax.metrics.sums import ratio

Sums = Mapping[str, np.ndarray]
RESOLVED = 0.5  # share of the power of the targets


def fss(sums: Sums) -> np.ndarray:
    """Fractions skill score: 1 if all fractions are equal, 0 if none overlap.

    1 - sum (P - T)^2 / (sum P^2 + sum T^2), of all that was added: not a mean of the
    scores of single frames. NaN where neither forecasts nor targets have an event.

    Returns:
        like the sums.
    """
    return 1 - ratio(sums["difference"], sums["forecast"] + sums["target"])


def useful_fss(sums: Sums) -> np.ndarray:
    """The score that a useful forecast has at least, (1 + f) / 2.

    f is the share of cells with an event in the targets. Halfway between a forecast of
    events at random and a perfect one.

    Returns:
        like the sums, NaN where nothing was observed.
    """
    return (1 + ratio(sums["events"], sums["cells"])) / 2


def useful_scale(sums: Sums, windows: Sequence[float]) -> np.ndarray:
    """The smallest window at which the forecast is useful, `fss >= useful_fss`.

    Args:
        sums: `[..., n]` of fractions.
        windows: `[n]` widths, in any unit.

    Returns:
        `[..., 1]` in the unit of `windows`; NaN where no window is useful.
    """
    _check_axis(sums["difference"], "windows", windows)
    useful = fss(sums) >= useful_fss(sums)
    widths = np.where(useful, np.asarray(windows, np.float64), np.inf)
    least = widths.min(axis=-1, keepdims=True)
    return np.where(np.isfinite(least), least, np.nan)


def forecast_power(sums: Sums) -> np.ndarray:
    """Mean power spectrum of the forecasts, like the sums."""
    return ratio(sums["forecast"], sums["frames"])


def target_power(sums: Sums) -> np.ndarray:
    """Mean power spectrum of the targets, like the sums."""
    return ratio(sums["target"], sums["frames"])


def power_ratio(sums: Sums) -> np.ndarray:
    """Power of the forecasts per power of the targets, like the sums.

    1: scales are as strong as they should be, which does not say that they are right;
    less than 1: they are smoothed away.
    """
    return ratio(sums["forecast"], sums["target"])


def effective_resolution(sums: Sums, wavelengths: Sequence[float]) -> np.ndarray:
    """The wavelength below which less than half of the power of the targets is left.

    That is where, from long to short wavelengths, `power_ratio` first falls below 1/2,
    between two rings by linear interpolation of the ratio over the logarithm of the
    wavelength. If it is below 1/2 at the longest wavelength, it is that one: the
    resolution is no better than this. If it never is, it is the shortest: the
    resolution is at least as good as this. Rings where the targets have no power are
    left out.

    Args:
        sums: `[..., n]` of spectra.
        wavelengths: `[n]`, longest first, in any unit.

    Returns:
        `[..., 1]` in the unit of `wavelengths`; NaN where no target has any power.

    Raises:
        ValueError: if there are not as many wavelengths as rings, or not longest first.
    """
    _check_axis(sums["target"], "wavelengths", wavelengths)
    lengths = np.asarray(wavelengths, np.float64)
    if np.any(np.diff(lengths) >= 0):
        raise ValueError(f"wavelengths={wavelengths}: expected the longest first")
    ratios = power_ratio(sums)
    found = [_crossing(row, lengths) for row in ratios.reshape(-1, len(lengths))]
    return np.reshape(found, (*ratios.shape[:-1], 1))


def _crossing(ratios: np.ndarray, lengths: np.ndarray) -> float:
    """Where one row of ratios first falls below `RESOLVED`."""
    known = ~np.isnan(ratios)
    ratios, lengths = ratios[known], lengths[known]
    if not len(ratios):
        return float("nan")
    below = np.flatnonzero(ratios < RESOLVED)
    if not len(below):
        return float(lengths[-1])
    first = below[0]
    if first == 0:
        return float(lengths[0])
    pair = slice(first - 1, first + 1)
    # np.interp wants rising places.
    return float(np.exp(np.interp(-RESOLVED, -ratios[pair], np.log(lengths[pair]))))


def _check_axis(sums: np.ndarray, name: str, values: Sequence[float]) -> None:
    """
    Raises:
        ValueError: unless the last axis has as many positions as there are values.
    """
    if np.shape(sums)[-1:] != (len(values),):
        raise ValueError(
            f"{name}={tuple(values)}: expected one for each position of the last axis "
            f"of the sums, whose shape is {np.shape(sums)}"
        )
