"""Animations of forecasts next to the truth."""

import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from earthformer_jax.plotting.fields import LEVELS, colours_of, label_of
from earthformer_jax.plotting.frames import (
    INPUT_COLOUR,
    TARGET_COLOUR,
    colour_bar,
    panel,
)
from earthformer_jax.plotting.style import figure_style, lead_label, look, moment_label

PALETTE = 256  # colours of a GIF
FLAT = 0.97  # share of the pixels that must have one of the most frequent colours
MANY = 8192  # most other colours
DPI = 100
PANEL = 256  # pixels of the longer side of a panel, about
MARGIN, GAP = 12, 12  # pixels


def forecast_animation(
    inputs: Sequence[np.ndarray],
    truth: Sequence[np.ndarray],
    forecasts: Mapping[str, Sequence[np.ndarray]],
    *,
    display,
    title: str = "",
    moments: np.ndarray | None = None,
) -> np.ndarray:
    """The inputs, then truth and forecasts side by side; a row for each channel.

    Args:
        inputs: `[t, h, w]` of each channel, in displayed units.
        truth: `[k, h, w]` of each channel; NaN (grey) where unknown.
        forecasts: name -> like `truth`.
        display: `data.dataset.Display`.
        title: of the figure.
        moments: datetime64 `[t + k]`, when each frame is valid, UTC; None: unknown.

    Returns:
        uint8 RGB `[t + k, H, W, 3]`.

    Raises:
        ValueError: if there is not one moment for each frame.
    """
    if moments is not None and len(moments) != len(inputs[0]) + len(truth[0]):
        raise ValueError(
            f"moments has {len(moments)} values; expected one for each of the "
            f"{len(inputs[0])} + {len(truth[0])} frames"
        )
    channels = display.channels[: len(truth)]
    t, k = len(inputs[0]), len(truth[0])
    columns = {"Truth": truth}
    columns |= {look(n, i)[0]: f for i, (n, f) in enumerate(forecasts.items())}
    levels = LEVELS // len(channels)
    colours = [
        colours_of(channel.colormap, channel.limits, (inputs[c], truth[c]), levels)
        for c, channel in enumerate(channels)
    ]
    with figure_style(font_size=9):
        figure, grid, bars, clock = _stage(
            np.shape(truth[0])[-2:], len(channels), len(columns), title
        )
        canvas = FigureCanvasAgg(figure)
        for row, bar, channel, colouring, fields in zip(
            grid, bars, channels, colours, inputs, strict=True
        ):
            for axes in row:
                panel(axes, fields[0], colouring, display.south_first)
            colour_bar(figure, None, colouring, label_of(channel), cax=bar)
        for axes, label in zip(grid[0], columns, strict=True):
            axes.set_title(label, fontsize=10, fontweight="bold", pad=4)
        pictures = []
        for i in range(t + k):
            seen = i < t
            colour = INPUT_COLOUR if seen else TARGET_COLOUR
            kind = "Input" if seen else "Forecast"
            text = f"{kind}  {lead_label(display.frame, i - t + 1)}"
            if moments is not None:
                text += f"   {moment_label(moments[i], display.frame)}"
            clock.set_text(text)
            clock.set_color(colour)
            for c in range(len(channels)):
                for axes, fields in zip(grid[c], columns.values(), strict=True):
                    field = inputs[c][i] if seen else fields[c][i - t]
                    axes.images[0].set_data(np.ma.masked_invalid(field))
                    for spine in axes.spines.values():
                        spine.set(edgecolor=colour, linewidth=1.2)
            canvas.draw()
            pictures.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    return np.stack(pictures)


def _stage(shape, rows: int, columns: int, title: str):
    """A figure with axes for panels and colour bars; cells are squares of pixels.

    Args:
        shape: (h, w) of the fields.
        rows, columns: of panels.
        title: of the figure, wrapped into lines.

    Returns:
        the figure; axes by row and column; one axes per row for its colour bar; and
        the text below the panels.
    """
    height, width = (
        side * max(1, round(PANEL / max(shape)))
        if max(shape) < 1.5 * PANEL
        else round(side * PANEL / max(shape))
        for side in shape
    )
    right = MARGIN + columns * (width + GAP)
    title = textwrap.fill(title, (right + 80) // 7)
    above = 32 + 18 * len(title.splitlines())
    total = right + 90, above + rows * (height + GAP) + 30
    figure = Figure(figsize=(total[0] / DPI, total[1] / DPI), dpi=DPI)
    figure.text(MARGIN / total[0], 1 - 8 / total[1], title, fontsize=9.5, va="top")

    def place(x, row, across):
        y = total[1] - above - row * (height + GAP) - height
        return figure.add_axes(
            (x / total[0], y / total[1], across / total[0], height / total[1])
        )

    grid = [
        [place(MARGIN + c * (width + GAP), r, width) for c in range(columns)]
        for r in range(rows)
    ]
    bars = [place(right, r, 14) for r in range(rows)]
    clock = figure.text(
        (right - GAP) / 2 / total[0],
        14 / total[1],
        "",
        fontsize=10.5,
        fontweight="bold",
        ha="center",
        va="center",
    )
    return figure, grid, bars, clock


def save_animation(frames, path: str | os.PathLike, fps: float = 4.0) -> None:
    """Writes pictures as a repeating GIF; readers never see a partial file.

    Args:
        frames: uint8 RGB `[t, h, w, 3]`.
        path: of the file.
        fps: frames per second.

    Raises:
        ValueError: if the frames have another type or shape.
    """
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(
            f"an animation needs uint8 frames [t, h, w, 3]; got {frames.dtype} "
            f"{list(frames.shape)}"
        )
    if not len(frames):
        raise ValueError("an animation needs at least one frame")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    images = _indexed(frames)
    unfinished = path.with_name(f".{path.name}.part")
    images[0].save(
        unfinished,
        format="GIF",
        save_all=True,
        append_images=images[1:],
        duration=round(100 / fps) * 10,  # ms; GIFs count hundredths of a second
        loop=0,
    )
    os.replace(unfinished, path)


def _indexed(frames: np.ndarray) -> list[Image.Image]:
    """Pictures with one palette of at most 256 colours.

    If nearly all pixels have one of the most frequent colours (flat colours and the
    edges of letters), these are the palette, and others become the nearest of them.
    Photographs are left to Pillow.
    """
    count, height, width, _ = frames.shape
    packed = frames.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    found, inverse, counts = np.unique(packed, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    top, rest = order[:PALETTE], order[PALETTE:]
    if counts[rest].sum() > (1 - FLAT) * packed.size or len(rest) > MANY:
        mosaic = Image.fromarray(frames.reshape(count * height, width, 3))
        pixels = np.asarray(indexed := mosaic.quantize(PALETTE))
        palette = indexed.getpalette() or []
    else:
        colours = np.stack([found >> 16, found >> 8 & 255, found & 255], axis=-1)
        colours = colours.astype(np.int32)
        apart = np.sum((colours[rest][:, None] - colours[top]) ** 2, axis=-1)
        index = np.zeros(len(found), np.uint8)
        index[top] = np.arange(len(top))
        index[rest] = np.argmin(apart, axis=1) if len(rest) else 0
        pixels, palette = index[inverse], colours[top].ravel().tolist()
    images = []
    for picture in pixels.reshape(count, height, width):
        image = Image.fromarray(picture)
        image.putpalette(palette)
        images.append(image)
    return images
