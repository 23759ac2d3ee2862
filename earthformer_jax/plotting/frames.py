"""Frames side by side: samples of a data set, and forecasts next to the truth."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from earthformer_jax.plotting.fields import Colours, colours_of, label_of, shown
from earthformer_jax.plotting.style import figure_style, lead_label, look, step_of

COLUMNS = 6  # lead times of a forecast figure
SHEET_COLUMNS = 10  # inputs, and as many targets, of a contact sheet
SHEET_CHANNELS = 3
HEADER = 0.5  # inches above the frames of a contact sheet
INPUT_COLOUR, TARGET_COLOUR = "0.45", look("model")[1]
DAY = 24 * 60  # minutes
ERROR_COLORMAP = "RdBu_r"


def panel(axes, field, colours: Colours, south_first: bool, edge="0.35") -> None:
    """One field in one axes, without ticks."""
    axes.imshow(
        np.ma.masked_invalid(field),
        cmap=colours.colormap,
        norm=colours.norm,
        origin="lower" if south_first else "upper",
        interpolation="nearest",
    )
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(visible=True, linewidth=0.8, edgecolor=edge)


def colour_bar(figure: Figure, axes, colours: Colours, label: str, **options) -> None:
    """A colour bar next to axes."""
    bar = figure.colorbar(
        ScalarMappable(colours.norm, colours.colormap),
        ax=axes,
        extend=colours.extend,
        extendfrac=0.03,
        **options,
    )
    bar.set_label(label)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, length=2.5)


def every(count: int, most: int) -> list[int]:
    """At most `most` of 0 .. count - 1, evenly spaced, including the last one."""
    step = -(-count // most)
    return list(range(count - 1, -1, -step))[::-1]


def forecast_frames(
    inputs,
    truth,
    forecasts: Mapping[str, np.ndarray],
    *,
    channel,
    display,
    title: str = "",
) -> Figure:
    """One forecast: rows of inputs, truth, forecasts, error; columns of lead times.

    Args:
        inputs: `[t, h, w]`, shown values; the last is the frame before lead 1.
        truth: `[k, h, w]`, shown values; NaN (grey) where unknown.
        forecasts: name -> `[k, h, w]`; the error is that of the first.
        channel: `data.dataset.Channel` of the fields.
        display: `data.dataset.Display`.
        title: of the figure.
    """
    inputs, truth = np.asarray(inputs), np.asarray(truth)
    leads = every(len(truth), COLUMNS)
    step = -(-len(truth) // COLUMNS)
    recent = list(range(len(inputs) - 1, -1, -step))[: len(leads)][::-1]
    blank = len(leads) - len(recent)
    main = next(iter(forecasts))
    rows = {"Truth": truth}
    rows |= {look(n, i)[0]: forecasts[n] for i, n in enumerate(forecasts)}
    rows = {label: np.asarray(field)[leads] for label, field in rows.items()}
    error = rows[look(main)[0]] - rows["Truth"]
    colours = colours_of(channel.colormap, channel.limits, (inputs[recent], truth))
    error_colours = colours_of(ERROR_COLORMAP, None, (error,))
    shape = truth.shape[-2] / truth.shape[-1]
    cell = 1.55 * min(1, 1 / shape)  # inches across
    count = len(rows) + 2
    size = (
        len(leads) * (cell + 0.06) + 2.0,
        count * (cell * shape + 0.09) + 0.6 + 0.35 * bool(title),
    )
    with figure_style(font_size=9):
        figure = Figure(figsize=size)
        FigureCanvasAgg(figure)
        figure.set_layout_engine(
            "compressed", w_pad=0.03, h_pad=0.03, hspace=0, wspace=0
        )
        grid = figure.subplots(count, len(leads), squeeze=False)
        for axes in grid[0, :blank]:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        for axes, i in zip(grid[0, blank:], recent, strict=True):
            panel(axes, inputs[i], colours, display.south_first, INPUT_COLOUR)
            label = lead_label(display.frame, i - len(inputs) + 1)
            axes.set_title(label, fontsize=8.5, color=INPUT_COLOUR, pad=3)
        for row, (label, field) in zip(grid[1:-1], rows.items(), strict=True):
            for axes, frame in zip(row, field, strict=True):
                panel(axes, frame, colours, display.south_first)
            _row_label(row[0], label)
        for axes, frame in zip(grid[-1], error, strict=True):
            panel(axes, frame, error_colours, display.south_first)
        for axes, lead in zip(grid[1], leads, strict=True):
            axes.set_title(lead_label(display.frame, lead + 1), fontsize=8.5, pad=3)
        _row_label(grid[0, 0], "Inputs")
        _row_label(grid[-1, 0], f"{look(main)[0]} error")
        options = dict(pad=0.012, fraction=0.03)
        colour_bar(figure, grid[:-1], colours, label_of(channel), aspect=40, **options)
        units = f" ({channel.units})" if channel.units else ""
        colour_bar(
            figure, grid[-1], error_colours, f"error{units}", aspect=10, **options
        )
        if title:
            figure.suptitle(
                wrapped(title, figure),
                x=0.01,
                ha="left",
                fontsize=11,
                fontweight="bold",
            )
    return figure


def contact_sheet(examples: Sequence[Mapping], display, title: str = "") -> Figure:
    """Samples of a data set: one row of frames each, inputs left and targets right.

    Args:
        examples: with "inputs" `[t, h, w, c]`, "targets" `[k, h, w, c]`, and optionally
            "observed" (unknown targets are grey) and "time".
        display: `data.dataset.Display`; at most three channels are shown.
        title: of the figure.
    """
    channels = display.channels[:SHEET_CHANNELS]
    t, k = len(examples[0]["inputs"]), len(examples[0]["targets"])
    before, after = every(t, SHEET_COLUMNS), every(k, SHEET_COLUMNS)
    fields = [_sheet_fields(x, channels, before, after) for x in examples]
    colours = [
        colours_of(
            channel.colormap,
            channel.limits,
            [part for row in fields for part in row[c]],
        )
        for c, channel in enumerate(channels)
    ]
    rows = len(examples) * len(channels)
    title_height = 0.32 * (1 + len(title) // 150) if title else 0  # inches
    with figure_style(font_size=9):
        figure, left, right = _sheet_panels(
            rows,
            (len(before), len(after)),
            examples[0]["targets"].shape[1:3],
            HEADER + title_height,
        )
        for i, example in enumerate(examples):
            labels, day = _frame_labels(example, display.frame, t, before, after)
            for c, channel in enumerate(channels):
                row = i * len(channels) + c
                for part, where, edge in zip(
                    fields[i][c],
                    (left[row], right[row]),
                    (INPUT_COLOUR, TARGET_COLOUR),
                    strict=True,
                ):
                    for axes, field in zip(where, part, strict=True):
                        panel(axes, field, colours[c], display.south_first, edge)
                words = [day or f"{i + 1}"] if c == 0 else []
                words += [channel.name] if len(channels) > 1 else []
                _row_label(left[row, 0], "\n".join(words), weight="normal")
            if i == 0 or day:
                row = i * len(channels)
                for axes, label in zip([*left[row], *right[row]], labels, strict=True):
                    axes.set_title(label, fontsize=7, color="0.35", pad=2)
        panels = np.concatenate([left, right], axis=1)
        for c, channel in enumerate(channels):
            share = slice(c * rows // len(channels), (c + 1) * rows // len(channels))
            colour_bar(
                figure,
                panels[share],
                colours[c],
                label_of(channel),
                pad=0.01,
                aspect=30,
                fraction=0.02,
            )
        _sheet_headings(figure, left[0], right[0], title)
    return figure


def _sheet_fields(example: Mapping, channels, before, after) -> list:
    """(input frames, target frames) as shown, of each channel."""
    return [
        (
            shown(example["inputs"], channel, c)[before],
            shown(example["targets"], channel, c, example.get("observed"))[after],
        )
        for c, channel in enumerate(channels)
    ]


def _sheet_panels(rows: int, columns: tuple[int, int], size: tuple[int, int], top):
    """A figure, and its panels for inputs `[rows, n]` and targets `[rows, m]`.

    Args:
        rows: of panels.
        columns: n and m.
        size: height and width of a field.
        top: inches left free above.
    """
    n, m = columns
    h, w = size
    cell = max(0.75, min(1.5, 15 / (n + m))) * min(1, w / h)
    height = max(rows * (cell * h / w + 0.2) + top, 1.8)
    figure = Figure(figsize=((n + m) * (cell + 0.06) + 2.0, height))
    FigureCanvasAgg(figure)
    figure.set_layout_engine(
        "compressed",
        rect=(0, 0, 1, 1 - top / height),
        w_pad=0.03,
        h_pad=0.02,
        hspace=0,
        wspace=0,
    )
    grid = figure.subplots(
        rows, n + m + 1, squeeze=False, width_ratios=[1] * n + [0.15] + [1] * m
    )
    for axes in grid[:, n]:
        axes.set_axis_off()
    return figure, grid[:, :n], grid[:, n + 1 :]


def _sheet_headings(figure: Figure, left, right, title: str) -> None:
    """Headings above the first row of panels, once the layout is final."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    _header(figure, left, "Inputs", INPUT_COLOUR)
    _header(figure, right, "Targets", TARGET_COLOUR)
    if title:
        edge = left[0].get_position()
        figure.text(
            edge.x0,
            edge.y1 + HEADER / figure.get_figheight(),
            wrapped(title, figure),
            fontsize=11,
            fontweight="bold",
            va="bottom",
        )


def _header(figure: Figure, row, text: str, colour) -> None:
    """A word and a line above the frames of one kind."""
    first, last = row[0].get_position(), row[-1].get_position()
    inch = 1 / figure.get_figheight()
    y = first.y1 + 0.2 * inch
    figure.add_artist(
        Line2D(
            [first.x0, last.x1],
            [y, y],
            color=colour,
            linewidth=2,
            transform=figure.transFigure,
        )
    )
    figure.text(
        first.x0,
        y + 0.05 * inch,
        text,
        color=colour,
        fontsize=10,
        fontweight="bold",
        va="bottom",
    )


def _frame_labels(example, frame: str, t: int, before, after) -> tuple[list, str]:
    """A label for each frame shown, and one for the whole row, or ""."""
    if "time" not in example:
        leads = [i - t + 1 for i in before] + [i + 1 for i in after]
        return [lead_label(frame, lead, short=True) for lead in leads], ""
    minutes = np.asarray(example["time"], np.int64)
    first_target = t if len(minutes) > t else 0  # 0: the targets are the inputs
    picked = minutes[[*before, *(first_target + i for i in after)]]
    times = picked.astype("datetime64[m]")
    if np.ptp(minutes) <= 3 * DAY and np.any(np.diff(minutes) % DAY):
        return [str(x)[11:] for x in times], str(minutes[0].astype("datetime64[m]"))[
            :10
        ]
    if step_of(frame)[1] in ("month", "year"):
        return [str(x)[:7] for x in times], str(times[0])[:4]
    labels = [str(x)[5:10] for x in times]
    if np.any(np.diff(minutes) % DAY):
        labels = [f"{str(x)[5:10]} {str(x)[11:]}" for x in times]
    return labels, str(times[0])[:4]


def _row_label(axes, text: str, weight: str = "bold") -> None:
    axes.set_ylabel(
        "\n".join(
            textwrap.fill(line, 12, break_long_words=False) for line in text.split("\n")
        ),
        fontsize=9,
        fontweight=weight,
        rotation=0,
        ha="right",
        va="center",
    )


def wrapped(text: str, figure: Figure) -> str:
    """A title, wrapped to the width of the figure."""
    return textwrap.fill(text, int(figure.get_figwidth() * 10.5))
