r"""Memory of a training step by what is computed again in the backward pass.

    python benchmarks/recomputation.py --out benchmarks/results/recomputation.json

For each model and each name of `models.remat`: the working memory that XLA plans for
one step on one CPU device (compiled without optimising the machine code, which does not
change it), and the multiply-adds of the gradient, as they are counted in the traced
program. Nothing is run.
"""

import argparse
import functools
import json
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

sys.path[0] = str(pathlib.Path(__file__).parents[1])

import jax  # noqa: E402

from benchmarks import accumulation, machine, report  # noqa: E402
from earthformer_jax.models.remat import NAMES  # noqa: E402
from earthformer_jax.profiling.multiply_adds import multiply_adds  # noqa: E402
from earthformer_jax.run.planning.step import UNOPTIMISED  # noqa: E402


def measure(name: str) -> dict[str, Any]:
    """One row: MiB and multiply-adds by what is computed again."""
    mib, products = {}, {}
    for remat in NAMES:
        step, state, batch = accumulation.step_of(name, remat=remat)
        step = functools.partial(step, micro_batches=1)
        program = jax.jit(step).lower(state, batch)
        planned = program.compile(compiler_options=UNOPTIMISED).memory_analysis()
        mib[remat] = planned.temp_size_in_bytes / 2**20
        products[remat] = multiply_adds(step, state, batch)
    return dict(model=name, mib=mib, multiply_adds=products)


def table(rows: list[Mapping]) -> str:
    """The rows as Markdown."""
    columns = {"model": lambda row: row["model"]}
    for remat in NAMES:
        columns[f"{remat}: MiB"] = lambda row, n=remat: f"{row['mib'][n]:.1f}"
    for remat in NAMES[1:]:
        columns[f"{remat}: products"] = lambda row, n=remat: (
            f"{row['multiply_adds'][n] / row['multiply_adds']['none']:.2f}"
        )
    return report.table(columns, rows)


def main() -> None:
    """Runs the measurements requested on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = [*accumulation.MODELS]
    parser.add_argument("--models", nargs="*", default=known, choices=known)
    parser.add_argument("--out", type=pathlib.Path, help="JSON file; .md next to it")
    a = parser.parse_args()
    rows = []
    for name in a.models:
        rows.append(measure(name))
        print(json.dumps(rows[-1]), flush=True)
    print(table(rows))
    found = dict(machine=machine.describe(), rows=rows)
    text = f"{report.machine_line(found['machine'])}\n\n{table(rows)}"
    report.write(a.out, found, text)


if __name__ == "__main__":
    main()
