r"""Figures 2 to 5 of the paper, drawn from the code; figure 11 is `chaos.py`.

    python experiments/figures.py --out=runs/figures
    python experiments/figures.py --only=4 --out=runs/figures
    python experiments/table5.py --data=nbody_mnist --scale=quick    # before figure 5
    python experiments/chaos.py --change=velocity --out=runs/figures

    2   the Earthformer: grids, channels and blocks of every level, from the model
    3   cuboid attention with global vectors: who attends to whom, in a small field
    4   cuboids of a field of (6, 4, 4): local, dilated and shifted
    5   forecasts of N-body MNIST by the models that table 5 has trained, --scale

Reference:
    Gao et al. 2022, Earthformer, https://arxiv.org/abs/2207.05833
"""

import argparse
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from paper.models_of_paper import LABELS
from paper.runs import RESULT, SCALES

import earthformer_jax
from earthformer_jax import plotting
from earthformer_jax.models import paper as sizes
from earthformer_jax.models.earthformer import Earthformer
from earthformer_jax.models.earthformer.variants import VARIANTS
from earthformer_jax.ops.cuboid import CuboidSpec, raster_order
from earthformer_jax.plotting.style import figure_style

FIGURES = ("2", "3", "4", "5")
DATA = "nbody_mnist"  # of figure 5
# Figure 4 of the paper: a field, cuboids, and how it is cut.
GRID, CUBOID = (6, 4, 4), (3, 2, 2)
CUTS = {
    "local": CuboidSpec(CUBOID),
    "dilated": CuboidSpec(CUBOID, "ddd"),
    "local, shifted\nby 1, 1, 1": CuboidSpec(CUBOID, shift=(1, 1, 1)),
}
# Of figure 3: small enough to show every pair.
SMALL_GRID, SMALL_CUBOID, VECTORS = (2, 4, 4), (2, 2, 2), 2
ENCODER, DECODER, EDGE, GLOBAL = "#d6e4f0", "#f6dfd3", "#4d4d4d", "#e08214"


def cuboids(grid: Sequence[int], spec: CuboidSpec) -> np.ndarray:
    """int `[t, h, w]`: the cuboid that each position is in."""
    order = raster_order(tuple(grid), spec, "ignore")
    found = np.empty(int(np.prod(grid)), int)
    for number, members in enumerate(order):
        found[members[members >= 0]] = number
    return found.reshape(grid)


def attends(grid: Sequence[int], spec: CuboidSpec, vectors: int) -> np.ndarray:
    """Who reads whom in one layer with global vectors (equations 7 and 8).

    Returns:
        bool `[n + vectors, n + vectors]`, rows read columns; positions in raster order
        come first, then the global vectors.
    """
    own = cuboids(grid, spec).ravel()
    count = len(own)
    found = np.ones((count + vectors, count + vectors), bool)
    found[:count, :count] = own[:, None] == own
    return found


def figure_2(model: Earthformer, title: str) -> Figure:
    """The hierarchy of a model: encoder on the left, decoder on the right."""
    levels = model.levels
    with figure_style():
        canvas = Figure(figsize=(9.5, 1.9 + 1.75 * levels))
        FigureCanvasAgg(canvas)
        axes = canvas.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, 10), ylim=(-1.1 - 2 * levels, 1.9))
        axes.axis("off")
        axes.text(0.3, 1.5, title, fontsize=13, fontweight="bold", va="center")
        frames_in, frames_out = model.input_shape[0], model.target_shape[0]
        plane = "x".join(map(str, model.input_shape[1:3]))
        _box(axes, (2.2, 0.6), f"input {frames_in} x {plane}\nconvolutions, merge", "w")
        _box(axes, (7.8, 0.6), f"forecast {frames_out} x {plane}\nup-sampling", "w")
        y = 0.6
        for level, (grid, width) in enumerate(
            zip(model.memory_grids, model.features, strict=True)
        ):
            below = -1.3 - 2 * level
            _, height, across = grid
            shape = f"{height} x {across}, {width} channels"
            _box(
                axes,
                (2.2, below),
                f"{model.enc_depth[level]} x cuboid self-attention\n"
                f"{grid[0]} x {shape}",
                ENCODER,
            )
            _box(
                axes,
                (7.8, below),
                f"{model.dec_depth[level]} x (self- and cross-attention)\n"
                f"{frames_out} x {shape}",
                DECODER,
            )
            _arrow(axes, (2.2, y - 0.5), (2.2, below + 0.5))
            _arrow(axes, (7.8, below + 0.5), (7.8, y - 0.5))
            _arrow(axes, (4.0, below), (6.0, below), "memory")
            if level:
                axes.text(2.35, (y + below) / 2, "patch merging", **_SMALL_LEFT)
                axes.text(7.95, (y + below) / 2, "up-sampling", **_SMALL_LEFT)
            y = below
        start = y - 1.25
        _arrow(axes, (7.8, start + 0.25), (7.8, y - 0.5))
        axes.text(7.8, start, "learned positions", ha="center", fontsize=9.5)
        if model.num_global_vectors:
            axes.text(
                2.2,
                start,
                f"{model.num_global_vectors} global vectors run along with the encoder",
                ha="center",
                fontsize=9.5,
                color=GLOBAL,
                fontweight="bold",
            )
    return canvas


_SMALL_LEFT: dict[str, Any] = dict(ha="left", va="center", fontsize=8.5, color="0.35")


def _box(axes, centre: tuple[float, float], text: str, colour: str) -> None:
    x, y = centre
    axes.add_patch(
        FancyBboxPatch(
            (x - 1.75, y - 0.45),
            3.5,
            0.9,
            boxstyle="round,pad=0.05",
            facecolor=colour,
            edgecolor=EDGE,
        )
    )
    axes.text(x, y, text, ha="center", va="center", fontsize=9.5, linespacing=1.5)


def _arrow(axes, start, end, text: str = "") -> None:
    axes.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=13, color=EDGE)
    )
    if text:
        middle = (start[0] + end[0]) / 2, start[1] + 0.15
        axes.text(*middle, text, ha="center", fontsize=9, color="0.35")


def figure_3() -> Figure:
    """Which keys each position and each global vector reads."""
    spec = CuboidSpec(SMALL_CUBOID)
    reads = attends(SMALL_GRID, spec, VECTORS)
    own = cuboids(SMALL_GRID, spec)
    count = own.size
    colours = _colours(own.max() + 1)
    shown = np.where(reads, own.max() + 2, 0)  # 0: does not read
    shown[:count, :count] = np.where(reads[:count, :count], own.ravel() + 1, 0)
    with figure_style():
        canvas = Figure(figsize=(9.5, 5.6))
        FigureCanvasAgg(canvas)
        canvas.text(
            0.03,
            0.94,
            "Cuboid attention with global vectors: who reads whom",
            fontsize=13,
            fontweight="bold",
        )
        for frame in range(SMALL_GRID[0]):
            axes = canvas.add_axes((0.04, 0.52 - 0.42 * frame, 0.26, 0.33))
            _frame(axes, own[frame], colours, f"frame {frame + 1}")
        axes = canvas.add_axes((0.42, 0.1, 0.55, 0.74))
        axes.imshow(
            shown,
            cmap=ListedColormap(["white", *colours, GLOBAL]),
            vmin=0,
            vmax=own.max() + 2,
            interpolation="nearest",
            aspect="auto",
        )
        axes.axhline(count - 0.5, color=EDGE, linewidth=1)
        axes.axvline(count - 0.5, color=EDGE, linewidth=1)
        ticks = [count / 2, count + VECTORS / 2 - 0.5]
        labels = [f"{count} positions", "global"]
        axes.set_xticks(ticks, labels)
        axes.set_yticks(ticks, labels, rotation=90, va="center")
        axes.tick_params(length=0)
        axes.set_xlabel("is read")
        axes.set_ylabel("reads")
        axes.spines[:].set_visible(True)
    return canvas


def figure_4(cuts: Mapping[str, CuboidSpec] = CUTS) -> Figure:
    """One row of frames for each way to cut; a colour is a cuboid."""
    with figure_style():
        canvas = Figure(figsize=(9.5, 1.15 + 1.4 * len(cuts)))
        FigureCanvasAgg(canvas)
        top = 1 - 0.75 / canvas.get_figheight()
        canvas.text(
            0.02,
            1 - 0.3 / canvas.get_figheight(),
            f"Cuboids of {_text(CUBOID)} in a field of {_text(GRID)}: "
            "one number, one cuboid",
            fontsize=12.5,
            fontweight="bold",
        )
        canvas.text(
            0.16,
            0.1 / canvas.get_figheight(),
            "Shifted cuboids wrap around; what comes from opposite edges does not "
            "attend to each other.",
            fontsize=8.5,
            color="0.35",
        )
        grid = canvas.add_gridspec(
            len(cuts),
            GRID[0],
            left=0.16,
            right=0.985,
            top=top,
            bottom=0.35 / canvas.get_figheight(),
            wspace=0.12,
            hspace=0.12,
        )
        for row, (name, spec) in enumerate(cuts.items()):
            found = cuboids(GRID, spec)
            colours = _colours(found.max() + 1)
            for frame in range(GRID[0]):
                axes = canvas.add_subplot(grid[row, frame])
                title = f"frame {frame + 1}" if row == 0 else ""
                _frame(axes, found[frame], colours, title)
                if frame == 0:
                    axes.set_ylabel(
                        name, rotation=0, ha="right", va="center", labelpad=8
                    )
    return canvas


def _frame(axes, numbers: np.ndarray, colours: list, title: str) -> None:
    """One frame, each position with the number of its cuboid."""
    axes.imshow(numbers, cmap=ListedColormap(colours), vmin=0, vmax=len(colours) - 1)
    for (row, column), number in np.ndenumerate(numbers):
        axes.text(column, row, f"{number + 1}", ha="center", va="center", fontsize=9)
    rows, columns = numbers.shape
    axes.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=9.5, color="0.35", pad=3)


def _colours(count: int) -> list:
    """Pale colours, easy to tell from each other, on which numbers can be read."""
    palette = mpl.colormaps["Set3"].colors  # pyright: ignore
    return [palette[i % len(palette)] for i in range(count)]


def _text(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))


def figure_5(folders: Mapping[str, pathlib.Path], example: int) -> Figure:
    """Forecasts of one test example by trained models, below the truth.

    Args:
        folders: workdirs by label.
        example: index in the test split.

    Raises:
        ValueError: if there is no such example.
    """
    trained = {name: earthformer_jax.load(folder) for name, folder in folders.items()}
    data = next(iter(trained.values())).data
    if not 0 <= example < len(data.test):
        raise ValueError(f"--example={example}: expected 0 to {len(data.test) - 1}")
    shown = data.test[example]
    rows = {"Inputs": shown["inputs"][..., 0], "Truth": shown["targets"][..., 0]}
    for label, model in trained.items():
        rows[label] = np.asarray(model(shown["inputs"][None]))[0, ..., 0]
    return plotting.frame_rows(
        rows,
        channel=data.display.channels[0],
        display=data.display,
        title="N-body MNIST: forecasts of one test sequence",
    )


def trained_models(out: pathlib.Path, scale: str) -> dict[str, pathlib.Path]:
    """Workdirs of the models of table 5 that are trained, by label."""
    folders = {
        label: out / scale / DATA / key / "seed-0" for key, (_, label) in LABELS.items()
    }
    return {name: f for name, f in folders.items() if (f / RESULT).exists()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="numbers; default: all that can be")
    parser.add_argument("--scale", choices=SCALES, default="quick", help="of figure 5")
    parser.add_argument("--tables", type=pathlib.Path, default="runs/tables")
    parser.add_argument("--example", type=int, default=0, help="of figure 5")
    parser.add_argument("--out", type=pathlib.Path, default="runs/figures")
    a = parser.parse_args(arguments)
    numbers = a.only.split(",") if a.only else list(FIGURES)
    if unknown := [number for number in numbers if number not in FIGURES]:
        parser.error(
            f"--only={unknown[0]}: expected some of {', '.join(FIGURES)} "
            "(figure 11 is chaos.py --change=velocity)"
        )
    folders = trained_models(a.tables, a.scale)
    if "5" in numbers and not folders:
        message = (
            f"figure 5 needs trained models below {a.tables / a.scale / DATA}: run "
            f"table5.py --data={DATA} --scale={a.scale} first"
        )
        if a.only:
            parser.error(message)
        print(message)
        numbers.remove("5")
    for number in numbers:
        if number == "2":
            inputs, targets = sizes.SHAPES["mnist"]
            model = Earthformer(inputs, targets, **VARIANTS["mnist"])
            made = figure_2(model, "The Earthformer for MovingMNIST and N-body MNIST")
        elif number == "5":
            try:
                made = figure_5(folders, a.example)
            except ValueError as error:
                parser.error(str(error))
        else:
            made = {"3": figure_3, "4": figure_4}[number]()
        path = a.out / f"figure{number}.png"
        plotting.save(made, path)
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
