"""Checks of the values of a series: undeclared fill values and missing data."""

from collections.abc import Mapping, Sequence

import numpy as np

from earthformer_jax.data.cubes.settings import Settings
from earthformer_jax.data.cubes.statistics import Normalizer
from earthformer_jax.data.forecasting.fitting import is_stated
from earthformer_jax.data.readers import times
from earthformer_jax.data.readers.frames import ArrayFrames
from earthformer_jax.data.readers.layout import Undecided
from earthformer_jax.data.readers.series import Cube
from earthformer_jax.data.readers.values import undeclared
from earthformer_jax.data.readers.values.missing import Coding, number_text
from earthformer_jax.data.windows import in_range

# Read to find fill values, and to make sure that a value is none of them.
SAMPLED_FRAMES, MORE_FRAMES = 12, 500
SAMPLED_WINDOWS = 4
FAR = 10.0  # standard deviations of the training, for half of the values
TYPE_ENDS = (255.0, 65535.0)  # largest uint8 and uint16


def check_forecasts(settings: Settings) -> None:
    """Rejects settings of a model that does not forecast.

    Raises:
        ValueError: if it restores its inputs.
    """
    if settings.restores:
        raise ValueError(
            "out_len=0: this model restores its inputs, it cannot forecast"
        )


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


def sample(cube: Cube, count: int = SAMPLED_FRAMES) -> np.ndarray:
    """Up to `count` frames spread over a series, `[n, h, w, c]`; NaN where missing."""
    chosen = np.unique(np.linspace(0, cube.frames.shape[0] - 1, count).astype(int))
    return np.concatenate([cube.frames.read(int(i), int(i) + 1) for i in chosen])


def check_range(
    cube: Cube,
    normalizer: Normalizer,
    units: Sequence[str],
    first: np.ndarray,
    last: np.ndarray,
) -> tuple[str, ...]:
    """Notes on variables whose values are far from those of the training.

    Args:
        cube: the series, in the units of the training.
        normalizer: of the training.
        units: of the training.
        first: first frames of windows `[n]`.
        last: their last frames `[n]`; these ends of some windows are compared.

    Raises:
        ValueError: if there is one whose unit is known in the training, but not in the
            series, or that was converted: its unit is probably another one.
    """
    chosen = np.unique(np.linspace(0, len(first) - 1, SAMPLED_WINDOWS).astype(int))
    frames = np.unique(np.concatenate([first[chosen], last[chosen]]))
    x = np.concatenate(
        [
            normalizer.encode(
                cube.frames.read(int(i), int(i) + 1),
                None if cube.minutes is None else in_range(cube.minutes[i : i + 1]),
            )
            for i in frames
        ]
    )
    notes = []
    for c, name in enumerate(cube.names):
        known = x[..., c][np.isfinite(x[..., c])]
        middle = float(np.median(known)) if known.size else 0.0
        if abs(middle) <= FAR:
            continue
        text = (
            f"values of {name!r} are far from those of the training: half of them are "
            f"more than {abs(middle):.3g} standard deviations "
            f"{'above' if middle > 0 else 'below'} its mean"
        )
        if is_stated(units[c]) and not is_stated(cube.units[c]):
            raise ValueError(
                f"{cube.label}: {text}, which were in {units[c]}; give the variable "
                "the attribute units, so that it can be converted"
            )
        if cube.converted_from and cube.converted_from[c]:
            raise ValueError(
                f"{cube.label}: {text}, after they were converted from "
                f"{cube.converted_from[c]} to {units[c]}; correct the attribute units"
            )
        notes.append(text)
    return tuple(notes)


def check_values(cube: Cube) -> None:
    """Rejects values that look like undeclared fill values, in a sample of the frames.

    Raises:
        Undecided: if there are any; the message names the variable and the values.
        ValueError: if no value is in the valid range that the file declares.
    """
    _check(cube, raw_sample(cube))


def check_all_values(cube: Cube) -> None:
    """Rejects what `check_values` does in any frame of a series in memory.

    Raises:
        Undecided: if there are such values.
    """
    if not isinstance(cube.frames, ArrayFrames):
        return
    axes = (0, 1, 2)
    low, high = (f.reduce(raw_sample(cube), axes) for f in (np.fmin, np.fmax))
    margin = undeclared.FAR_CODE * (high - low)
    values = cube.frames.values
    beyond = np.fmin.reduce(values, axes) < low - margin
    beyond |= np.fmax.reduce(values, axes) > high + margin
    if beyond.any():  # otherwise no value can be far from those that were checked
        _check(cube, values)


def _check(cube: Cube, values: np.ndarray) -> None:
    for c, coding in enumerate(cube.codings):
        if coding.limited and not np.isfinite(values[..., c]).any():
            raise ValueError(
                f"{cube.label}: no value of {cube.names[c]!r} is in its valid range, "
                f"{coding.valid_text()}; correct or delete the attribute valid_range, "
                "valid_min or valid_max, or leave it out of `variables`"
            )
    try:
        undeclared.check_undeclared(values, cube.names, cube.codings)
    except Undecided as error:
        raise Undecided(f"{cube.label}: {error}", error.choices) from None


def check_missing(declared: Cube, missing: Sequence[float]) -> tuple[str, ...]:
    """Notes on values given as missing that occur nowhere.

    Args:
        declared: the series, in which only declared values are missing.
        missing: the values that the user gives.

    Raises:
        Undecided: if one is the stored number of a value, but no value.
    """
    for count in (SAMPLED_FRAMES, MORE_FRAMES):
        values = raw_sample(declared, count)
        missing = undeclared.unseen(values, declared.names, declared.codings, missing)
        if not missing:
            break
    every = len(values) == declared.frames.shape[0]
    where = "" if every else f" in {len(values)} frames read"
    names = " or ".join(map(repr, declared.names))
    return tuple(
        f"missing={number:g}: no value of {names} is that{where}" for number in missing
    )


def type_end(values: np.ndarray, coding: Coding | None = None) -> float | None:
    """The value of an end of the stored type, if it is taken: it may mean "missing".

    Args:
        values: of one variable, NaN where missing.
        coding: how they are stored; if unknown, whole numbers may be unsigned integers.

    Returns:
        the value of 255 as uint8, of -32768 as int16, ..., if it is the least or
        largest and occurs more than once; None otherwise.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        return None
    low, high = float(finite.min()), float(finite.max())
    ends = () if coding is None else coding.ends()
    if not ends and low >= 0 and np.all(finite == np.round(finite)):
        ends = TYPE_ENDS
    for extreme in (low, high):
        taken = low < high and np.sum(finite == extreme) > 1
        if taken and np.any(np.isclose(extreme, ends, rtol=1e-6, atol=0)):
            return float(number_text(extreme))
    return None


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
