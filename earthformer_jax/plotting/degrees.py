"""Axes in degrees: edges of cells, round values, and their labels."""

import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter


def edges(centres) -> np.ndarray:
    """`[n + 1]` cell edges of `[n]` centres; a single cell is one unit wide."""
    centres = np.asarray(centres, np.float64)
    if centres.size == 1:
        return centres[0] + np.array([-0.5, 0.5])
    middle = (centres[1:] + centres[:-1]) / 2
    return np.concatenate(
        [[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]]
    )


def label_degrees(axes, x: np.ndarray, y: np.ndarray) -> None:
    """Ticks of a map at round longitudes and latitudes, "120°W" and "30°N".

    Args:
        axes: of the map.
        x, y: edges of the cells in degrees east and north, in either direction.
    """
    axes.xaxis.set_major_locator(FixedLocator(round_values(x)))
    axes.yaxis.set_major_locator(FixedLocator(round_values(y)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: longitude_text(v)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: latitude_text(v)))
    axes.tick_params(labelsize=8, length=2.5)


def round_values(limits) -> list[float]:
    """Multiples of the largest round step that has three of them in the limits."""
    low, high = float(np.min(limits)), float(np.max(limits))
    found = np.array([])
    for step in (60, 30, 15, 10, 5, 2, 1, 0.5, 0.2, 0.1):
        found = np.arange(np.ceil(low / step) * step, high + 1e-6, step)
        if len(found) >= 3:
            break
    return found.tolist()


def longitude_text(value: float) -> str:
    """A longitude as "90°W", whatever turn it is given in."""
    value = round((value + 180) % 360 - 180, 6)
    if value in (0, -180):
        return f"{abs(value):g}°"
    return f"{abs(value):g}°{'E' if value > 0 else 'W'}"


def latitude_text(value: float) -> str:
    """A latitude as "30°N"."""
    value = round(value, 6)
    return "0°" if value == 0 else f"{abs(value):g}°{'N' if value > 0 else 'S'}"
