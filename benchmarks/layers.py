r"""The cost of single layers of the Earthformer, at the sizes of N-body MNIST.

    python benchmarks/layers.py
    python benchmarks/layers.py --batch 4 --out benchmarks/results/layers.json

Time and temporary memory of cuboid attention along t, h and w and in windows of 4 x 4,
without and with 8 global vectors, of the feed-forward layer, of merging, up-sampling
and a 3 x 3 convolution: forward, and the gradient with respect to parameters and
inputs. Both levels: 10 x 32 x 32 positions of 64 channels, 10 x 16 x 16 of 128. The
layers take turns, round by round, so that other load on the machine affects all of
them. Next to the multiply-adds is the rate at which they are done, as a share of the
rate of a product of large matrices; the gradient counts as three forward passes. Uses
large memory pages, as the command line does.
"""

import argparse
import dataclasses
import pathlib
import statistics
import sys
import time
from collections.abc import Callable

sys.path[0] = str(pathlib.Path(__file__).parents[1])

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from flax import linen as nn  # noqa: E402

from benchmarks import jax_cpu, machine, report  # noqa: E402
from earthformer_jax.layers.convolution import FrameConv  # noqa: E402
from earthformer_jax.layers.feed_forward import FeedForward  # noqa: E402
from earthformer_jax.layers.resample import PatchMerging, Upsample  # noqa: E402
from earthformer_jax.models.earthformer.cuboid_attention import CuboidSelfAttention  # noqa: E402
from earthformer_jax.models.earthformer.options import AttentionOptions  # noqa: E402
from earthformer_jax.ops.cuboid import CuboidSpec  # noqa: E402
from earthformer_jax.profiling.multiply_adds import multiply_adds  # noqa: E402
from earthformer_jax.run import cpu  # noqa: E402
from earthformer_jax.training import mesh as mesh_lib  # noqa: E402

LEVELS = ((10, 32, 32, 64), (10, 16, 16, 128))  # t, h, w, c
HEADS, GLOBAL_VECTORS, WINDOW = 4, 8, 4


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer and the shapes it is called with, without the batch axis."""

    name: str
    module: nn.Module
    shapes: tuple[tuple[int, ...], ...]


def layers(shape: tuple[int, int, int, int]) -> list[Layer]:
    """The layers of one level, on a field of shape (t, h, w, c)."""
    t, h, w, c = shape
    cuts = {
        "along t": (t, 1, 1),
        "along h": (1, h, 1),
        "along w": (1, 1, w),
        f"in {WINDOW} x {WINDOW}": (1, WINDOW, WINDOW),
    }
    found = []
    for vectors in (0, GLOBAL_VECTORS):
        shapes = (shape, (vectors, c)) if vectors else (shape,)
        more = f", {vectors} global vectors" if vectors else ""
        for cut, size in cuts.items():
            options = AttentionOptions(num_heads=HEADS)
            module = CuboidSelfAttention(options, CuboidSpec(size))
            found.append(Layer(f"attention {cut}{more}", module, shapes))
    return [
        *found,
        Layer("feed-forward", FeedForward(), (shape,)),
        Layer("merging 2 x 2", PatchMerging(), (shape,)),
        Layer("up-sampling 2 x 2", Upsample(c, (2 * h, 2 * w)), (shape,)),
        Layer("convolution 3 x 3", FrameConv(c), (shape,)),
    ]


def functions(module: nn.Module) -> dict[str, tuple[Callable, int]]:
    """Functions of (variables, inputs), and the forward passes each counts as."""

    def loss(variables, inputs):
        found = jax.tree.leaves(module.apply(variables, *inputs))
        return sum(jnp.mean(jnp.square(x)) for x in found)

    return dict(
        forward=(lambda variables, inputs: module.apply(variables, *inputs), 1),
        gradient=(jax.grad(loss, (0, 1)), 3),
    )


def measure(a, mesh: jax.sharding.Mesh) -> list[dict]:
    """One row per level, layer and direction."""
    everywhere, spread = mesh_lib.replicated(mesh), mesh_lib.by_example(mesh)
    random = np.random.default_rng(0)
    rows, runs = [], []
    for level, shape in enumerate(LEVELS[: a.levels]):
        for layer in layers(shape):
            inputs = tuple(
                jax.device_put(
                    random.normal(size=(a.batch, *s)).astype(np.float32), spread
                )
                for s in layer.shapes
            )
            variables = layer.module.init(jax.random.key(0), *inputs)
            variables = jax.device_put(variables, everywhere)
            count = multiply_adds(layer.module.apply, variables, *inputs)
            for name, (function, passes) in functions(layer.module).items():
                program = jax.jit(function).lower(variables, inputs).compile()
                memory = program.memory_analysis().temp_size_in_bytes * a.devices
                row = dict(
                    level=level,
                    layer=layer.name,
                    direction=name,
                    multiply_adds=passes * count,
                    temporary_mib=memory / 2**20,
                    seconds=[],
                )
                rows.append(row)
                runs.append((row, program, variables, inputs))
    for turn in range(a.rounds + 1):  # the first one warms up
        for row, program, variables, inputs in runs:
            start = time.perf_counter()
            jax.block_until_ready(program(variables, inputs))
            if turn:
                row["seconds"].append(time.perf_counter() - start)
    return rows


def rates(row: dict, matrix_gflops: float) -> dict:
    """Median time of a row, operations per second, and their share of the rate."""
    median = statistics.median(row["seconds"])
    gflops = 2 * row["multiply_adds"] / median / 1e9
    return dict(median_s=median, gflops=gflops, share=gflops / matrix_gflops)


def table(rows: list[dict]) -> str:
    """The rows as Markdown, one line per layer: forward / gradient."""

    def both(form, key, scale=1.0):
        return lambda pair: " / ".join(form.format(scale * row[key]) for row in pair)

    columns = {
        "level": lambda pair: pair[0]["level"],
        "layer": lambda pair: pair[0]["layer"],
        "10^6 multiply-adds": both("{:,.0f}", "multiply_adds", 1e-6),
        "ms": both("{:.1f}", "median_s", 1e3),
        "temporary MiB": both("{:.1f}", "temporary_mib"),
        "GFLOP/s": both("{:.0f}", "gflops"),
        "share of the machine's rate": both("{:.0%}", "share"),
    }
    pairs = list(zip(rows[::2], rows[1::2], strict=True))
    return report.table(columns, pairs)


def main() -> None:
    """Runs the measurements requested on the command line."""
    cpu.restart_with_huge_pages()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=2, help="examples per batch")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of timing")
    parser.add_argument(
        "--levels", type=int, default=len(LEVELS), help="how many: 1 or 2"
    )
    parser.add_argument(
        "--devices", type=int, help="default: the most that divide the batch"
    )
    parser.add_argument(
        "--out", type=pathlib.Path, help="JSON file; a .md file is written next to it"
    )
    a = parser.parse_args()
    a.devices = a.devices or machine.largest_divisor(a.batch, machine.cores())
    mesh = jax_cpu.data_mesh(a.devices)
    rate = jax_cpu.matrix_gflops()
    rows = [row | rates(row, rate) for row in measure(a, mesh)]
    found = dict(
        machine=machine.describe() | dict(versions={"jax": jax.__version__}),
        setting={k: v for k, v in vars(a).items() if k != "out"},
        matrix_gflops=rate,
        rows=rows,
    )
    text = (
        f"{report.machine_line(found['machine'])}\n\nBatch {a.batch} on {a.devices} "
        f"CPU devices; product of matrices {rate:.0f} GFLOP/s; times are medians of "
        f"{a.rounds}; forward / gradient.\n\n{table(rows)}\n"
    )
    print(text)
    report.write(a.out, found, text)


if __name__ == "__main__":
    main()
