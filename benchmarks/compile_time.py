r"""Compile times of recurrent models, with few frames and with twice as many.

    python benchmarks/compile_time.py
    python benchmarks/compile_time.py --models predrnn --frames 5,10 --variant test

Compiles the gradient of a training loss for one sequence of `configs/nbody_mnist.py`.
The frames run in a loop, so their number should make no difference. The lengths take
turns, round by round. Prints a Markdown table; --out writes JSON.
"""

import argparse
import json
import pathlib
import statistics
import sys
import time

ROOT = pathlib.Path(__file__).parents[1]
sys.path[0] = str(ROOT)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

from benchmarks import machine, report  # noqa: E402
from earthformer_jax import models  # noqa: E402
from earthformer_jax.run import config_files  # noqa: E402

RECURRENT = ("conv_lstm", "fa_conv_lstm", "predrnn", "phydnet", "e3d_lstm")
SIZES = dict(paper=64, quick=32, test=16)  # of a frame, in pixels


def gradient_of(name: str, variant: str, frames: int):
    """A jitted gradient, (variables, sequence) -> tree, and its argument shapes."""
    shape = (frames, SIZES[variant], SIZES[variant], 1)
    options = dict(config_files.load(f"nbody_mnist:{variant},{name}").model)
    model = models.create_model(input_shape=shape, target_shape=shape, **options)
    batch = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    keys = {k: jax.random.key(0) for k in ("params", "dropout", "sampling")}
    variables = jax.eval_shape(model.init, keys, batch)

    def loss(params, others, sequence):
        teaching = dict(targets=sequence, step=0) if learns_from_targets(model) else {}
        forecast, changed = model.apply(
            others | {"params": params},
            sequence,
            train=True,
            rngs={k: v for k, v in keys.items() if k != "params"},
            mutable=["losses", "batch_stats"],
            **teaching,
        )
        sown = sum(jnp.sum(x) for x in jax.tree.leaves(changed.get("losses", {})))
        return jnp.square(forecast - sequence).mean() + sown

    params = variables["params"]
    others = {k: v for k, v in variables.items() if k == "batch_stats"}
    return jax.jit(jax.grad(loss)), (params, others, batch)


def learns_from_targets(model) -> bool:
    """Whether a model is given targets in training."""
    return getattr(model, "uses_targets", False)


def compile_seconds(name: str, variant: str, frames: int) -> float:
    """Seconds to compile, without tracing and with nothing cached."""
    jax.clear_caches()
    gradient, shapes = gradient_of(name, variant, frames)
    lowered = gradient.lower(*shapes)
    start = time.perf_counter()
    lowered.compile()
    return time.perf_counter() - start


def table(found: dict[str, dict[int, list[float]]], frames: list[int]) -> str:
    """Markdown table: a row for each model."""
    columns = {"model": lambda row: row[0]}
    for n in frames:
        columns[f"{n} → {n}: s"] = lambda row, n=n: (
            f"{statistics.median(row[1][n]):.1f}"
        )
    few, many = frames[0], frames[-1]
    columns["ratio"] = lambda row: (
        f"{statistics.median(row[1][many]) / statistics.median(row[1][few]):.2f}"
    )
    return report.table(columns, list(found.items()))


def main(arguments: list[str] | None = None) -> None:
    """Runs the measurements requested on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default=",".join(RECURRENT))
    parser.add_argument(
        "--frames", default="10,20", help="numbers of frames, both input and target"
    )
    parser.add_argument("--variant", choices=list(SIZES), default="paper")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=pathlib.Path, help="JSON file")
    a = parser.parse_args(arguments)
    names, frames = a.models.split(","), [int(n) for n in a.frames.split(",")]
    unknown = set(names) - set(RECURRENT)
    if unknown or a.rounds < 1 or min(frames) < 1:
        parser.error(
            f"--models must be among {','.join(RECURRENT)}, and --frames and --rounds "
            f"positive; got {a.models}, {a.frames}, {a.rounds}"
        )
    jax.config.update("jax_enable_compilation_cache", False)
    found = {name: {n: [] for n in frames} for name in names}
    for name in names:
        for _ in range(a.rounds):
            for n in frames:
                found[name][n].append(compile_seconds(name, a.variant, n))
                print(f"{name} {n}: {found[name][n][-1]:.1f} s", flush=True)
    print(f"{report.machine_line(machine.describe())}, jax {jax.__version__}")
    print(table(found, frames))
    if a.out:
        rows = {"machine": machine.describe(), "jax": jax.__version__, "seconds": found}
        a.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
