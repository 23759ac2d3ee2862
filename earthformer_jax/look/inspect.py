"""Reports on files of fields: their contents, problems, and how to train on them."""

import contextlib
import dataclasses
import math
import shlex
import warnings
from pathlib import Path

import numpy as np

from earthformer_jax.data import splits
from earthformer_jax.data.cubes import checks
from earthformer_jax.data.readers import formats, series, times
from earthformer_jax.data.readers.layout import Layout, Undecided, Wanted
from earthformer_jax.data.readers.series import Cube
from earthformer_jax.data.windows import HALF_DAY
from earthformer_jax.look import layouts

WIDTH = 12  # of the first column
# Larger fields are coarsened so that training takes minutes.
LARGE = 64
USUAL_LENGTHS = (10, 5)
MONTHS, HOURS = (12, 6), (12, 12)
CLIMATE_DAYS = 500  # 70 % of these, the training period, cover about a year


@dataclasses.dataclass
class Report:
    """Lines of a report and the problems found while writing it.

    Attributes:
        lines: the lines so far.
        problems: error messages.
        options: flags that training needs.
    """

    lines: list[str] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)
    options: dict[str, str] = dataclasses.field(default_factory=dict)

    def add(self, name: str, text: str) -> None:
        """Adds a line."""
        self.lines.append(f"{name:<{WIDTH}}{text}".rstrip())


def inspect(path: str) -> str:
    """A report on a file, a folder, or a pattern of files.

    Args:
        path: "sst.nc", "store.zarr", "data/*.h5", "frames.npy", or a folder of SEVIR,
            ICAR-ENSO or TFDS.

    Returns:
        several lines of text: format, variables with units and range, grid, time,
        problems, and a command that trains on it.

    Raises:
        FileNotFoundError: if `path` does not exist.
        ValueError: if it is a folder with unknown content.
    """
    expanded = Path(path).expanduser()
    if expanded.exists():
        known = layouts.describe(expanded)
        if known is not None:
            return "\n".join([path, *known])
    report = Report([path])
    files = formats.find(path)
    if len(files) > 1:
        report.add("files", f"{len(files)}: {files[0].name} .. {files[-1].name}")
    with warnings.catch_warnings():  # means of empty arrays, if all values are missing
        warnings.simplefilter("ignore", RuntimeWarning)
        cube = _open(path, files, report)
        train = None
        if cube is not None:
            _describe(cube, files, report)
            train = _suggestion(path, cube, report)
    for problem in report.problems:
        report.add("problem", problem)
    if not report.problems:
        report.add("problems", "none found")
    if train is not None:
        report.add("train with", train)
    return "\n".join(report.lines)


def _open(path: str, files: list[Path], report: Report) -> Cube | None:
    """The series, or its first file, or None; adds the reasons to the report."""
    wanted = Wanted()
    for target in dict.fromkeys((path, str(files[0]))):
        try:
            try:
                return series.open_cube(target, wanted)
            except Undecided as error:
                level = error.choices[0]["level"]
                report.options["level"] = level
                report.problems.append(str(error))
                wanted = dataclasses.replace(wanted, level=(level,))
                return series.open_cube(target, wanted)
        except ValueError as error:
            if str(error) not in report.problems:
                report.problems.append(str(error))
    with contextlib.suppress(ValueError):
        _describe_layout(formats.open_file(files[0], wanted).layout, report)
    return None


def _describe(cube: Cube, files: list[Path], report: Report) -> None:
    """Adds the contents of a series."""
    frames, height, width, _ = cube.frames.shape
    report.add("format", _format(cube.format, files))
    try:
        values = checks.raw_sample(cube)
    except ValueError as error:
        report.problems.append(str(error))
        values = np.full((1, 1, 1, len(cube.names)), np.nan, np.float32)
    used = "every frame" if len(values) == frames else f"{len(values)} frames"
    report.add("variables", f"min, mean, max of {used}")
    longest = max(map(len, cube.names))
    for c, (name, units) in enumerate(zip(cube.names, cube.units, strict=True)):
        numbers = _range(values[..., c])
        report.add("", f"{name:<{longest}}  {numbers}  {units or '(no units)'}")
        _check_variable(name, values[..., c], report)
    grid = f"{height} x {width} cells"
    grid += series.grid_text(cube.latitude, cube.longitude) or ", no coordinates"
    report.add("grid", grid + _spacing(cube))
    report.add("time", _time(cube))
    pieces = len(cube.segments)
    if pieces > 1:
        lengths = cube.segments[:, 1] - cube.segments[:, 0]
        report.add("", f"{pieces} pieces of {lengths.min()} to {lengths.max()} frames")
    size = 4e-9 * float(np.prod(cube.frames.shape, dtype=np.float64))
    report.add("size", f"{size:.3g} GB as float32")
    for note in cube.notes:
        report.add("note", note)


def _describe_layout(layout: Layout, report: Report) -> None:
    """Adds what is known about a file whose series cannot be used."""
    height, width = layout.size
    report.add("format", layout.format)
    pairs = zip(layout.names, layout.units, strict=True)
    units = [f"{name} ({units or 'no units'})" for name, units in pairs]
    report.add("variables", ", ".join(units))
    grid = series.grid_text(layout.latitude, layout.longitude)
    report.add("grid", f"{height} x {width} cells{grid}")
    report.add("time", f"{layout.steps} steps")


def _check_variable(name: str, values: np.ndarray, report: Report) -> None:
    """Notes suspicious values of one variable."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        report.problems.append(f"all values of {name!r} are missing in the frames read")
        return
    if np.ptp(finite) == 0:
        report.problems.append(f"{name!r} is {finite[0]:g} everywhere")
        return
    code = checks.fill_code(values)
    end = checks.type_end(values)
    for value, why in (
        (code, "far from all other values"),
        (end if code is None else None, "the largest number its type can hold"),
    ):
        if value is None:
            continue
        share = 100 * np.mean(np.isclose(values, value, rtol=1e-6, atol=0))
        report.problems.append(
            f"{share:.2g} % of {name!r} are {value:g}, {why}: probably missing"
        )
        report.options["missing"] = f"{value:g}"


def _suggestion(path: str, cube: Cube, report: Report) -> str | None:
    """The training command, with lengths that fit; None if there are too few frames."""
    frames, height, width, _ = cube.frames.shape
    if layouts.is_monthly_sst(path, cube):
        return layouts.command("configs/enso.py:quick", path=path)
    days = 0.0
    if cube.minutes is not None:
        days = float(cube.minutes[-1] - cube.minutes[0]) / times.DAY
    seasons = days >= CLIMATE_DAYS and cube.latitude is not None
    options = {}
    if len(cube.names) > 1 or cube.format != ".npy":
        options["variables"] = ",".join(cube.names) if _plain(cube, report) else ""
    options |= report.options
    if max(height, width) > LARGE:
        options["space_step"] = str(math.ceil(max(height, width) / LARGE))
    if not seasons and 0 < cube.cadence < HALF_DAY and days > 2:
        options["calendar"] = "True"
    in_len, out_len = _lengths(cube)
    options |= {"in_len": str(in_len), "out_len": str(out_len)}
    try:
        periods = splits.split_periods(cube, splits.Dates(), in_len, out_len)
        splits.window_starts(cube, periods, in_len, out_len, 1)
    except ValueError as error:
        report.problems.append(str(error))
        return None
    flags = [
        f"--config.data.{name}={shlex.quote(value)}"
        for name, value in options.items()
        if value
    ]
    config = "climate" if seasons else "custom"
    return layouts.command(f"configs/{config}.py:quick", *flags, path=path)


def _plain(cube: Cube, report: Report) -> bool:
    """Whether the channels are named after variables."""
    return "level" not in report.options and cube.format in ("NetCDF", "Zarr", "HDF5")


def _lengths(cube: Cube) -> tuple[int, int]:
    """Input and target frames that suit the cadence and fit the longest piece."""
    in_len, out_len = USUAL_LENGTHS
    if times.is_monthly(cube.cadence):
        in_len, out_len = MONTHS
    elif cube.cadence == 60:
        in_len, out_len = HOURS
    frames = cube.frames.shape[0]
    longest = int(np.max(cube.segments[:, 1] - cube.segments[:, 0]))
    while out_len > 1 and (
        in_len + 6 * out_len > frames or 2 * (in_len + out_len) > 3 * longest
    ):
        in_len, out_len = max(1, in_len - 2), out_len - 1
    return in_len, out_len


def _range(values: np.ndarray) -> str:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return "all missing"
    mean = finite.mean(dtype=np.float64)
    missing = 100 * (1 - finite.size / values.size)
    return (
        f"{finite.min():.5g}  {mean:.5g}  {finite.max():.5g}  {missing:.2g} % missing"
    )


def _format(name: str, files: list[Path]) -> str:
    size = sum(f.stat().st_size for f in files if f.is_file())
    return f"{name}, {size / 1e6:.3g} MB" if size else name


def _spacing(cube: Cube) -> str:
    """ ", 1.9 x 1.88 degrees" of a regular grid."""
    if (
        cube.latitude is None
        or cube.longitude is None
        or cube.latitude.ndim != 1
        or min(cube.frames.shape[1:3]) < 2
    ):
        return ""
    steps = [np.abs(np.diff(x)) for x in (cube.latitude, cube.longitude)]
    even = all(np.ptp(s) <= 0.05 * np.median(s) for s in steps)
    text = " x ".join(f"{np.median(s):.3g}" for s in steps)
    return f", {text} degrees{'' if even else ' (uneven)'}"


def _time(cube: Cube) -> str:
    frames = cube.frames.shape[0]
    if cube.minutes is None:
        return f"{frames} frames, no dates"
    if frames == 1:
        return f"1 frame {times.text(cube.minutes[0])}"
    count = len(cube.segments) - 1
    gaps = f"{count or 'no'} gap{'' if count == 1 else 's'}"
    period = times.period_text(cube.minutes)
    return f"{frames} frames {period}, every {times.frame_name(cube.cadence)}, {gaps}"
