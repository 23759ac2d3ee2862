r"""How time grows with frames, height, width, batch and depth at fixed cuboids.

    python benchmarks/growth.py --out benchmarks/results/growth.json
    python benchmarks/growth.py --models conv_lstm predrnn --devices 1 2

Cuboids of 2 x 4 x 4 and cross-attention over 4 frames at a time, whatever the size of
the field, so that multiply-adds are proportional to frames (in and out), height, width
and batch, and affine in the number of blocks: stem and head come on top. Recurrent
models do as much in every frame. From a small model, without dropout, one size at a
time is doubled, or a block is added; forward pass and training step take turns over all
sizes, the shortest of several times counts (other load on the machine only adds to it),
and exponents are fitted by least squares in log-log. On several CPU devices the
smallest batch has an example for each. Most of the few minutes is spent compiling.
Writes JSON, a Markdown table and a figure of the first model and number of devices.
Uses large memory pages, as the command line does.
"""

import argparse
import functools
import math
import pathlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

sys.path[0] = str(pathlib.Path(__file__).parents[1])

import jax  # noqa: E402
import matplotlib as mpl  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.ticker import FuncFormatter, NullFormatter  # noqa: E402

from benchmarks import jax_cpu, machine, report  # noqa: E402
from earthformer_jax import models  # noqa: E402
from earthformer_jax.models.earthformer.model import Earthformer  # noqa: E402
from earthformer_jax.ops.patterns import CrossSpec  # noqa: E402
from earthformer_jax.plotting.style import OTHER_COLOURS, STYLE, save  # noqa: E402
from earthformer_jax.profiling.multiply_adds import multiply_adds  # noqa: E402
from earthformer_jax.run import cpu  # noqa: E402
from earthformer_jax.training import mesh as mesh_lib  # noqa: E402
from earthformer_jax.training import state as state_lib  # noqa: E402
from earthformer_jax.training import step as step_lib  # noqa: E402

BASE = dict(frames=4, height=32, width=32, batch=1, depth=1)
LABELS = dict(
    frames="T (frames)",
    height="H (height)",
    width="W (width)",
    batch="batch",
    depth="depth (blocks)",
)
MODES = dict(forward="Forward pass", train="Training step")
BASE_UNITS, CROSS_FRAMES, RATE = 32, 4, 1e-3
RECURRENT: dict[str, dict[str, Any]] = {
    "conv_lstm": dict(features=(16, 16, 16)),
    "predrnn": dict(num_layers=2, features=16),
}
MODELS = ("earthformer", *RECURRENT)
COLOURS = ("#b2182b", "#2166ac", *OTHER_COLOURS[:1], *OTHER_COLOURS[2:])
MARKERS = "osD^v"


def model_of(name: str, size: Mapping[str, int]) -> Any:
    """A model for a size; cuboids do not grow with it.

    Args:
        name: one of `MODELS`.
        size: as `BASE`.
    """
    shape = (size["frames"], size["height"], size["width"], 1)
    if name in RECURRENT:
        return models.create_model(name, shape, shape, **RECURRENT[name])
    cross = (CrossSpec((1, 1), n_temporal=size["frames"] // CROSS_FRAMES),)
    return Earthformer(
        input_shape=shape,
        target_shape=shape,
        base_units=BASE_UNITS,
        enc_depth=(size["depth"],),
        dec_depth=(size["depth"],),
        enc_pattern="video_swin_2x4",
        dec_self_pattern="video_swin_2x4",
        dec_cross_pattern=(cross,),
        num_global_vectors=0,
        use_global_self_attn=False,
        attn_drop=0.0,
        proj_drop=0.0,
        ffn_drop=0.0,
    )


def sizes(
    doublings: int, name: str = MODELS[0], devices: int = 1
) -> dict[str, list[dict[str, int]]]:
    """For each thing that grows: the base, and the larger sizes."""
    base = BASE | {"batch": devices * BASE["batch"]}
    steps = range(doublings + 1)
    found = {axis: [base[axis] * 2**i for i in steps] for axis in base}
    found["depth"] = [base["depth"] + i for i in steps]  # not a power law
    if name in RECURRENT:
        del found["depth"]
    return {
        axis: [base | {axis: n} for n in numbers] for axis, numbers in found.items()
    }


def function_of(model: Any, mode: str) -> Callable:
    """The forward pass or the training step, a function of (state, batch)."""
    if mode == "forward":

        def forward(state, batch):
            variables = state_lib.with_batch_stats(state.params, state.batch_stats)
            return model.apply(variables, batch["inputs"])

        return forward
    return functools.partial(
        step_lib.update,
        model=model,
        tx=optax.adam(RATE),
        learning_rate=optax.constant_schedule(RATE),
        loss_weights=np.ones((1, 1, 1, 1), np.float32),
        total_steps=100,
    )


def state_of(model: Any) -> state_lib.TrainState:
    """The state before the first step of training."""
    return state_lib.create_state(
        jax.random.key(0),
        model=model,
        tx=optax.adam(RATE),
        input_shape=model.input_shape,
    )


class Program:
    """The compiled forward pass or training step of a model of one size."""

    def __init__(
        self, name: str, size: Mapping[str, int], mode: str, mesh: jax.sharding.Mesh
    ):
        """Compiles without running anything."""
        self.mode = mode
        self.seconds = []
        model, everywhere = model_of(name, size), mesh_lib.replicated(mesh)
        random, shape = np.random.default_rng(0), (size["batch"], *model.input_shape)
        batch = {
            key: random.normal(size=shape).astype(np.float32)
            for key in ("inputs", "targets")
        }
        state = state_of(model)
        function = function_of(model, mode)
        forward = function_of(model, "forward")
        self.multiply_adds = multiply_adds(forward, state, batch)
        self.state = jax.device_put(state, everywhere)
        self.batch = jax.device_put(batch, mesh_lib.by_example(mesh))
        out = everywhere if mode == "train" else mesh_lib.by_example(mesh)
        lowered = jax.jit(function, out_shardings=out).lower(self.state, self.batch)
        self.run = lowered.compile()

    def measure(self) -> None:
        """Runs once and records the time."""
        start = time.perf_counter()
        jax.block_until_ready(self.run(self.state, self.batch))
        self.seconds.append(time.perf_counter() - start)


def measure(name: str, devices: int, doublings: int, rounds: int) -> list[dict]:
    """One row per mode and size: "mode", the size, multiply-adds, seconds."""
    mesh = mesh_lib.data_mesh(jax.devices()[:devices])
    program = functools.cache(
        lambda mode, size: Program(name, dict(size), mode, mesh)  # the base occurs once
    )
    points = [
        (mode, axis, size)
        for mode in MODES
        for axis, found in sizes(doublings, name, devices).items()
        for size in found
    ]
    for mode, _, size in points:
        program(mode, tuple(size.items()))
    programs = {(mode, tuple(size.items())) for mode, _, size in points}
    for turn in range(rounds + 1):
        for mode, size in sorted(programs):
            program(mode, size).measure()
            if not turn:
                program(mode, size).seconds.clear()  # drop the warm-up
    rows = []
    for mode, axis, size in points:
        found = program(mode, tuple(size.items()))
        rows.append(
            dict(
                model=name,
                devices=devices,
                mode=mode,
                axis=axis,
                size=size,
                multiply_adds=found.multiply_adds,
                least_s=min(found.seconds),
                seconds=found.seconds,
            )
        )
    return rows


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """The power p of y ~ x**p, by least squares in log-log."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def affine(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """(a, b) of y ~ a + b x, by least squares of relative errors."""
    slope, constant = np.polyfit(x, y, 1, w=1 / np.asarray(y))
    return float(constant), float(slope)


def fits(rows: list[dict]) -> list[dict]:
    """One row per model, devices, mode and axis: exponents and affine fits."""
    lines: dict[tuple, list[dict]] = {}
    for row in rows:
        key = tuple(row[name] for name in ("model", "devices", "mode", "axis"))
        lines.setdefault(key, []).append(row)
    found = []
    for (model, devices, mode, axis), points in lines.items():
        x = [row["size"][axis] for row in points]
        y = [row["least_s"] for row in points]
        constant, slope = affine(x, y)
        found.append(
            dict(
                model=model,
                devices=devices,
                mode=mode,
                axis=axis,
                x=x,
                seconds=y,
                exponent=exponent(x, y),
                last_exponent=exponent(x[-2:], y[-2:]),
                multiply_adds_exponent=exponent(
                    x, [row["multiply_adds"] for row in points]
                ),
                constant_s=constant,
                per_unit_s=slope,
            )
        )
    return found


def table(found: list[dict]) -> str:
    """The fits as Markdown."""
    columns = {
        "model": lambda row: row["model"],
        "devices": lambda row: row["devices"],
        "mode": lambda row: row["mode"],
        "what grows": lambda row: LABELS[row["axis"]],
        "sizes": lambda row: ", ".join(map(str, row["x"])),
        "ms": lambda row: ", ".join(f"{1e3 * s:.1f}" for s in row["seconds"]),
        "exponent": lambda row: f"{row['exponent']:.2f}",
        "of the last step": lambda row: f"{row['last_exponent']:.2f}",
        "of multiply-adds": lambda row: f"{row['multiply_adds_exponent']:.2f}",
        "theory": lambda row: "affine" if row["axis"] == "depth" else "1",
        "ms = a + b n": lambda row: (
            f"{1e3 * row['constant_s']:.1f} + {1e3 * row['per_unit_s']:.2f} n"
        ),
    }
    return report.table(columns, found)


def figure(found: list[dict]) -> Figure:
    """Time against size relative to the base, log-log, one panel per mode.

    Args:
        found: the fits of one model on one number of devices.
    """
    name = found[0]["model"].replace("_", " ")
    title_of_all = f"Time of {name} against what grows"
    with mpl.rc_context(STYLE):
        drawn = Figure(figsize=(9.6, 4.6), layout="constrained")
        FigureCanvasAgg(drawn)
        for axes, (mode, title) in zip(
            drawn.subplots(1, 2, sharex=True), MODES.items(), strict=True
        ):
            lines = [row for row in found if row["mode"] == mode]
            styles = zip(COLOURS, MARKERS, strict=True)
            for row, (colour, marker) in zip(lines, styles, strict=False):
                axes.plot(
                    np.asarray(row["x"]) / row["x"][0],
                    1e3 * np.asarray(row["seconds"]),
                    color=colour,
                    marker=marker,
                    markersize=5,
                    linewidth=1.8,
                    label=f"{LABELS[row['axis']]}: {row['exponent']:.2f}",
                )
            most = max(len(row["x"]) for row in lines) - 1
            ends = np.array([1, 2**most])
            start = 1e3 * lines[0]["seconds"][0]
            axes.plot(
                ends,
                start * ends,
                color="0.35",
                linestyle=(0, (5, 2)),
                linewidth=1.2,
                label="proportional: 1",
                zorder=1,
            )
            axes.set_xscale("log", base=2)
            axes.set_yscale("log", base=2)
            axes.set_xticks(2 ** np.arange(most + 1))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g} ×"))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.grid(color="0.92", linewidth=0.8)
            axes.set_axisbelow(True)
            axes.set_xlabel("Size, relative to the smallest")
            axes.set_ylabel("Time (ms)")
            axes.set_title(title, loc="left", fontweight="bold")
            axes.set_ylim(top=4 * axes.get_ylim()[1])  # room for the legend
            axes.legend(
                title="What grows, and fitted exponent",
                alignment="left",
                loc="upper left",
            )
        drawn.suptitle(
            title_of_all,
            x=0.01,
            ha="left",
            fontweight="bold",
        )
    return drawn


def main() -> None:
    """Runs the measurements requested on the command line."""
    cpu.restart_with_huge_pages()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=[*MODELS])
    parser.add_argument(
        "--devices", nargs="+", type=int, default=[1], help="numbers of CPU devices"
    )
    parser.add_argument(
        "--doublings", type=int, default=3, help="how often each size is doubled"
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds of timing")
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        help="JSON file; .md and .png are written next to it",
    )
    a = parser.parse_args()
    if a.doublings < 1 or a.rounds < 1:
        parser.error("--doublings and --rounds must be positive")
    jax_cpu.data_mesh(max(a.devices))
    rows = []
    for name in a.models:
        for devices in a.devices:
            rows += measure(name, devices, a.doublings, a.rounds)
            print(f"{name}, {devices} devices: done", flush=True)
    found = dict(
        machine=machine.describe() | dict(versions={"jax": jax.__version__}),
        setting=dict(doublings=a.doublings, rounds=a.rounds, base=BASE),
        rows=rows,
        fits=fits(rows),
    )
    smallest = math.prod(BASE[k] for k in ("frames", "height", "width"))
    text = (
        f"{report.machine_line(found['machine'])}\n\nShortest time of {a.rounds}; the "
        f"smallest field has {smallest:,} cells.\n\n{table(found['fits'])}\n"
    )
    print(text)
    report.write(a.out, found, text)
    if a.out:
        first = [
            row
            for row in found["fits"]
            if (row["model"], row["devices"]) == (a.models[0], a.devices[0])
        ]
        save(figure(first), a.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
