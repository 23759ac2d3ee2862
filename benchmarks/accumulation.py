r"""The time of a training step whose gradient is added up over parts of the batch.

    python benchmarks/accumulation.py --out benchmarks/results/accumulation.json

For each model, steps with the whole batch and with four parts of it take turns in
one process on one CPU device; a ratio is the median over the turns of the time with
parts divided by that of the whole batch in the same turn. `--untuned` loops over
convolutions as XLA compiles them by itself. Most of the time is spent compiling.
"""

import argparse
import functools
import json
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any

sys.path[0] = str(pathlib.Path(__file__).parents[1])

import jax  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402

from benchmarks import machine, report  # noqa: E402
from earthformer_jax import models  # noqa: E402
from earthformer_jax.ops.tuned import repeated  # noqa: E402
from earthformer_jax.training import state as state_lib  # noqa: E402
from earthformer_jax.training import step as step_lib  # noqa: E402

SHAPE, BATCH, PARTS, RATE = (4, 32, 32, 1), 8, (1, 4), 1e-3
MODELS: dict[str, dict[str, Any]] = {
    "unet": dict(features=(16, 32, 64), center_features=128),
    "earthformer": dict(base_units=32, enc_depth=(1, 1), dec_depth=(1, 1)),
    "conv_lstm": dict(features=(16, 32, 32)),
    "predrnn": dict(num_layers=2, features=16),
    "rainformer": dict(features=16),
}


def step_of(name: str, **options: Any) -> tuple[Any, Any, Any]:
    """A step (`training.step.update`), and the state and batch for it.

    Args:
        name: one of `MODELS`.
        **options: of the model.
    """
    model = models.create_model(name, SHAPE, SHAPE, **MODELS[name], **options)
    tx = optax.adam(RATE)
    state = state_lib.create_state(
        jax.random.key(0), model=model, tx=tx, input_shape=SHAPE
    )
    random = np.random.default_rng(0)
    batch = {
        key: random.normal(size=(BATCH, *SHAPE)).astype(np.float32)
        for key in ("inputs", "targets")
    }
    step = functools.partial(
        step_lib.update,
        model=model,
        tx=tx,
        learning_rate=optax.constant_schedule(RATE),
        loss_weights=np.ones((1, 1, 1, 1), np.float32),
        total_steps=100,
    )
    return step, state, batch


def measure(name: str, turns: int) -> dict[str, Any]:
    """One row: seconds of the whole batch, and ratios of the parts to it."""
    step, state, batch = step_of(name)
    compiled = {}
    for parts in PARTS:
        program = jax.jit(functools.partial(step, micro_batches=parts))
        compiled[parts] = program.lower(state, batch).compile()
    seconds: dict[int, list[float]] = {parts: [] for parts in compiled}
    for _ in range(turns + 1):
        for parts, program in compiled.items():
            start = time.perf_counter()
            jax.block_until_ready(program(state, batch))
            seconds[parts].append(time.perf_counter() - start)
    whole = np.array(seconds[1][1:])  # the first turn is not measured
    ratios = {n: np.array(s[1:]) / whole for n, s in seconds.items() if n > 1}
    planned = {n: p.memory_analysis().temp_size_in_bytes for n, p in compiled.items()}
    return dict(
        model=name,
        seconds=float(np.median(whole)),
        ratios={n: float(np.median(r)) for n, r in ratios.items()},
        lowest={n: float(min(seconds[n][1:]) / min(whole)) for n in ratios},
        mib={n: size / 2**20 for n, size in planned.items()},
    )


def table(rows: list[Mapping]) -> str:
    """The rows as Markdown."""
    columns = {
        "model": lambda row: row["model"],
        "whole batch, s": lambda row: f"{row['seconds']:.3g}",
        "planned MiB": lambda row: f"{row['mib'][1]:.0f}",
    }
    for n in PARTS[1:]:
        columns[f"{n} parts: time"] = lambda row, n=n: f"{row['ratios'][n]:.2f}"
        columns[f"{n} parts: MiB"] = lambda row, n=n: f"{row['mib'][n]:.0f}"
    return report.table(columns, rows)


def main() -> None:
    """Runs the measurements requested on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="*", default=[*MODELS], choices=[*MODELS])
    parser.add_argument("--turns", type=int, default=11, help="measured turns")
    parser.add_argument("--untuned", action="store_true", help="XLA's own loops")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file; .md next to it")
    a = parser.parse_args()
    if a.untuned:
        step_lib.call_in_loop = repeated.call_in_loop.plain
    rows = []
    for name in a.models:
        rows.append(measure(name, a.turns))
        print(json.dumps(rows[-1]), flush=True)
    print(table(rows))
    found = dict(machine=machine.describe(), untuned=a.untuned, rows=rows)
    text = f"{report.machine_line(found['machine'])}\n\n{table(rows)}"
    report.write(a.out, found, text)


if __name__ == "__main__":
    main()
