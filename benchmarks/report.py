"""Reports as Markdown, and their files."""

import argparse
import collections
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence

NOTHING = "–"


def table(columns: Mapping[str, Callable], rows: Sequence) -> str:
    """A Markdown table.

    Args:
        columns: heading -> function of a row that gives the cell; None is `NOTHING`.
        rows: whatever the functions take.
    """
    lines = [list(columns), ["---"] * len(columns)]
    for row in rows:
        cells = [cell(row) for cell in columns.values()]
        lines.append([NOTHING if cell is None else str(cell) for cell in cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def written(*fields: str) -> Callable[[str], dict]:
    """The type of an option: a JSON file that a benchmark wrote with --out.

    Args:
        fields: what every row of this benchmark has, and those of others have not.

    Returns:
        a function of the path; it raises argparse.ArgumentTypeError if the file cannot
        be read, or is of something else.
    """

    def read(path: str) -> dict:
        try:
            found = json.loads(pathlib.Path(path).read_text())
        except (OSError, ValueError) as error:
            raise argparse.ArgumentTypeError(f"cannot read {path}: {error}") from error
        rows = found.get("rows") if isinstance(found, dict) else None
        if not isinstance(rows, list) or not all(
            isinstance(row, dict) and set(fields) <= set(row) for row in rows
        ):
            raise argparse.ArgumentTypeError(
                f"{path} is not what this benchmark writes with --out: it needs rows "
                f"with {', '.join(fields)}"
            )
        return found

    return read


def number(form: str, value: float | None) -> str | None:
    """A formatted number; None stays None."""
    return None if value is None else form.format(value)


def seconds(value: float | None) -> str | None:
    """Three digits: "0.0123", "1.23", "12.3"."""
    if value is None:
        return None
    decimals = next((d for limit, d in ((0.1, 4), (1, 3), (10, 2)) if value < limit), 1)
    return f"{value:.{decimals}f}"


def machine_line(machine: Mapping) -> str:
    """A one-line description of the machine."""
    versions = ", ".join(f"{k} {v}" for k, v in machine.get("versions", {}).items())
    memory = machine["memory_gib"]
    parts = [
        machine["processor"],
        f"{machine['cores']} cores",
        f"{memory} GiB" if memory else None,
        f"Python {machine['python']}",
        versions,
    ]
    return ", ".join(part for part in parts if part)


def write(out: pathlib.Path | None, found: Mapping, text: str) -> None:
    """Writes results as JSON, whole or not at all, and their Markdown next to them.

    Args:
        out: the JSON file; its folder is made. None: nothing is written.
        found: the results, of plain values.
        text: in Markdown.
    """
    if out is None:
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    new = out.with_suffix(".new")
    new.write_text(json.dumps(found, indent=2) + "\n")
    new.replace(out)
    out.with_suffix(".md").write_text(text.rstrip("\n") + "\n")


def joined(reports: Sequence[Mapping]) -> dict:
    """Reports of `earthformer.py` as one, with the rows of all of them in their order.

    Raises:
        ValueError: if they are from different machines.
    """
    machines = {(r["machine"]["processor"], r["machine"]["cores"]) for r in reports}
    if len(machines) > 1:
        names = sorted(f"{processor}, {cores} cores" for processor, cores in machines)
        raise ValueError(f"one machine was expected; got {' and '.join(names)}")
    rates = collections.defaultdict(list)
    for one in reports:
        for library, rate in one["matrix_gflops"].items():
            rates[library].append(rate)
    return dict(reports[0]) | dict(
        matrix_gflops={library: max(found) for library, found in rates.items()},
        missing=next((r["missing"] for r in reports if r["missing"]), ""),
        differences={
            case: max(r["differences"].get(case, 0) for r in reports)
            for case in dict.fromkeys(c for r in reports for c in r["differences"])
        },
        rows=[row for one in reports for row in one["rows"]],
    )


def earthformer(report: Mapping) -> str:
    """All results of `earthformer.py`, as Markdown."""
    rows, rates = report["rows"], report["matrix_gflops"]
    lines = [
        machine_line(report["machine"]),
        "",
        "Times are medians. Peaks are what the process held beyond its imports, and in "
        "all; ours takes its program from the cache. A training step counts as three "
        "forward passes. Shares are of a product of matrices that took turns with the "
        "calls. The fastest one before that: "
        + ", ".join(f"{name} {rate:.0f} GFLOP/s" for name, rate in rates.items())
        + ".",
    ]
    if report["missing"]:
        lines += ["", f"The official code was not measured: {report['missing']}."]
    lines += ["", table(_EARTHFORMER, rows)]
    tried = [
        (row, mode, found)
        for row in rows
        for mode, found in row.get("tried", {}).items()
    ]
    if tried:
        lines += ["", table(_COMPILED, tried)]
    if report["differences"]:
        found = (f"{case} {x:.1e}" for case, x in report["differences"].items())
        lines += ["", f"Largest relative difference of forecasts: {', '.join(found)}."]
    compared = [row for row in rows if row.get("loss_difference") is not None]
    if compared:
        found = (f"{row['case']} {row['loss_difference']:.1e}" for row in compared)
        lines += ["", f"Largest relative difference of losses: {', '.join(found)}."]
    compiled = [row for row in rows if row.get("compilation")]
    if compiled:
        lines += ["", table(_COMPILATION, compiled)]
    return "\n".join(lines) + "\n"


def _of(row: Mapping, side: str, key: str):
    return (row[side] or {}).get(key)


def _mode(row: Mapping) -> str:
    if row["mode"] == "train" and not row["dropout"]:
        return "train, no dropout"
    return row["mode"]


_EARTHFORMER = {
    "case": lambda row: row["case"],
    "mode": _mode,
    "batch": lambda row: row["batch"],
    "ours s": lambda row: seconds(_of(row, "ours", "median_s")),
    "official s": lambda row: seconds(_of(row, "official", "median_s")),
    "time: official / ours": lambda row: number("{:.2f}", row["time_ratio"]),
    "ours peak MiB": lambda row: number("{:,.0f}", _of(row, "ours", "peak_mib")),
    "official peak MiB": lambda row: number(
        "{:,.0f}", _of(row, "official", "peak_mib")
    ),
    "peak: ours / official": lambda row: number("{:.2f}", row["memory_share"]),
    "ours in all MiB": lambda row: number("{:,.0f}", _of(row, "ours", "total_mib")),
    "official in all MiB": lambda row: number(
        "{:,.0f}", _of(row, "official", "total_mib")
    ),
    "in all: ours / official": lambda row: number("{:.2f}", row["total_memory_share"]),
    "GFLOP/s ours": lambda row: number("{:.0f}", row["gflops"]),
    "share of the machine's rate": lambda row: number("{:.0%}", row["share"]),
}


def _fastest(entry: tuple[Mapping, str, Mapping]) -> Mapping:
    """What the mode of `torch.compile` took in turns; empty: it took none."""
    row, mode, _ = entry
    side = row["compiled"] or {}
    return side if side.get("mode") == mode else {}


_COMPILED = {
    "case": lambda entry: entry[0]["case"],
    "mode": lambda entry: _mode(entry[0]),
    "batch": lambda entry: entry[0]["batch"],
    "torch.compile": lambda entry: entry[1],
    "alone s": lambda entry: seconds(entry[2].get("median_s")),
    "first call s": lambda entry: number("{:.0f}", entry[2].get("first_call_s")),
    "in turns s": lambda entry: seconds(_fastest(entry).get("median_s")),
    "time: compiled / ours": lambda entry: number(
        "{:.2f}", entry[0]["compiled_ratio"] if _fastest(entry) else None
    ),
    "peak MiB": lambda entry: number("{:,.0f}", _fastest(entry).get("peak_mib")),
    "in all MiB": lambda entry: number("{:,.0f}", _fastest(entry).get("total_mib")),
    "why not": lambda entry: entry[2].get("missing"),
}
_COMPILATION = {
    "case": lambda row: row["case"],
    "mode": _mode,
    "lowering s": lambda row: f"{row['compilation']['cold']['lower_s']:.1f}",
    "compilation s": lambda row: f"{row['compilation']['cold']['compile_s']:.1f}",
    "from the cache: lowering s": lambda row: (
        f"{row['compilation']['cached']['lower_s']:.1f}"
    ),
    "from the cache: program s": lambda row: (
        f"{row['compilation']['cached']['compile_s']:.1f}"
    ),
}
