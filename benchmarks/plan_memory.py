r"""The peak of memory that `--mode=plan` expects, against the measured one.

    python benchmarks/plan_memory.py --out benchmarks/results/plan_memory.json

Each config has a process of its own, which compiles the training step, returns unused
memory to the system, notes what it holds, and then does what a training does: it makes
the state, lays two batches over the devices and takes a few steps. Measured is by how
much the peak of its resident memory (VmHWM of /proc) exceeds what it held before. Needs
Linux. The two constants of the CPU runtime (`run.planning.step`) are a line through the
peaks of FITTED; those of the other configs test them.
"""

import argparse
import json
import os
import pathlib
import sys
from collections.abc import Mapping

sys.path[0] = str(pathlib.Path(__file__).parents[1])

from benchmarks import machine, report  # noqa: E402
from benchmarks.processes import Worker  # noqa: E402

CONFIGS = (
    "configs/enso.py:quick",
    "configs/nbody_mnist.py:quick",
    "configs/moving_mnist.py:quick",
    "configs/sevir.py:quick",
    "configs/climate.py:quick",
)
FITTED = (
    "configs/enso.py:quick train.batch_size=4 train.micro_batch=4",
    "configs/enso.py:quick train.batch_size=48 train.micro_batch=48",
)


def measure(text: str, steps: int) -> dict:
    """One row: what was planned and measured for a config, in MiB.

    Args:
        text: a config, and changed fields "train.batch_size=4" after it.
        steps: of training.
    """
    file, *changes = text.split()
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    with Worker("benchmarks.worker_plan", environment) as worker:
        found = worker.ask("measure", config=file, changes=changes, steps=steps)
    return dict(config=text) | found


def table(rows: list[Mapping]) -> str:
    """The rows as Markdown."""
    columns = {
        "config": lambda row: row["config"],
        "compiler MiB": lambda row: f"{row['program_mib']:.1f}",
        "planned MiB": lambda row: f"{row['planned_mib']:.1f}",
        "measured MiB": lambda row: f"{row['measured_mib']:.1f}",
        "planned / measured": lambda row: (
            f"{row['planned_mib'] / row['measured_mib']:.2f}"
        ),
    }
    return report.table(columns, rows)


def main() -> None:
    """Runs the measurements requested on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--configs", nargs="*", default=[*CONFIGS, *FITTED])
    parser.add_argument("--steps", type=int, default=3, help="steps of training")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file; .md next to it")
    a = parser.parse_args()
    rows = []
    for text in a.configs:
        rows.append(measure(text, a.steps))
        print(json.dumps(rows[-1]), flush=True)
    print(table(rows))
    found = dict(machine=machine.describe(), rows=rows)
    text = f"{report.machine_line(found['machine'])}\n\n{table(rows)}"
    report.write(a.out, found, text)


if __name__ == "__main__":
    main()
