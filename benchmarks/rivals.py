r"""Our recurrent models and those that one would use otherwise, on CPU cores.

    python benchmarks/rivals.py --cases conv_lstm,predrnn,phydnet --batch 1,2,4 \
        --openstl OpenSTL --out benchmarks/results/rivals.json
    python benchmarks/rivals.py --table benchmarks/results/rivals.json

Compared are a ConvLSTM layer with Keras's ConvLSTM2D on JAX and on PyTorch and with a
loop over OpenSTL's cell; PredRNN and PhyDNet with OpenSTL's; and OpenSTL's SimVP, which
is not in this package, with the Earthformer of the same frames. All sides of one model
have the same weights and inputs, and have to agree before anything is timed.

A forward pass and a training step: for models squared error and what the model adds to
it, gradient, clipping, AdamW; for the layer mean square, gradient of weights and input,
gradient descent. Every side has a process of its own and they take turns, call by call.
Each runs as it comes; ours spreads the batch over a device per core if they divide it.

OpenSTL (https://github.com/chengtan9907/OpenSTL) is looked for in the folder --openstl,
which holds the package, or among the installed packages. Who cannot be imported has a
row that says why.
"""

import argparse
import contextlib
import os
import pathlib
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[1]
sys.path[0] = str(ROOT)

import numpy as np  # noqa: E402

from benchmarks import machine, report, rival_cases  # noqa: E402
from benchmarks.processes import Worker  # noqa: E402

MODES = ("forward", "train")
WARM_UP, PAUSE_S = 1, 0.3  # calls; before a turn
LARGEST_DIFFERENCE = 1e-4  # relative to the largest value
LIBRARIES = {"ours": "jax", "keras on jax": "jax"}  # the others are on PyTorch


class DisagreementError(RuntimeError):
    """Two sides of one model give different results."""


def worker(side: str) -> Worker:
    """A process for a side, before its "start" command."""
    environment = dict(os.environ)
    if LIBRARIES.get(side) == "jax":
        environment["JAX_PLATFORMS"] = "cpu"
    if side == "ours" and sys.platform == "linux":
        # Large pages, which the command line uses too.
        environment.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    return Worker(
        f"benchmarks.worker_rivals_{LIBRARIES.get(side, 'torch')}", environment
    )


def measure(case: str, mode: str, batch: int, a: argparse.Namespace) -> dict:
    """One row for each side of a case."""
    row = dict(case=case, mode=mode, batch=batch, difference=None)
    chosen, sides, versions = rival_cases.CASES[case], {}, {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        weights, given = pathlib.Path(folder) / "weights.npz", {}
        workers: dict[str, Worker] = {}
        for side in reversed(chosen.sides):  # the rival makes the weights of models
            process = stack.enter_context(worker(side))
            rival = str(a.openstl.absolute()) if a.openstl else ""
            started = process.ask("start", side=side, rival=rival)
            if "missing" in started:
                sides[side] = started
                continue
            versions |= started["versions"]
            given = dict(case=case, mode=mode, batch=batch, weights=str(weights))
            if side == "ours" and not weights.exists():
                given["weights"] = ""
            sides[side] = process.ask("prepare", **given)
            workers[side] = process
        workers = {side: workers[side] for side in chosen.sides if side in workers}
        if chosen.same and mode == "forward" and len(workers) > 1:
            row["difference"] = compare(case, workers, pathlib.Path(folder))
        for process in workers.values():
            process.ask("settle", calls=WARM_UP)
        calls = {side: [] for side in workers}
        for _ in range(a.rounds):
            for side, process in workers.items():
                time.sleep(PAUSE_S)
                calls[side].append(process.ask("measure")["seconds"])
        for side, process in workers.items():
            found = dict(seconds=calls[side], median_s=statistics.median(calls[side]))
            sides[side] |= found | process.ask("memory")
    return row | dict(sides=sides, versions=versions)


def compare(case: str, workers: dict[str, Worker], folder: pathlib.Path) -> float:
    """The largest difference of results from ours, relative to the largest value.

    Raises:
        DisagreementError: if it exceeds `LARGEST_DIFFERENCE`.
    """
    made = {}
    for side, process in workers.items():
        path = folder / f"{side}.npy"
        process.ask("forecast", path=str(path))
        made[side] = np.load(path)
    ours = made.pop("ours")
    for side, theirs in made.items():
        difference = float(np.abs(ours - theirs).max() / np.abs(ours).max())
        if not difference <= LARGEST_DIFFERENCE:
            raise DisagreementError(
                f"{case}: results of ours and of {side} differ by {difference:.2g} of "
                f"the largest value; at most {LARGEST_DIFFERENCE:g} is accepted"
            )
        made[side] = difference
    return max(made.values())


def table(found: dict) -> str:
    """The rows as Markdown, and what was compared."""
    entries = [
        (row, side, row["sides"][side])
        for row in found["rows"]
        for side in rival_cases.CASES[row["case"]].sides
    ]
    lines = [report.machine_line(found["machine"]), "", report.table(_COLUMNS, entries)]
    differences = [
        f"{row['case']} {row['difference']:.1e}"
        for row in found["rows"]
        if row["difference"] is not None
    ]
    if differences:
        lines += ["", f"Largest relative difference: {', '.join(differences)}."]
    return "\n".join(lines)


def _ratio(key: str):
    """A cell: a side's value divided by ours."""

    def cell(entry):
        row, side, values = entry
        ours = row["sides"]["ours"]
        if side == "ours" or not values.get(key) or not ours.get(key):
            return None
        return f"{values[key] / ours[key]:.2f}"

    return cell


_COLUMNS = {
    "case": lambda entry: entry[0]["case"],
    "mode": lambda entry: entry[0]["mode"],
    "batch": lambda entry: entry[0]["batch"],
    "side": lambda entry: entry[1],
    "parameters": lambda entry: report.number("{:,}", entry[2].get("parameters")),
    "s": lambda entry: report.seconds(entry[2].get("median_s")),
    "time / ours": _ratio("median_s"),
    "peak MiB": lambda entry: report.number("{:,.0f}", entry[2].get("peak_mib")),
    "in all MiB": lambda entry: report.number("{:,.0f}", entry[2].get("total_mib")),
    "in all / ours": _ratio("total_mib"),
    "why not": lambda entry: entry[2].get("missing"),
}


def main(arguments: list[str] | None = None) -> None:
    """Runs the requested measurements, or prints the table of earlier ones."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = ",".join(rival_cases.CASES)
    parser.add_argument("--cases", default="conv_lstm,predrnn,phydnet", help=known)
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--batch", default="1,2,4", help="examples, one or several")
    parser.add_argument("--rounds", type=int, default=5, help="measured calls")
    parser.add_argument("--openstl", type=pathlib.Path, help="folder of OpenSTL")
    parser.add_argument(
        "--out", type=pathlib.Path, help="JSON file; a .md file is written next to it"
    )
    written = report.written("sides")
    parser.add_argument("--table", type=written, help="an earlier JSON file")
    a = parser.parse_args(arguments)
    if a.table:
        print(table(a.table))
        return
    chosen, modes = a.cases.split(","), a.modes.split(",")
    unknown = sorted(set(chosen) - set(rival_cases.CASES) | set(modes) - set(MODES))
    if unknown:
        parser.error(f"unknown {unknown}; cases are {known}, modes {','.join(MODES)}")
    batches = [int(number) for number in a.batch.split(",")]
    if min(*batches, a.rounds) < 1:
        parser.error(f"--batch={a.batch} and --rounds={a.rounds} must be positive")
    if a.openstl and not (a.openstl / "openstl").is_dir():
        parser.error(f"--openstl={a.openstl} holds no package `openstl`")
    found = dict(machine=machine.describe() | dict(versions={}), rows=[])
    for case in chosen:
        for batch in batches:
            for mode in modes:
                row = measure(case, mode, batch, a)
                found["machine"]["versions"] |= row.pop("versions")
                found["rows"].append(row)
                report.write(a.out, found, table(found))
                print(table(found), flush=True)


if __name__ == "__main__":
    main()
