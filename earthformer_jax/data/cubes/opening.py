"""Opens the series that settings describe, with its variables in the order wanted."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from earthformer_jax.data.cubes import checks, twin
from earthformer_jax.data.cubes.settings import Settings
from earthformer_jax.data.forecasting.fitting import Misfit, fit, missing_line
from earthformer_jax.data.readers import series
from earthformer_jax.data.readers.layout import NoVariable, Wanted, nearest
from earthformer_jax.data.readers.series import Cube
from earthformer_jax.data.state import DataState
from earthformer_jax.data.windows import in_range


def open_fitting(
    settings: Settings, state: DataState, *, allow_other_grid: bool = False
) -> Cube:
    """Opens a series for a trained model: with its variables, units and cells.

    The settings say how the files of the training were cut and thinned. Files that were
    cut already, or that hold more than these, are used as well.

    Args:
        settings: checked settings.
        state: of the training.
        allow_other_grid: accept other rows and columns than the trained ones.

    Returns:
        the series, with a note on every change. Its variables are those of the
        training, the targets first.

    Raises:
        FileNotFoundError: if `settings.path` does not exist.
        ValueError: if it cannot be used, or does not fit; the message names all that
            differs.
    """
    if not settings.path:
        return fit(_twin(settings)[0], state.layout)
    errors: list[ValueError] = []
    for grid in ("part", "any") if allow_other_grid else ("part",):
        for candidate in _candidates(settings):
            averaged = grid == "part" and candidate.space_step > 1
            try:
                cube = _open_known(candidate, state)
                fitted = fit(cube, state.layout, grid="same" if averaged else grid)
            except ValueError as error:
                errors.append(error)
                continue
            _check_values(candidate, cube)
            return fitted
    misfits = [error for error in errors if isinstance(error, Misfit)]
    raise min(misfits, key=lambda e: len(e.differences), default=errors[0])


def _candidates(settings: Settings) -> list[Settings]:
    """The settings, and those for files that were cut or thinned before."""
    found = [
        dataclasses.replace(
            settings, region=region, space_step=space_step, time_step=time_step
        )
        for region, space_step in ((settings.region, settings.space_step), ((), 1))
        for time_step in (settings.time_step, 1)
    ]
    return list(dict.fromkeys(found))


def _open_known(settings: Settings, state: DataState) -> Cube:
    """The series with those variables of a training that it has, perhaps respelt.

    Raises:
        ValueError: if it cannot be used, or has none of the variables.
    """
    choices = [settings.variables]
    if not settings.variables and not settings.level:
        choices.append(state.layout.channels)  # others may be on another grid
    cubes: list[Cube] = []
    errors: list[ValueError] = []
    for names in choices:
        try:
            cube = _open_named(settings, names, state)
        except ValueError as error:
            errors.append(error)
            continue
        if set(settings.targets) <= set(cube.names):
            cube, _ = _targets_first(cube, settings.targets)
        if set(state.layout.channels) <= set(cube.names):
            return cube
        cubes.append(cube)
    if not cubes:
        raise errors[0]
    return cubes[0]


def _open_named(settings: Settings, names: Sequence[str], state: DataState) -> Cube:
    """The series with those of some variables that it has; () for all on a grid."""
    layout = state.layout
    standard_names = layout.standard_names or ("",) * len(layout.channels)
    known = list(zip(layout.channels, standard_names, strict=True))
    alike = {
        name: next((s for n, s in known if n == name or n.startswith(f"{name}_")), "")
        for name in names
    }
    train = state.minutes.get("train")
    there = list(names)
    while True:
        wanted = dataclasses.replace(
            _wanted(settings), variables=tuple(there), alike=alike
        )
        try:
            return _make_cube(settings, wanted, phase=train[0] if train else None)
        except NoVariable as error:
            if error.name not in there:
                raise
            there.remove(error.name)
            if not there:
                line = missing_line(layout.channels, error.there, names)
                raise Misfit(Path(settings.path).name, [line]) from None


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
    cube = _make_cube(settings, _wanted(settings))
    _check_values(settings, cube)
    if settings.missing:
        declared = dataclasses.replace(_wanted(settings), missing=())
        notes = checks.check_missing(_make_cube(settings, declared), settings.missing)
        cube = dataclasses.replace(cube, notes=cube.notes + notes)
    return _targets_first(cube, settings.targets)


def _wanted(settings: Settings) -> Wanted:
    return Wanted(settings.variables, settings.level, settings.axes, settings.missing)


def _make_cube(settings: Settings, wanted: Wanted, phase: int | None = None) -> Cube:
    return series.open_cube(
        settings.path,
        wanted,
        region=settings.region,
        space_step=settings.space_step,
        time_step=settings.time_step,
        phase=phase,
    )


def _check_values(settings: Settings, cube: Cube) -> None:
    if not settings.only_declared:
        checks.check_values(cube)


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
    places = [cube.names.index(name) for name in names]
    return _targets_first(cube.channels(places), settings.targets)


def _targets_first(cube: Cube, targets: tuple[str, ...]) -> tuple[Cube, int]:
    """The cube with the targets as its first channels, and how many they are."""
    if not targets:
        return cube, len(cube.names)
    for name in targets:
        if name not in cube.names:
            raise _no_target(name, cube.names)
    rest = [name for name in cube.names if name not in targets]
    places = [cube.names.index(name) for name in (*targets, *rest)]
    return cube.channels(places), len(targets)


def _no_target(name: str, names: Iterable[str]) -> ValueError:
    return ValueError(
        f"targets={name} is not one of the variables{nearest(name, names)} "
        f"(there are: {', '.join(names)})"
    )
