"""Opens the series that settings describe, with its variables in the order wanted."""

import dataclasses
import functools
from collections.abc import Iterable

from earthformer_jax.data.cubes import checks, trained, twin
from earthformer_jax.data.cubes.settings import Settings
from earthformer_jax.data.readers import series
from earthformer_jax.data.readers.layout import Wanted, nearest
from earthformer_jax.data.readers.series import Cube
from earthformer_jax.data.state import DataState
from earthformer_jax.data.windows import in_range


def arranged(cube: Cube, state: DataState) -> Cube:
    """The series with its variables in the order of the training.

    Raises:
        ValueError: if it does not fit what the model was trained on.
    """
    if set(cube.names) == set(state.layout.channels):
        cube = _chosen(cube, state.layout.channels)
    trained.check_layout(cube, state)
    return cube


def check_dates(settings: Settings, cube: Cube, *, fits_anew: bool) -> None:
    """Rejects a series without the dates that the settings need.

    Args:
        settings: checked settings.
        cube: the series.
        fits_anew: whether its climatology is still to be fitted, which then says that
            there are no dates.

    Raises:
        ValueError: if there are none.
    """
    for name in ("calendar", "anomalies"):
        dated = name == "calendar" or not fits_anew or cube.minutes is not None
        if getattr(settings, name) and dated and in_range(cube.minutes) is None:
            raise ValueError(
                f"{name}=True needs dates; {cube.label} has none. Set it to False"
            )


def open_series(settings: Settings) -> tuple[Cube, int]:
    """Opens the series that the settings describe, without reading its values.

    Returns:
        the series, and the number of targets, which are its first variables.

    Raises:
        FileNotFoundError: if `settings.path` does not exist.
        ValueError: if it cannot be used.
    """
    if not settings.path:
        return _twin(settings)
    wanted = Wanted(settings.variables, settings.level, settings.axes, settings.missing)
    make_cube = functools.partial(
        series.open_cube,
        settings.path,
        region=settings.region,
        space_step=settings.space_step,
        time_step=settings.time_step,
    )
    cube = make_cube(wanted)
    if settings.missing:
        declared = make_cube(dataclasses.replace(wanted, missing=()))
        notes = checks.check_missing(declared, settings.missing)
        cube = dataclasses.replace(cube, notes=cube.notes + notes)
    if not settings.only_declared:
        checks.check_values(cube)
    return _targets_first(cube, settings.targets)


def _twin(settings: Settings) -> tuple[Cube, int]:
    for name in ("level", "axes", "missing", "region"):
        if getattr(settings, name):
            raise ValueError(
                f"{name}={getattr(settings, name)} has no effect on the "
                "embedded climate twin; give `path`, or leave it empty"
            )
    for name in ("space_step", "time_step"):
        if getattr(settings, name) > 1:
            raise ValueError(
                f"{name}={getattr(settings, name)} has no effect on the "
                "embedded climate twin; give `path`, or leave it 1"
            )
    cube = twin.make(settings.twin_years, settings.seed)
    names = settings.variables or cube.names
    for name in names:
        if name not in cube.names:
            there = ", ".join(cube.names)
            raise ValueError(
                f"variables={name}: the embedded climate twin has no such "
                f"variable{nearest(name, cube.names)} (there are: {there})"
            )
    return _targets_first(_chosen(cube, names), settings.targets)


def _chosen(cube: Cube, names: Iterable[str]) -> Cube:
    """The same cube, in memory, with some of its channels in this order."""
    places = [cube.names.index(name) for name in names]
    if places == list(range(len(cube.names))):
        return cube
    return dataclasses.replace(
        cube,
        names=tuple(cube.names[i] for i in places),
        units=tuple(cube.units[i] for i in places),
        codings=tuple(cube.codings[i] for i in places) if cube.codings else (),
        frames=cube.frames.channels(places),
    )


def _targets_first(cube: Cube, targets: tuple[str, ...]) -> tuple[Cube, int]:
    """The cube with the targets as its first channels, and how many they are."""
    if not targets:
        return cube, len(cube.names)
    for name in targets:
        if name not in cube.names:
            raise _no_target(name, cube.names)
    rest = [name for name in cube.names if name not in targets]
    return _chosen(cube, [*targets, *rest]), len(targets)


def _no_target(name: str, names: Iterable[str]) -> ValueError:
    return ValueError(
        f"targets={name} is not one of the variables{nearest(name, names)} "
        f"(there are: {', '.join(names)})"
    )
