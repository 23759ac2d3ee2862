"""Sequences of frames as rows: samples below each other, next to what was true."""

from collections.abc import Mapping

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from earthformer_jax.plotting.fields import colours_of, label_of
from earthformer_jax.plotting.frames import colour_bar, every, panel, wrapped
from earthformer_jax.plotting.style import figure_style, lead_label

COLUMNS = 10
CELL = 0.95  # inches across a frame
INPUTS = "Inputs"


def frame_rows(
    rows: Mapping[str, np.ndarray], *, channel, display, title: str = ""
) -> Figure:
    """One row for each sequence, all with the same colours.

    Args:
        rows: label -> `[n, h, w]`, shown values; NaN (grey) where unknown. If there is
            a row "Inputs", the first frame of all others is lead 1.
        channel: `data.dataset.Channel` of the fields.
        display: `data.dataset.Display`.
        title: of the figure.
    """
    arrays = {label: np.asarray(fields) for label, fields in rows.items()}
    chosen = {label: every(len(x), COLUMNS) for label, x in arrays.items()}
    columns = max(map(len, chosen.values()))
    height, width = next(iter(arrays.values())).shape[-2:]
    cell = CELL * min(1, width / height)
    size = (
        columns * (cell + 0.05) + 1.6,
        len(arrays) * (cell * height / width + 0.22) + 0.4 + 0.4 * bool(title),
    )
    colours = colours_of(channel.colormap, channel.limits, list(arrays.values()))
    with figure_style(font_size=9):
        figure = Figure(figsize=size)
        FigureCanvasAgg(figure)
        figure.set_layout_engine(
            "compressed", w_pad=0.02, h_pad=0.02, hspace=0, wspace=0
        )
        grid = figure.subplots(len(arrays), columns, squeeze=False)
        for row, (label, fields) in zip(grid, arrays.items(), strict=True):
            which = chosen[label]
            blank = columns - len(which)
            for axes in row[:blank]:
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
            for axes, i in zip(row[blank:], which, strict=True):
                panel(axes, fields[i], colours, display.south_first)
                lead = i - len(fields) + 1 if label == INPUTS else i + 1
                text = f"frame {lead}"
                if INPUTS in arrays:
                    text = lead_label(display.frame, lead)
                axes.set_title(text, fontsize=7.5, color="0.35", pad=2)
            row[0].set_ylabel(label, rotation=0, ha="right", va="center", labelpad=6)
        options = dict(pad=0.012, fraction=0.03, aspect=40)
        colour_bar(figure, grid, colours, label_of(channel), **options)
        if title:
            figure.suptitle(
                wrapped(title, figure),
                x=0.01,
                ha="left",
                fontsize=11,
                fontweight="bold",
            )
    return figure
