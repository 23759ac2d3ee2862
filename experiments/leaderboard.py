r"""Tables of evaluated models, with intervals, as Markdown for documentation.

    python experiments/leaderboard.py runs/* > table.md
    python experiments/leaderboard.py runs/a runs/b/scores-later.json comparison
    python experiments/leaderboard.py runs/sevir-* --scores=csi_m,hss_74,mse

Reads results files: scores.json of workdirs, and comparison.json of --mode=compare.
Results on the same test examples are rows of one table, the best by the first score
first. A dagger marks the strongest simple reference; the last column is the paired
difference to it in the first score, and a model that is not told apart from it has it
in brackets. References that several files share come once.
"""

import argparse
import dataclasses
import json
import math
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from markdown_table import markdown

MODEL = "model"
NOT_SIMPLE = (MODEL, "ceiling")
HIGHER, LOWER, NEAR_ONE = "higher", "lower", "near one"
# Columns unless --scores names others: those that a table has.
DEFAULT = ("correlation_mean", "c_nino34_m", "csi_m", "ssim", "acc", "mse", "mae")
# Of scores whose direction the file does not say.
BETTER: dict[str, str] = dict.fromkeys(
    (
        *("correlation_mean", "c_nino34_m", "c_nino34_wm"),
        *("csi_m", "pod_m", "sucr_m", "ssim", "acc"),
    ),
    HIGHER,
)
MARK = "†"


class ResultsError(Exception):
    """Results that cannot be used, with the reason."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One forecast of a table.

    Attributes:
        name: in the first column.
        simple: whether it is a reference that stands for a simple forecast.
        values: by score.
        intervals: by score, (low, high).
        differences: by reference and score, (difference, low, high).
        file: where it is from.
    """

    name: str
    simple: bool
    values: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    differences: Mapping[str, Mapping[str, tuple[float, float, float]]]
    file: pathlib.Path


@dataclasses.dataclass
class Group:
    """Results on the same test examples.

    Attributes:
        about: what the data are, one line.
        intervals: what the intervals are, one line; "" if there are none.
        better: direction of scores, by name.
        entries: by name.
    """

    about: str
    intervals: str
    better: dict[str, str]
    entries: dict[str, Entry] = dataclasses.field(default_factory=dict)


def find(path: pathlib.Path) -> pathlib.Path:
    """The results file of a workdir or of a comparison.

    Raises:
        ResultsError: if there is none.
    """
    if path.is_file():
        return path
    if not path.exists():
        raise ResultsError(f"{path} does not exist; give workdirs or results files")
    for name in ("scores.json", "comparison.json"):
        if (path / name).is_file():
            return path / name
    raise ResultsError(
        f"{path} has no scores.json; evaluate it: python -m earthformer_jax.main "
        f"--workdir={path} --mode=evaluate"
    )


def read(files: Sequence[pathlib.Path]) -> list[Group]:
    """The results of some files, by test examples.

    Raises:
        ResultsError: if a file is not of results, or two disagree.
    """
    groups: dict[Any, Group] = {}
    names = _names(files)
    for file in files:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ResultsError(f"{file} is not JSON: {error}") from error
        if "models" in content and "scores" in content:
            key, group, entries = _of_comparison(content, file)
        elif "forecasts" in content and "data" in content:
            key, group, entries = _of_scores(content, names[file], file)
        else:
            raise ResultsError(f"{file} is neither scores.json nor comparison.json")
        group = groups.setdefault(key, group)
        for entry in entries:
            _add(group, entry)
    return list(groups.values())


def _names(files: Sequence[pathlib.Path]) -> dict[pathlib.Path, str]:
    """Names of models, after as few folders as tell them apart."""
    parts = {
        file: (*file.absolute().parent.parts, *filter(None, [_label(file)]))
        for file in files
    }
    names: dict[pathlib.Path, str] = {}
    for length in range(1, max(map(len, parts.values()), default=1) + 1):
        names = {file: "/".join(x[-length:]) for file, x in parts.items()}
        if len(set(names.values())) == len(names):
            break
    return names


def _label(file: pathlib.Path) -> str:
    return file.stem.partition("-")[2]


def _of_scores(content: Mapping, name: str, file: pathlib.Path):
    """The key of the test examples, an empty group, and the entries of scores.json."""
    data = content["data"]
    about = data.get("intervals", {})
    key = about.get("examples_sha256") or json.dumps(
        [data["name"], data["description"], data.get("protocol_sha256")]
    )
    text = ""
    if about.get("samples"):
        size = about.get("block_windows")
        blocks = f"blocks of {size} windows" if size else f"{about['blocks']} blocks"
        text = f"{about['level']:.0%} intervals from {blocks}"
    better = {k: x["better"] for k, x in content.get("verification", {}).items()}
    entries = []
    for own, scores in content["forecasts"].items():
        values = {k: v for k, v in scores.items() if _is_number(v)}
        for k, v in scores.get("verification", {}).items():
            if _is_number(v):
                values.setdefault(k, v)
        intervals = {
            k: tuple(v)
            for k, v in scores.get("intervals", {}).items()
            if len(v) == 2 and all(map(_is_number, v))
        }
        differences = {
            other: {
                k: (gap["difference"], *gap["interval"])
                for k, gap in gaps.items()
                if _is_number(gap["difference"])
            }
            for other, gaps in scores.get("differences", {}).items()
        }
        entry = Entry(
            name if own == MODEL else own,
            own not in NOT_SIMPLE,
            values,
            intervals,
            differences,
            file,
        )
        entries.append(entry)
    number = data.get("test_examples", data.get("test_windows"))
    return key, Group(f"{data['name']}, {number} test examples", text, better), entries


def _of_comparison(content: Mapping, file: pathlib.Path):
    """The same of comparison.json."""
    better = {k: x["better"] for k, x in content["scores"].items()}
    first = next(iter(content["scores"].values()))
    entries = []
    for name in first["forecasts"]:
        own = {k: x["forecasts"][name] for k, x in content["scores"].items()}
        differences: dict[str, dict] = {}
        for score, x in content["scores"].items():
            for other, gap in x["differences"][name].items():
                gaps = differences.setdefault(other, {})
                gaps[score] = (gap["difference"], *gap["interval"])
        entry = Entry(
            name,
            name not in content["models"] and name not in NOT_SIMPLE,
            {k: x["value"] for k, x in own.items()},
            {
                k: tuple(x["interval"])
                for k, x in own.items()
                if None not in x["interval"]
            },
            differences,
            file,
        )
        entries.append(entry)
    key = content["examples_sha256"] or content["about"]
    return key, Group(content["about"], content["examples"], better), entries


def _add(group: Group, entry: Entry) -> None:
    """Adds a row; the same forecast in several files is one.

    Raises:
        ResultsError: if another forecast has its name.
    """
    before = group.entries.setdefault(entry.name, entry)
    for score, a in before.values.items():
        b = entry.values.get(score)
        if a is None or b is None:
            continue
        if not math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-6):
            raise ResultsError(
                f"{entry.name!r} has {score}={a:.6g} in {before.file} and {b:.6g} in "
                f"{entry.file} on the same test examples; make a table of files in "
                "which it is the same forecast"
            )


def table(group: Group, scores: Sequence[str] = ()) -> str:
    """A group as a Markdown table.

    Args:
        group: with at least one entry.
        scores: columns; (): those of `DEFAULT` that there are.

    Raises:
        ResultsError: if no entry has a score.
    """
    have = {k for entry in group.entries.values() for k in entry.values}
    columns = list(scores) or [name for name in DEFAULT if name in have]
    for name in columns:
        if name not in have:
            raise ResultsError(
                f"--scores: {name} is not a score of {group.about}; it has "
                f"{', '.join(sorted(have))}"
            )
    if not columns:
        raise ResultsError(f"{group.about}: name columns with --scores")
    first = columns[0]

    def badness(entry: Entry) -> float:
        value = entry.values.get(first)
        return math.inf if value is None else _badness(value, _better(group, first))

    rows = sorted(group.entries.values(), key=badness)
    simple = [x for x in rows if x.simple and badness(x) < math.inf]
    strongest = simple[0].name if simple else None
    heads = ["", *columns] + ([f"{first} minus {MARK}"] if strongest else [])
    lines = []
    for entry in rows:
        name = entry.name.replace("|", "\\|").replace("_", " " if entry.simple else "_")
        cells = [f"{name} {MARK}" if entry.name == strongest else name]
        cells += [_cell(entry, column) for column in columns]
        if strongest:
            cells.append(_gap(entry, strongest, first))
        lines.append(cells)
    title = f"**{group.about}.** {group.intervals}".rstrip()
    return f"{title}\n\n{markdown(heads, lines)}"


def _better(group: Group, score: str) -> str:
    """Which values are better; "csi_16_pool4" is as "csi"."""
    name = score
    while name:
        if name in group.better:
            return group.better[name]
        name = name.rpartition("_")[0]
    return BETTER.get(score, LOWER)


def _badness(value: float, better: str) -> float:
    if better == HIGHER:
        return -value
    if better == LOWER:
        return value
    if better == NEAR_ONE:
        return abs(math.log(value)) if value > 0 else math.inf
    return abs(value)


def _cell(entry: Entry, score: str) -> str:
    value = entry.values.get(score)
    if value is None:
        return "–"
    if score not in entry.intervals:
        return f"{value:.4g}"
    low, high = entry.intervals[score]
    return f"{value:.4g} ({low:.3g} to {high:.3g})"


def _gap(entry: Entry, strongest: str, score: str) -> str:
    """The paired difference to a reference; in brackets if it may be none."""
    if entry.name == strongest:
        return ""
    gap = entry.differences.get(strongest, {}).get(score)
    if gap is None:
        return "–"
    value, low, high = gap
    if low is None or high is None:
        return f"{value:+.3g}"
    text = f"{value:+.3g} ({low:+.2g} to {high:+.2g})"
    return text if low > 0 or high < 0 else f"[{text}]"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the tables, or writes them; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", nargs="+", type=pathlib.Path)
    parser.add_argument("--scores", default="", help="columns, separated by commas")
    parser.add_argument(
        "--output", type=pathlib.Path, help="a file, in place of stdout"
    )
    options = parser.parse_args(arguments)
    columns = [name.strip() for name in options.scores.split(",") if name.strip()]
    try:
        files = list(dict.fromkeys(find(path) for path in options.results))
        text = "\n\n".join(table(group, columns) for group in read(files)) + "\n"
        if options.output is None:
            print(text, end="")
            return 0
        unfinished = options.output.with_name(f".{options.output.name}.part")
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, options.output)
    except (ResultsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
