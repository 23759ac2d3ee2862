r"""How fast examples are read, compared with how fast the model consumes them.

    python benchmarks/data.py                                all embedded data sets
    python benchmarks/data.py configs/sevir.py:quick --set data.path=SEVIR

Prints a table, and writes it as JSON with --out. Reading and training are
timed separately, in turn, so each has the whole machine to itself.
"""

import argparse
import contextlib
import functools
import json
import os
import pathlib
import statistics
import time

import jax
import numpy as np

from earthformer_jax.data import pipeline
from earthformer_jax.run import config_files
from earthformer_jax.run.parts import build
from earthformer_jax.training import optimizer
from earthformer_jax.training import state as state_lib
from earthformer_jax.training import step as step_lib

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
DEFAULT = ("enso", "moving_mnist", "nbody_mnist", "sevir", "climate")
WAYS = {  # name: threads, workers
    "alone": (0, 0),
    "2 threads": (2, 0),
    "2 workers": (1, 2),
}


def read_config(file: str, changes: list[str]):
    """The config of "FILE:VARIANT" with changes of the form "section.field=value"."""
    config = config_files.load(file)
    for change in changes:
        name, _, text = change.partition("=")
        section, _, field = name.partition(".")
        old = config[section][field]
        value = text if isinstance(old, str) else json.loads(text)
        config[section][field] = tuple(value) if isinstance(value, list) else value
    return config


def reading_rate(config, data, seconds: float, threads: int, workers: int) -> float:
    """Examples per second of the training pipeline once it is running."""
    batches = pipeline.train_batches(
        data,
        batch_size=config.train.batch_size,
        seed=0,
        num_threads=threads,
        num_workers=workers,
    )
    with contextlib.closing(batches):
        for _ in range(2 + 8 * bool(threads) + 8 * workers):  # fill and empty buffers
            next(batches)
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            next(batches)
            count += 1
        return count * config.train.batch_size / (time.perf_counter() - start)


def training_rate(config, data, model, steps: int) -> float:
    """Examples per second of the compiled training step (median of the steps)."""
    batch = next(
        pipeline.train_batches(
            data, batch_size=config.train.batch_size, seed=0, num_threads=0
        )
    )
    names = ("inputs", "targets", "observed")
    batch = {name: np.asarray(batch[name]) for name in names if name in batch}
    rate = optimizer.warmup_cosine(config.optim.lr, 1000)
    tx = optimizer.adamw(rate)
    state = state_lib.create_state(
        jax.random.key(0), model=model, tx=tx, input_shape=batch["inputs"].shape[1:]
    )
    step = jax.jit(
        functools.partial(
            step_lib.update,
            model=model,
            tx=tx,
            learning_rate=rate,
            loss_weights=np.asarray(data.loss_weights, np.float32),
            micro_batches=config.train.batch_size // config.train.micro_batch,
        ),
        donate_argnums=0,
    )
    times = []
    for _ in range(steps + 1):  # the first one compiles
        start = time.perf_counter()
        state, scalars = step(state, batch)
        jax.block_until_ready(scalars)
        times.append(time.perf_counter() - start)
    return config.train.batch_size / statistics.median(times[1:])


def measure(file: str, changes: list[str], seconds: float, steps: int) -> dict:
    """One row of the table."""
    config = read_config(file, changes)
    dataset, model = build(config)
    data = dataset.data
    rates = {
        name: reading_rate(config, data, seconds, *way) for name, way in WAYS.items()
    }
    training = training_rate(config, data, model, steps)
    return {
        "config": os.path.relpath(file, CONFIGS.parent),
        "data": data.description,
        "shape": list(data.example()["inputs"].shape),
        "examples_per_second": rates,
        "training_examples_per_second": training,
        "headroom": max(rates.values()) / training,
    }


def table(rows: list[dict]) -> str:
    """The rows as Markdown."""
    heads = ["config", "input", *WAYS, "training step", "reading / training"]
    lines = [" | ".join(heads), " | ".join(["---"] * len(heads))]
    for row in rows:
        rates = [f"{row['examples_per_second'][way]:,.0f}" for way in WAYS]
        shape = "x".join(map(str, row["shape"]))
        training = f"{row['training_examples_per_second']:,.1f}"
        cells = [row["config"], shape, *rates, training, f"{row['headroom']:.0f}"]
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def main() -> None:
    """Runs the measurements requested on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("configs", nargs="*", help="FILE:VARIANT")
    parser.add_argument(
        "--set", action="append", default=[], help="change a field: data.path=FILE"
    )
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="duration of each reading"
    )
    parser.add_argument("--steps", type=int, default=5, help="training steps")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file")
    arguments = parser.parse_args()
    files = arguments.configs or [f"{CONFIGS / name}.py:quick" for name in DEFAULT]
    rows = []
    for file in files:
        rows.append(measure(file, arguments.set, arguments.seconds, arguments.steps))
        print(table(rows[-1:]), flush=True)
    print(f"\nExamples per second on {os.cpu_count()} cores\n\n{table(rows)}")
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
