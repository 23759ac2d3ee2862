r"""The cost of cuboid attention, computed in four ways, at the Earthformers' sizes.

    python benchmarks/attention.py
    python benchmarks/attention.py --cases nbody --types bfloat16 --batch 16
    python benchmarks/attention.py --cases tiny --batch 1

On JAX's default device: `ops.attention.softmax_attention` ("xla"), its tuned form
("tuned"), and `jax.nn.dot_product_attention` by XLA ("library") and by cuDNN; forward,
and with the gradient with respect to queries, keys, values and bias. They take turns,
round by round; a round makes many calls and waits for the last. What a device does not
support is left out, and the reason is given. Results are compared with those of "xla":
in float32 they differ by the precision of the device's products. With dropout, "tuned"
drops the same weights only on a CPU.

Pass the fastest one to a model as `attn_implementation` ("xla", "library" or
"cudnn"); if "tuned" wins, the backend belongs in `ops.tuned.choice.MEASURED`.
"""

import argparse
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

sys.path[0] = str(pathlib.Path(__file__).parents[1])

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks import machine, report  # noqa: E402
from earthformer_jax.ops.attention import IMPLEMENTATIONS  # noqa: E402
from earthformer_jax.ops.tuned.attention import softmax_attention  # noqa: E402
from earthformer_jax.ops.tuned.hashed_key import hashed_key  # noqa: E402

HEADS = 4


class Shape(NamedTuple):
    """Cuboids per example, queries and keys per cuboid, and width of a head."""

    name: str
    n: int
    q: int
    s: int
    e: int


# Axial attention of the encoder in `benchmarks.cases`. The 8 additional keys are the
# global vectors.
SHAPES = {
    "enso": (
        Shape("along t", 576, 12, 12, 16),
        Shape("along h or w", 288, 24, 24, 16),
        Shape("level 1, along any", 144, 12, 12, 32),
    ),
    "enso_paper": (
        Shape("along t", 576, 12, 20, 16),
        Shape("along h or w", 288, 24, 32, 16),
        Shape("level 1, along any", 144, 12, 20, 32),
    ),
    "nbody": (
        Shape("along t", 1024, 10, 10, 16),
        Shape("along h or w", 320, 32, 32, 16),
        Shape("level 1, along t", 256, 10, 10, 32),
        Shape("level 1, along h or w", 160, 16, 16, 32),
    ),
    "sevir": (
        Shape("along t", 1024, 13, 21, 32),
        Shape("along h or w", 416, 32, 40, 32),
        Shape("level 1, along t", 256, 13, 21, 64),
        Shape("level 1, along h or w", 208, 16, 24, 64),
    ),
    # to check that everything runs
    "tiny": (Shape("a few", 2, 4, 6, 8),),
}
WAYS: dict[str, Callable] = {
    "xla": IMPLEMENTATIONS["xla"],
    "tuned": softmax_attention.tuned,
    "library": IMPLEMENTATIONS["library"],
    "cudnn": IMPLEMENTATIONS["cudnn"],
}
DIRECTIONS = ("forward", "gradient")


def arguments(shape: Shape, batch: int, dtype: str) -> dict[str, jax.Array]:
    """Queries, keys and values of a type, and a bias in float32."""
    random = np.random.default_rng(0)
    _, n, q, s, e = shape

    def normal(*sizes, scale=1.0):
        return jnp.asarray(scale * random.normal(size=sizes), dtype)

    return dict(
        query=normal(batch, n, HEADS, q, e, scale=e**-0.5),
        key=normal(batch, n, HEADS, s, e),
        value=normal(batch, n, HEADS, s, e),
        bias=normal(HEADS, q, s).astype(jnp.float32),
    )


def function(way: str, direction: str, dropout: float) -> Callable:
    """A function of (arguments, key): the result, or gradients of its mean square."""

    def attend(found, key):
        key = key if dropout else None
        return WAYS[way](**found, dropout_rate=dropout, dropout_key=key)

    def loss(found, key):
        return jnp.mean(jnp.square(attend(found, key).astype(jnp.float32)))

    return attend if direction == "forward" else jax.grad(loss)


def missing(way: str, platform: str) -> str | None:
    """Why an implementation does not exist on a platform, or None if it does."""
    if way == "cudnn" and platform != "gpu":
        return f"cuDNN needs an NVIDIA GPU; this is a {platform}"
    return None


def difference(have, want) -> float:
    """Largest difference between two trees, relative to each array's largest value."""
    largest = 0.0
    for x, y in zip(*map(jax.tree.leaves, (have, want)), strict=True):
        x, y = (np.asarray(z, np.float32) for z in (x, y))
        largest = max(largest, float(np.abs(x - y).max() / np.abs(y).max()))
    return largest


def measure(a, case: str, shape: Shape, dtype: str, direction: str) -> dict:
    """One row: the times of each implementation, and why any are left out."""
    found = arguments(shape, a.batch, dtype)
    key = hashed_key(jax.random.key(1))
    row = dict(case=case, **shape._asdict(), dtype=dtype, direction=direction)
    row |= dict(ways={}, missing={})
    programs, want = {}, None
    for way in WAYS:
        reason = missing(way, jax.default_backend())
        if reason:
            row["missing"][way] = reason
            continue
        run = jax.jit(function(way, direction, a.dropout))
        try:
            program = run.lower(found, key).compile()
            out = jax.block_until_ready(program(found, key))
        except Exception as error:  # of many kinds; each says what is unsupported
            row["missing"][way] = (str(error).strip() or repr(error)).splitlines()[0]
            continue
        want = out if want is None else want
        programs[way] = program
        memory = program.memory_analysis()
        row["ways"][way] = dict(
            seconds=[],
            difference=difference(out, want),
            temporary_mib=memory.temp_size_in_bytes / 2**20 if memory else None,
        )
    for turn in range(a.rounds + 1):  # the first one warms up
        for way, program in programs.items():
            start = time.perf_counter()
            for _ in range(a.calls):
                out = program(found, key)
            jax.block_until_ready(out)
            if turn:
                seconds = (time.perf_counter() - start) / a.calls
                row["ways"][way]["seconds"].append(seconds)
    for way in row["ways"].values():
        way["median_s"] = statistics.median(way["seconds"])
    return row


def fastest(row: dict) -> str | None:
    """The implementation with the smallest median, or None if there are none."""
    ways = row["ways"]
    return min(ways, key=lambda way: ways[way]["median_s"]) if ways else None


def progress(row: dict) -> str:
    """A row as one line of text."""
    times = [f"{way} {x['median_s'] * 1e3:.3f} ms" for way, x in row["ways"].items()]
    return (
        f"{row['case']} {row['name']}, {row['dtype']}, {row['direction']}: "
        f"{', '.join(times)}"
    )


def table(rows: list[dict]) -> str:
    """The rows as Markdown: milliseconds of each implementation, and the fastest."""

    def milliseconds(way):
        def cell(row):
            found = row["ways"].get(way)
            return found and f"{found['median_s'] * 1e3:.3f}"

        return cell

    columns = {
        "case": lambda row: row["case"],
        "attention": lambda row: row["name"],
        "cuboids": lambda row: row["n"],
        "queries x keys": lambda row: f"{row['q']} x {row['s']}",
        "width": lambda row: row["e"],
        "type": lambda row: row["dtype"],
        "direction": lambda row: row["direction"],
        **{f"{way} ms": milliseconds(way) for way in WAYS},
        "fastest": fastest,
    }
    return report.table(columns, rows)


def left_out(rows: list[dict]) -> list[str]:
    """A line for each implementation and reason, with the rows it concerns."""
    reasons = {}
    for row in rows:
        for way, reason in row["missing"].items():
            what = f"{row['case']} {row['name']} {row['dtype']} {row['direction']}"
            reasons.setdefault((way, reason), []).append(what)
    return [
        f"Left out, {way} ({'all' if len(x) == len(rows) else '; '.join(x)}): {why}"
        for (way, why), x in reasons.items()
    ]


def main() -> None:
    """Runs the measurements requested on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cases = [x for x in SHAPES if x != "tiny"]
    parser.add_argument("--cases", nargs="+", choices=SHAPES, default=cases)
    parser.add_argument("--types", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--batch", type=int, default=4, help="examples per batch")
    parser.add_argument("--dropout", type=float, default=0.0, help="dropout rate")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of timing")
    parser.add_argument("--calls", type=int, default=20, help="calls per round")
    parser.add_argument(
        "--out", type=pathlib.Path, help="JSON file; a .md file is written next to it"
    )
    a = parser.parse_args()
    rows = []
    for case in a.cases:
        for shape in SHAPES[case]:
            for dtype in a.types:
                for direction in DIRECTIONS:
                    rows.append(measure(a, case, shape, dtype, direction))
                    print(progress(rows[-1]), flush=True)
    found = dict(
        machine=machine.describe() | dict(versions={"jax": jax.__version__}),
        device=jax.devices()[0].device_kind,
        setting={k: v for k, v in vars(a).items() if k != "out"},
        rows=rows,
    )
    text = "\n\n".join(
        [
            f"{report.machine_line(found['machine'])}; device {found['device']}.",
            f"Batch {a.batch}, {HEADS} heads, dropout {a.dropout}; times are medians "
            f"of {a.rounds} rounds of {a.calls} calls.",
            table(rows),
            *left_out(rows),
        ]
    )
    print(f"\n{text}")
    report.write(a.out, found, text)


if __name__ == "__main__":
    main()
