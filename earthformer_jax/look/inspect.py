"""Reports on files of fields: their contents, problems, and how to train on them.

Files are opened by the readers, and every command that is proposed has been tried
(`look.advice`), so a report knows what a run would do without rules of its own.
"""

import dataclasses
import glob
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from earthformer_jax.data.cubes import checks
from earthformer_jax.data.readers import formats, series, times
from earthformer_jax.data.readers.layout import Wanted, numbers, words
from earthformer_jax.data.readers.series import Cube
from earthformer_jax.data.readers.values.missing import number_text
from earthformer_jax.data.readers.values.undeclared import occurs
from earthformer_jax.data.windows import HALF_DAY
from earthformer_jax.look import contents, layouts
from earthformer_jax.look.advice import (
    Command,
    Options,
    Outcome,
    Trial,
    choices_of,
    in_flags,
    message_of,
    outcomes,
    with_choice,
)

WIDTH = 12  # of the first column
# Larger fields are coarsened so that training takes minutes.
LARGE = 64
USUAL_LENGTHS = (10, 5)
MONTHS, HOURS = (12, 6), (12, 12)
CLIMATE_DAYS = 500  # 70 % of these, the training period, cover about a year
MOST_KINDS = 3  # of files in one folder
MOST_CHOICES = 3  # that depend on each other


@dataclasses.dataclass
class Report:
    """A report while it is written.

    Attributes:
        path: the file, folder or pattern.
        lines: the lines so far.
        problems: error messages.
        commands: training commands that work, the best first.
    """

    path: str
    lines: list[str] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)
    commands: list[Command] = dataclasses.field(default_factory=list)

    def add(self, name: str, text: str) -> None:
        """Adds a line."""
        self.lines.append(f"{name:<{WIDTH}}{text}".rstrip())

    def refuse(self, problem: str) -> None:
        """Adds a problem, once."""
        if problem not in self.problems:
            self.problems.append(problem)

    def __str__(self) -> str:
        """The report, without characters that a terminal would act on."""
        lines = [self.path, *self.lines]
        lines += [f"{'problem':<{WIDTH}}{problem}" for problem in self.problems]
        if not self.problems:
            lines.append(f"{'problems':<{WIDTH}}none found")
        for number, command in enumerate(self.commands):
            name = "or" if number else "train with"
            lines.append(f"{name:<{WIDTH}}{command}")
        return "\n".join(map(_printable, lines))


def inspect(
    path: str, trial: Trial, say: Callable[[str], None] = lambda text: None
) -> str:
    """A report on a file, a folder, or a pattern of files.

    Args:
        path: "sst.nc", "store.zarr", "data/*.h5", "frames.npy", or a folder of files,
            of SEVIR, ICAR-ENSO or TFDS.
        trial: makes the data set of a command from its flags, as a run does; only
            commands that it accepts are proposed.
        say: is told what is being done, since large files take a while.

    Returns:
        several lines of text: format, variables with units and range, grid, time,
        problems, what was assumed and the option that changes it, and commands that
        train on the data.

    Raises:
        FileNotFoundError: if `path` does not exist.
        ValueError: if it is a folder with unknown content.
    """
    report = Report(path)

    def told(flags: Sequence[str]):
        say(f"trying {' '.join(flags)}")
        return trial(flags)

    known = _recognised(path, report)
    if known is not None:
        for name, text in known.lines:
            report.add(name, text)
        report.problems += known.problems
        for commands in known.proposals:
            _propose(commands, told, report, always=True)
        return str(report)
    with warnings.catch_warnings():  # means of empty arrays, if all values are missing
        warnings.simplefilter("ignore", RuntimeWarning)
        for part in _patterns(path):
            files = formats.find(part)
            size = 1e-6 * sum(f.stat().st_size for f in files if f.is_file())
            say(f"reading {part} ({len(files)} files, {size:.3g} MB)")
            _inspect_series(part, files, told, report)
    return str(report)


def _recognised(path: str, report: Report) -> layouts.Known | None:
    expanded = Path(path).expanduser()
    if not expanded.exists():
        return None
    try:
        return layouts.recognise(expanded)
    except Exception as error:  # each library has its own for damaged files
        report.refuse(message_of(error))
        return None


def _patterns(path: str) -> list[str]:
    """The path; for a folder of files, a pattern for each kind that can be read."""
    folder = Path(path).expanduser()
    if not folder.is_dir() or formats.is_zarr(folder):
        return [path]
    kinds = Counter(entry.suffix for entry in folder.iterdir() if entry.suffix)
    found = []
    for suffix, _ in kinds.most_common():
        pattern = f"{glob.escape(str(folder))}/*{glob.escape(suffix)}"
        try:
            formats.kind_of(formats.find(pattern)[0])
        except (ValueError, OSError):
            continue
        found.append(pattern)
    return found[:MOST_KINDS] or [path]


@dataclasses.dataclass(frozen=True)
class Reading:
    """One way to read files.

    Attributes:
        options: of a command that reads them so.
        cube: the series.
        values: `[n, h, w, c]` of some frames; NaN where missing.
    """

    options: Options
    cube: Cube
    values: np.ndarray

    @property
    def variables(self) -> Iterator[tuple[str, np.ndarray]]:
        """Names and values `[n, h, w]`."""
        return zip(self.cube.names, np.moveaxis(self.values, -1, 0), strict=True)

    def ends(self) -> list[float | None]:
        """Values of each variable at the end of the type: they may mean "missing"."""
        codings = self.cube.codings or (None,) * len(self.cube.names)
        return [
            checks.type_end(values, coding)
            for (_, values), coding in zip(self.variables, codings, strict=True)
        ]


def _inspect_series(path: str, files: list[Path], trial: Trial, report: Report) -> None:
    """Adds what is in the files of one kind, and the commands that train on them."""
    if len(files) > 1:
        report.add("files", f"{len(files)}: {files[0].name} .. {files[-1].name}")
    readings = list(_readings(path, {}, report))
    if not readings:
        _describe_first(files, report)
        _propose([Command("custom", {"path": path})], trial, report)
        return
    _describe(readings[0], files, report)
    for reading in readings[1:]:
        options = [f"--config.data.{k}={v}" for k, v in reading.options.items()]
        time = contents.time_of(reading.cube)
        text = f"{reading.cube}, {time}, with {', '.join(options)}"
        report.add("or read as", text)
    working = []
    for reading in readings:
        if layouts.is_monthly_sst(path, reading.cube):
            _propose([Command("enso", {"path": path})], trial, report)
        for more in _end_options(reading):
            commands = _commands(path, reading, {**reading.options, **more})
            working += [(reading, x) for x in _propose(commands, trial, report)]
    for reading, command in working[:1]:
        for text in contents.assumptions(reading.cube, dict(command.options)):
            report.add("assumed", in_flags(text))


def _readings(path: str, options: Options, report: Report) -> Iterator[Reading]:
    """The series: several if the reader is undecided, with the choices that open it."""
    wanted = Wanted(
        variables=words(options.get("variables", "")),
        level=words(options.get("level", "")),
        axes=options.get("axes", ""),
        missing=numbers(options.get("missing", ""), "missing"),
    )
    try:
        cube = series.open_cube(path, wanted)
    except Exception as error:  # each library has its own for damaged files
        report.refuse(in_flags(message_of(error)))
        if len(options) < MOST_CHOICES:
            for choice in choices_of(error):
                yield from _readings(path, with_choice(options, choice), report)
        return
    try:
        values = checks.raw_sample(cube)
    except Exception as error:  # each library has its own for damaged files
        report.refuse(in_flags(message_of(error)))
        values = np.full((1, 1, 1, len(cube.names)), np.nan, np.float32)
    yield Reading(options, cube, values)


def _describe(reading: Reading, files: list[Path], report: Report) -> None:
    """Adds the contents of a series, and what its values cannot be used for."""
    for name, text in contents.of_cube(reading.cube, files, reading.values):
        report.add(name, in_flags(text))
    for (name, values), end in zip(reading.variables, reading.ends(), strict=True):
        reason = contents.useless(values)
        if reason:
            report.refuse(f"{name!r} is {reason}")
        if end is not None:
            share = 100 * np.mean(occurs(values, end))
            report.refuse(
                f"{share:.2g} % of {name!r} are {number_text(end)}, "
                f"the {'least' if end < 0 else 'largest'} number its type can hold: "
                "probably missing"
            )


def _describe_first(files: list[Path], report: Report) -> None:
    """Adds what the first of files that cannot be used together contains, if known."""
    for reading in _readings(str(files[0]), {}, report):
        _describe(reading, files[:1], report)
        return
    try:
        layout = formats.open_file(files[0], Wanted()).layout
    except Exception as error:  # each library has its own for damaged files
        report.refuse(in_flags(message_of(error)))
        return
    for name, text in contents.of_layout(layout):
        report.add(name, text)


def _end_options(reading: Reading) -> list[Options]:
    """Options with and without the ends of types as missing values."""
    codes = sorted({end for end in reading.ends() if end is not None})
    text = ",".join(map(number_text, codes))
    return [{"missing": text}, {}] if codes else [{}]


def _commands(path: str, reading: Reading, options: Options) -> list[Command]:
    """Commands with lengths that fit, of which the first that works is proposed."""
    cube = reading.cube
    _, height, width, _ = cube.frames.shape
    days = 0.0
    if cube.minutes is not None:
        days = float(cube.minutes[-1] - cube.minutes[0]) / times.DAY
    in_len, out_len = _lengths(cube)
    more = {**options, "in_len": str(in_len), "out_len": str(out_len)}
    if max(height, width) > LARGE:
        more["space_step"] = str(math.ceil(max(height, width) / LARGE))
    clock = {"calendar": "True"} if 0 < cube.cadence < HALF_DAY and days > 2 else {}
    found = [Command("custom", {"path": path, **more, **clock})]
    if days >= CLIMATE_DAYS and cube.latitude is not None:
        found.insert(0, Command("climate", {"path": path, **more}))
    if cube.format == ".npy" or "variables" in options:
        return found
    useful = ",".join(n for n, x in reading.variables if not contents.useless(x))
    named = [command.also({"variables": useful}) for command in found] if useful else []
    return named + found


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


def _propose(
    commands: Sequence[Command], trial: Trial, report: Report, always: bool = False
) -> list[Command]:
    """Adds the forms of the first command that work, and the reasons of a refusal.

    Args:
        commands: the preferred one first.
        trial: see `inspect`.
        report: gets commands and problems.
        always: report also the refusals of commands before the one that works.

    Returns:
        the commands that were added.
    """
    for command in commands:
        found = outcomes(command, trial)
        working = [outcome for outcome in found if outcome.dataset is not None]
        for outcome in found:
            if outcome.problem and (working or always or command is commands[-1]):
                report.refuse(outcome.problem)
        if working:
            return _add_working(working, report)
    return []


def _add_working(working: Sequence[Outcome], report: Report) -> list[Command]:
    report.add("data", working[0].description)
    new = [x.command for x in working if x.command not in report.commands]
    typable = [command for command in new if str(command).isprintable()]
    if len(typable) < len(new):
        report.refuse(
            "the path has characters that cannot be typed in a command; rename it"
        )
    report.commands += typable
    return typable


def _printable(line: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
