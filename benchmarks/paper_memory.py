r"""Memory and time of the `paper` configs by what is computed again.

    python benchmarks/paper_memory.py --configs enso:paper --out paper_memory.json
    python benchmarks/paper_memory.py --configs sevir:paper --rounds 0

Memory is what `--mode=plan` expects of a training step with the micro-batch of the
config on one CPU device; that program is compiled and does not run. Times are those of
steps with --examples examples on one device, which take turns with those of the first
name, each in a process of its own; ratios are medians of those within a round.
"""

import argparse
import contextlib
import os
import pathlib
import statistics
import sys

sys.path[0] = str(pathlib.Path(__file__).parents[1])

from benchmarks import machine, report  # noqa: E402
from benchmarks.processes import Worker  # noqa: E402
from earthformer_jax.models.remat import NAMES  # noqa: E402
from earthformer_jax.run.api import load_config  # noqa: E402
from earthformer_jax.settings import ConfigError  # noqa: E402


def measure(config: str, names: list[str], examples: int, rounds: int) -> list[dict]:
    """A row for each name: "planned_mib", and "seconds" and "ratio" if timed."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    rows = []
    for name in names:
        with Worker("benchmarks.worker_plan", environment) as worker:
            found = worker.ask("planned", config=config, changes=_changes(name))
        rows.append(dict(config=config, remat=name, examples=examples) | found)
        print(rows[-1], flush=True)
    if not rounds:
        return rows
    with contextlib.ExitStack() as stack:
        workers = []
        for row in rows:
            worker = stack.enter_context(Worker("benchmarks.worker_plan", environment))
            arguments = dict(changes=_changes(row["remat"]), per_device=examples)
            row |= worker.ask("prepare_step", config=config, **arguments)
            workers.append(worker)
        turns = [
            [worker.ask("next_step")["seconds"] for worker in workers]
            for _ in range(rounds)
        ]
    for number, row in enumerate(rows):
        row["seconds"] = statistics.median(turn[number] for turn in turns)
        row["ratio"] = statistics.median(turn[number] / turn[0] for turn in turns)
    return rows


def _changes(remat: str) -> list[str]:
    return [f"model.remat={remat!r}"]


def table(rows: list[dict]) -> str:
    """The rows as Markdown."""
    columns = {
        "config": lambda row: row["config"],
        "`model.remat`": lambda row: f"`{row['remat']}`",
        "planned GiB": lambda row: f"{row['planned_mib'] / 1024:.2f}",
        "examples timed": lambda row: row["examples"] if "ratio" in row else None,
        "step s": lambda row: report.seconds(row.get("seconds")),
        "time, relative": lambda row: report.number("{:.2f}", row.get("ratio")),
    }
    return report.table(columns, rows)


def main(arguments: list[str] | None = None) -> None:
    """Runs the measurements requested on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    configs = [f"{name}:paper" for name in ("enso", "nbody_mnist", "moving_mnist")]
    parser.add_argument("--configs", nargs="+", default=[*configs, "sevir:paper"])
    parser.add_argument("--remat", nargs="+", choices=NAMES, default=["none", "blocks"])
    parser.add_argument("--examples", type=int, default=1, help="of the steps timed")
    parser.add_argument("--rounds", type=int, default=5, help="0: nothing is timed")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file; .md next to it")
    a = parser.parse_args(arguments)
    if a.examples < 1 or a.rounds < 0:
        parser.error(
            f"--examples={a.examples} must be positive, --rounds={a.rounds} at least 0"
        )
    for config in a.configs:  # all of them before the first one is compiled
        try:
            load_config(config)
        except ConfigError as error:
            parser.error(str(error))
    found = dict(machine=machine.describe(), rows=[])
    for config in a.configs:
        found["rows"] += measure(config, a.remat, a.examples, a.rounds)
        text = f"{report.machine_line(found['machine'])}\n\n{table(found['rows'])}"
        report.write(a.out, found, text)
        print(text, flush=True)


if __name__ == "__main__":
    main()
