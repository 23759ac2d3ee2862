"""Checks of the values of a series: undeclared fill values and missing data."""

from collections.abc import Mapping

import numpy as np

from earthformer_jax.data.readers import times
from earthformer_jax.data.readers.frames import ArrayFrames
from earthformer_jax.data.readers.layout import Undecided
from earthformer_jax.data.readers.series import Cube

SAMPLED_FRAMES = 12
# Numbers commonly used for "missing".
CODES = (-99.0, -99.9, -99.99, -999.0, -999.9, -999.99, -9999.0, -9999.9, -99999.0)
CODES += (-32767.0, -32768.0, -8888.0, -9e9, 999.0, 9999.0, 99999.0, 999999.0)
CODES += (-1e9, 1e9)
FAR = 0.5  # least distance to the nearest other value, as a share of their range
HUGE = 1e15  # larger numbers are not measurements
TYPE_ENDS = (255.0, 65535.0)  # largest uint8 and uint16


def raw_sample(cube: Cube, count: int = SAMPLED_FRAMES) -> np.ndarray:
    """Up to `count` frames spread over a series, as stored: cells not averaged.

    Returns:
        `[n, h, w, c]`, NaN where a value is known to be missing.
    """
    frames = cube.frames
    if not isinstance(frames, ArrayFrames):
        frames = frames.unthinned()
    chosen = np.unique(np.linspace(0, frames.shape[0] - 1, count).astype(int))
    return np.concatenate([frames.read(int(i), int(i) + 1) for i in chosen])


def check_values(cube: Cube) -> None:
    """Rejects values that look like undeclared fill values.

    Raises:
        Undecided: if there are any; the message names the variable and the value.
    """
    values = raw_sample(cube)
    for c, name in enumerate(cube.names):
        code = fill_code(values[..., c])
        if code is not None:
            share = np.mean(np.isclose(values[..., c], code, rtol=1e-6, atol=0))
            raise Undecided(
                f"{cube.label}: {100 * share:.2g} % of {name!r} are {code:g}, far from "
                "all other values; if they mark missing values, set "
                f"missing={code:g}",
                [{"missing": f"{code:g}"}],
            )


def fill_code(values: np.ndarray) -> float | None:
    """The extreme value that seems to mean "missing", if there is one.

    It is larger than 1e15, or a common code that occurs more than once and is far from
    all other values.
    """
    finite = values[np.isfinite(values)].astype(np.float64)
    if not finite.size:
        return None
    for extreme in (finite.min(), finite.max()):
        if abs(extreme) >= HUGE:
            return float(f"{extreme:.6g}")
        code = [x for x in CODES if np.isclose(extreme, x, rtol=1e-6, atol=0)]
        rest = finite[finite != extreme]
        if not code or not rest.size or finite.size - rest.size < 2:
            continue
        if np.abs(rest - extreme).min() > FAR * np.ptp(rest):
            return code[0]
    return None


def type_end(values: np.ndarray) -> float | None:
    """255 or 65535 if it is the largest of whole numbers: it may mean "missing"."""
    finite = values[np.isfinite(values)]
    if not finite.size or finite.min() < 0 or np.any(finite != np.round(finite)):
        return None
    top = float(finite.max())
    return top if top in TYPE_ENDS and finite.min() < top else None


def missing_share(
    cube: Cube, periods: Mapping[str, tuple[int, int]], counted: np.ndarray
) -> float | None:
    """Share of missing values among the cells observed in the training period.

    Args:
        cube: the data; values are counted only if they are in memory.
        periods: first frame and end of each split.
        counted: bool `[h, w, c]`, the cells observed in the training period.

    Returns:
        the share over all periods; None if values were not counted.

    Raises:
        ValueError: if a variable has no value in a whole period.
    """
    if not isinstance(cube.frames, ArrayFrames):
        return None
    missing = total = 0
    for split, (start, stop) in periods.items():
        known = np.zeros(counted.shape, np.int64)
        for i in range(start, stop):
            known += np.isfinite(cube.frames.values[i])
        for c, name in enumerate(cube.names):
            if not known[..., c][counted[..., c]].any():
                when = f"{stop - start} frames"
                if cube.minutes is not None:
                    when = times.period_text(cube.minutes[start:stop])
                raise ValueError(
                    f"{cube.label}: all values of {name!r} are missing in the {split} "
                    f"period ({when}); move the dates of the splits, or leave it out "
                    "of `variables`"
                )
        total += (stop - start) * int(counted.sum())
        missing += (stop - start) * int(counted.sum()) - int(known[counted].sum())
    return missing / total
