r"""Layers and models of the Earthformer with functions in C++ and without them.

    taskset -c 0 python benchmarks/native.py --out layers.json
    python benchmarks/native.py --cases enso,nbody --batch 2 --out models.json

By itself: convolutions of planes, next to XLA's own, group norms, and those layers of
N-body MNIST that are in C++ (see layers.py), one example on one device, with dropout in
the gradient where there is any. A device has all cores of the process; `taskset -c 0`
gives it one. With --cases: whole programs, forward and a training step (see
earthformer.py), the batch shared by as many devices as there are cores. Both variants
are compiled in one process and take turns, call by call, so that other load on the
machine affects both. Uses large memory pages, as the command line does.
"""

import argparse
import contextlib
import functools
import itertools
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence

sys.path[0] = str(pathlib.Path(__file__).parents[1])

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks import cases, jax_cpu, layers, machine, options, report  # noqa: E402
from benchmarks.worker_jax import Ours  # noqa: E402
from earthformer_jax.layers.convolution import FrameConv  # noqa: E402
from earthformer_jax.layers.feed_forward import FeedForward  # noqa: E402
from earthformer_jax.layers.initializers import LEAKY_SLOPE  # noqa: E402
from earthformer_jax.layers.norm import EPSILON  # noqa: E402
from earthformer_jax.layers.resample import Upsample  # noqa: E402
from earthformer_jax.models.earthformer.cuboid_attention import CuboidSelfAttention  # noqa: E402
from earthformer_jax.ops.tuned import frame_convolution  # noqa: E402
from earthformer_jax.ops.tuned.native import library  # noqa: E402
from earthformer_jax.ops.tuned.norm import group_norm  # noqa: E402
from earthformer_jax.run import cpu  # noqa: E402

VARIANTS = {"jax": library.without, "cpp": contextlib.nullcontext}
MODES = ("forward", "train")
DROPPING = (CuboidSelfAttention, FeedForward)  # layers with dropout
OTHERS = (FrameConv, Upsample)
# Planes, their sides, channels before and after, side of the kernel.
CONVOLUTIONS = (
    (12, 128, 64, 64, 3),
    (12, 64, 128, 128, 3),
    (10, 32, 64, 64, 3),
    (8, 16, 128, 512, 5),
)
# Planes, their sides, channels, and groups of them.
NORMS = ((13, 384, 16, 4), (13, 128, 64, 16), (13, 64, 128, 32))


def in_turns(
    measures: Mapping[str, Callable[[], float]], rounds: int
) -> dict[str, list[float]]:
    """Seconds of every measured call, by variant; the first round warms up."""
    turns = [
        {name: measure() for name, measure in measures.items()}
        for _ in range(1 + rounds)
    ]
    return {name: [turn[name] for turn in turns[1:]] for name in measures}


def row(what: str, mode: str, batch: int, seconds: dict[str, list[float]]) -> dict:
    """One line of the table."""
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    return dict(what=what, mode=mode, batch=batch, seconds=seconds, medians=medians)


def of_layers(levels: int, rounds: int) -> list[dict]:
    """The layers that can run in C++: forward, and the gradient with dropout."""
    random, found = np.random.default_rng(0), []
    for level, shape in enumerate(layers.LEVELS[:levels]):
        x = jnp.asarray(random.normal(size=(1, *shape)), jnp.float32)
        for layer in layers.layers(shape):
            if not isinstance(layer.module, (*DROPPING, *OTHERS)):
                continue
            if len(layer.shapes) > 1:  # global vectors
                continue
            variables = layer.module.init(jax.random.key(0), x)
            for mode, function in _directions(layer.module).items():
                what = f"level {level}, {layer.name}"
                seconds = _of_variants(function, (variables, x), rounds)
                found.append(row(what, mode, 1, seconds))
    return found


def of_convolutions(sizes: Sequence[tuple[int, ...]], rounds: int) -> list[dict]:
    """Convolutions by themselves, and the gradients of planes and of kernels."""
    random, found = np.random.default_rng(0), []
    for n, side, c, g, k in sizes:
        shapes = (n, side, side, c), (k, k, c, g), (n, side, side, g)
        arrays = [jnp.asarray(random.normal(size=x), jnp.float32) for x in shapes]
        convolve = functools.partial(
            frame_convolution.convolve, padding=((k // 2, k // 2),) * 2
        )

        def gradients(number, x, kernel, dy, convolve=convolve):
            return jax.vjp(convolve, x, kernel)[1](dy)[number]

        directions = {
            "forward": lambda x, kernel, dy, convolve=convolve: convolve(x, kernel),
            "gradient of planes": functools.partial(gradients, 0),
            "gradient of kernel": functools.partial(gradients, 1),
        }
        for mode, function in directions.items():
            what = f"{n} of {side} x {side}, {c} to {g}, {k} x {k}"
            found.append(row(what, mode, n, _of_variants(function, arrays, rounds)))
    return found


def of_norms(sizes: Sequence[tuple[int, ...]], rounds: int) -> list[dict]:
    """Group norms with a leaky ReLU after them, and their gradients."""
    random, found = np.random.default_rng(0), []
    for n, side, c, groups in sizes:
        shapes = (n, side, side, c), (c,), (c,), (n, side, side, c)
        *given, dy = (jnp.asarray(random.normal(size=s), jnp.float32) for s in shapes)
        norm = functools.partial(
            group_norm, groups=groups, epsilon=EPSILON, slope=LEAKY_SLOPE
        )

        def gradient(dy, *given, norm=norm):
            return jax.vjp(norm, *given)[1](dy)

        what = f"group norm of {n} of {side} x {side}, {c} channels"
        forward = _of_variants(
            lambda dy, *given, norm=norm: norm(*given), (dy, *given), rounds
        )
        found.append(row(what, "forward", n, forward))
        found.append(
            row(what, "gradient", n, _of_variants(gradient, (dy, *given), rounds))
        )
    return found


def _of_variants(function, arguments, rounds: int) -> dict[str, list[float]]:
    """Seconds of a function of arrays, by variant."""
    measures = {
        name: _timed(function, context, *arguments)
        for name, context in VARIANTS.items()
    }
    return in_turns(measures, rounds)


def _timed(function, context, *arguments) -> Callable[[], float]:
    """A function that calls a program once, and returns how long that took."""
    with context():
        program = jax.jit(function).lower(*arguments).compile()

    def measure():
        start = time.perf_counter()
        jax.block_until_ready(program(*arguments))
        return time.perf_counter() - start

    return measure


def _directions(module) -> dict[str, Callable]:
    def field(variables, x, **how):
        return jax.tree.leaves(module.apply(variables, x, **how))[0]

    def gradient(variables, x):
        how: dict = {}
        if isinstance(module, DROPPING):
            how = dict(train=True, rngs={"dropout": jax.random.key(1)})
        y, pull = jax.vjp(lambda v, x: field(v, x, **how), variables, x)
        return pull(y)

    return dict(forward=field, gradient=gradient)


def of_models(
    names: list[str], modes: list[str], batch: int, devices: int, rounds: int
) -> list[dict]:
    """Whole programs."""
    found = []
    for case, mode in itertools.product(names, modes):
        measures = {}
        for name, context in VARIANTS.items():
            worker = Ours()
            with context():
                worker.prepare(
                    case, mode, batch, cases.DROPOUT, devices, scan_blocks=True
                )
            measures[name] = lambda worker=worker: worker.measure()["seconds"]
        found.append(row(case, mode, batch, in_turns(measures, rounds)))
    return found


def table(rows: list[dict]) -> str:
    """The rows as Markdown."""
    columns = {
        "what": lambda x: x["what"],
        "mode": lambda x: x["mode"],
        "batch": lambda x: x["batch"],
        "JAX ms": lambda x: f"{1e3 * x['medians']['jax']:,.1f}",
        "C++ ms": lambda x: f"{1e3 * x['medians']['cpp']:,.1f}",
        "JAX / C++": lambda x: f"{x['medians']['jax'] / x['medians']['cpp']:.2f}",
    }
    return report.table(columns, rows)


def main() -> None:
    """Runs the measurements requested on the command line."""
    cpu.restart_with_huge_pages()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = ",".join(cases.CASES)
    parser.add_argument(
        "--levels", type=int, default=2, choices=(0, 1, 2), help="of layers"
    )
    parser.add_argument(
        "--cases",
        type=options.names(cases.CASES),
        default=[],
        help=f"whole models, in place of layers: {known}",
    )
    parser.add_argument("--modes", type=options.names(MODES), default=list(MODES))
    parser.add_argument("--batch", type=options.positive, default=2)
    parser.add_argument(
        "--rounds", type=options.positive, default=7, help="measured calls"
    )
    parser.add_argument(
        "--out", type=pathlib.Path, help="JSON file; a .md file is written next to it"
    )
    a = parser.parse_args()
    devices = machine.largest_divisor(a.batch, machine.cores()) if a.cases else 1
    jax_cpu.data_mesh(devices)
    if not library.available():
        parser.error("there are no functions in C++ here: they need a C++ compiler")
    if a.cases:
        rows = of_models(a.cases, a.modes, a.batch, devices, a.rounds)
    else:
        rows = [
            *of_convolutions(CONVOLUTIONS, a.rounds),
            *of_norms(NORMS, a.rounds),
            *of_layers(a.levels, a.rounds),
        ]
    found = dict(
        machine=machine.describe() | dict(versions={"jax": jax.__version__}),
        setting={k: v for k, v in vars(a).items() if k != "out"}
        | dict(devices=devices),
        rows=rows,
    )
    text = (
        f"{report.machine_line(found['machine'])}\n\n{devices} CPU devices; times are "
        f"medians of {a.rounds}, in turns.\n\n{table(rows)}\n"
    )
    print(text)
    report.write(a.out, found, text)


if __name__ == "__main__":
    main()
