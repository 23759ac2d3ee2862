"""Maps of attention: what the forecast of one place looks at, frame by frame."""

import dataclasses
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from earthformer_jax.plotting.style import GREY, figure_style

COLORMAP = "Reds"
QUERY_COLOUR = "#2166ac"


@dataclasses.dataclass(frozen=True)
class AttentionRow:
    """The weights of one layer, a row of the figure.

    Attributes:
        label: name of the layer.
        weights: `[t, h, w]`, each the share of one cell.
        frames: what the t frames are called.
        cell: pixels (rows, columns) that a cell covers.
        query: (t, h, w) of the cell that looks, as a cell of this row; t is None if it
            lies in none of the frames.
    """

    label: str
    weights: np.ndarray
    frames: Sequence[str]
    cell: tuple[int, int]
    query: tuple[int | None, int, int]


def attention_maps(
    rows: Sequence[AttentionRow],
    *,
    plane: tuple[int, int],
    unknown: np.ndarray | None = None,
    south_first: bool = False,
    title: str = "",
) -> Figure:
    """What one cell looks at: a row per layer, a column per frame.

    Every row has colours of its own, from 0 to its largest weight. The cell that looks
    is outlined: with a full line in its own frame, with a dotted one in the others.

    Args:
        rows: from the first layer to the last.
        plane: (H, W) of a frame in pixels.
        unknown: bool `[H, W]`, drawn grey over the maps: land where the sea counts.
        south_first: whether pixel row 0 is to be at the bottom.
        title: above everything.

    Raises:
        ValueError: if there are no rows, or a row has not as many names as frames.
    """
    if not rows:
        raise ValueError("rows is empty: nothing to draw")
    for row in rows:
        if len(row.frames) != len(row.weights):
            raise ValueError(
                f"{row.label}: {len(row.frames)} names for {len(row.weights)} frames"
            )
    columns = max(len(row.frames) for row in rows)
    shape = plane[0] / plane[1]
    width = min(1.5 * min(1, 1 / shape), 15 / columns)  # inches of a map
    size = (
        columns * (width + 0.05) + 2.3,
        len(rows) * (width * shape + 0.32) + 0.2 + 0.4 * bool(title),
    )
    with figure_style(9):
        figure = Figure(figsize=size)
        FigureCanvasAgg(figure)
        figure.set_layout_engine(
            "compressed", w_pad=0.02, h_pad=0.03, hspace=0, wspace=0
        )
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for axes, row in zip(grid, rows, strict=True):
            _row(figure, axes, row, plane, unknown, south_first)
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    return figure


def _row(figure, axes, row: AttentionRow, plane, unknown, south_first) -> None:
    percent = 100 * np.asarray(row.weights, np.float64)
    colours = ScalarMappable(Normalize(0, percent.max() or 1.0), COLORMAP)
    (ch, cw), (t, i, j) = row.cell, row.query
    for k, panel in enumerate(axes):
        panel.set(xticks=[], yticks=[])
        if k >= len(percent):
            panel.spines[:].set_visible(False)
            continue
        h, w = percent.shape[1:]
        panel.imshow(
            percent[k],
            cmap=colours.cmap,
            norm=colours.norm,
            extent=(0, w * cw, h * ch, 0),
            interpolation="nearest",
        )
        if unknown is not None:
            grey = np.ma.masked_where(~unknown, np.ones(plane))
            land = ListedColormap([GREY])
            panel.imshow(grey, cmap=land, extent=(0, plane[1], plane[0], 0))
        panel.add_patch(
            Rectangle(
                (j * cw, i * ch),
                cw,
                ch,
                fill=False,
                edgecolor=QUERY_COLOUR,
                linewidth=1.6 if k == t else 1.0,
                linestyle="-" if k == t else ":",
            )
        )
        # Cells may reach beyond the frame, where its size is not a multiple of theirs.
        bottom, top = (0, plane[0]) if south_first else (plane[0], 0)
        panel.set(xlim=(0, plane[1]), ylim=(bottom, top))
        panel.set_title(row.frames[k], fontsize=8, pad=2)
        panel.spines[:].set(visible=True, linewidth=0.6)
    axes[0].set_ylabel(
        textwrap.fill(row.label, 18),
        rotation=0,
        ha="right",
        va="center",
        fontweight="bold",
    )
    bar = figure.colorbar(colours, ax=axes, fraction=0.02, pad=0.01, aspect=8)
    bar.set_label("%", rotation=0, labelpad=8)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7.5, length=2)
