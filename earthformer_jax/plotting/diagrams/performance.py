"""The performance diagram: four scores of events in one point."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from earthformer_jax.plotting.style import LOOKS, figure_style, look, ordered

MARKERS = "osD^vP*Xhp<>"
CSI = np.arange(0.1, 1, 0.1)
BIAS = (0.3, 0.5, 0.8, 1.0, 1.25, 2.0, 3.0)
LABEL_BIAS, HIGHEST_LABEL = 1.6, 0.97  # where curves of CSI are labelled
FAINT = "0.72"


def performance(
    points: Mapping[str, Sequence[Sequence[float]]],
    *,
    thresholds: Sequence[str],
    title: str,
) -> Figure:
    """Probability of detection against success ratio, with lines of CSI and bias.

    A perfect forecast is in the upper right corner. On the diagonal as many events are
    forecast as observed; above it there are more.

    Args:
        points: name -> pairs (success ratio, probability of detection), one for each
            threshold; those that are not finite are left out.
        thresholds: a text for each.
        title: what was forecast.

    Raises:
        ValueError: if a forecast has another number of points.

    Reference:
        Roebber 2009, "Visualizing multiple measures of forecast quality".
    """
    for name, pairs in points.items():
        if len(pairs) != len(thresholds):
            raise ValueError(
                f"points[{name!r}] has {len(pairs)} pairs; expected one for each of "
                f"the {len(thresholds)} thresholds"
            )
    with figure_style():
        figure = Figure(figsize=(7.6, 5.6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        _lines(axes)
        unknown = 0
        handles = []
        for name in ordered(points):
            label, colour, _, _ = look(name, unknown)
            unknown += name not in LOOKS
            pairs = np.asarray(points[name], np.float64).reshape(-1, 2)
            known = np.isfinite(pairs).all(axis=1)
            axes.plot(*pairs[known].T, color=colour, linewidth=1, alpha=0.6, zorder=3)
            for number in np.flatnonzero(known):
                axes.plot(
                    *pairs[number],
                    MARKERS[number % len(MARKERS)],
                    color=colour,
                    markersize=8 if name == "model" else 6.5,
                    markeredgecolor="white",
                    markeredgewidth=0.7,
                    zorder=5 if name == "model" else 4,
                    clip_on=False,
                )
            handles.append(Line2D([], [], color=colour, linewidth=3, label=label))
        _legends(figure, axes, handles, thresholds)
        axes.set(
            xlim=(0, 1),
            ylim=(0, 1),
            aspect="equal",
            xlabel="Success ratio (1 − false alarm ratio)",
            ylabel="Probability of detection",
        )
        figure.suptitle(title, x=0.01, ha="left", fontsize=11.5, fontweight="bold")
    return figure


def _lines(axes: Axes) -> None:
    """Curves of equal CSI, and rays of equal frequency bias."""
    x = np.linspace(0.005, 1, 400)
    for level in CSI:
        # 1 / CSI = 1 / POD + 1 / SUCR - 1
        inverse = 1 / level + 1 - 1 / x
        y = np.where(inverse >= 1, 1 / np.maximum(inverse, 1), np.nan)
        axes.plot(x, y, color=FAINT, linewidth=0.8, zorder=1)
        axes.text(
            *_label_place(level),
            f"{level:.1f}",
            fontsize=7.5,
            color="0.5",
            ha="center",
            va="center",
            bbox=dict(facecolor="white", edgecolor="none", pad=1),
            zorder=1,
        )
    for level in BIAS:
        end = (1, level) if level <= 1 else (1 / level, 1)
        axes.plot([0, end[0]], [0, end[1]], "--", color=FAINT, linewidth=0.8, zorder=1)
        right = level <= 1
        axes.annotate(
            f"{level:g}",
            end,
            xytext=(4, -3) if right else (-6, 4),
            textcoords="offset points",
            fontsize=7.5,
            color="0.35",
            annotation_clip=False,
        )


def _label_place(csi: float) -> tuple[float, float]:
    """Where a curve of equal CSI has `LABEL_BIAS`, or leaves the diagram."""
    x = (1 / LABEL_BIAS + 1) / (1 / csi + 1)
    y = min(LABEL_BIAS * x, HIGHEST_LABEL)
    return 1 / (1 / csi + 1 - 1 / y), y


def _legends(
    figure: Figure, axes: Axes, forecasts: list[Line2D], thresholds: Sequence[str]
) -> None:
    """Colours are forecasts, markers are thresholds, lines are scores."""
    markers = [
        Line2D([], [], color="0.3", marker=MARKERS[i % len(MARKERS)], ls="", label=text)
        for i, text in enumerate(thresholds)
    ]
    lines = [
        Line2D([], [], color=FAINT, linewidth=1, label="CSI"),
        Line2D([], [], color=FAINT, linewidth=1, ls="--", label="frequency bias"),
    ]
    blank = Line2D([], [], ls="", label=" ")
    heads = [Line2D([], [], ls="", label=text) for text in ("Forecast", "Threshold")]
    handles = [heads[0], *forecasts, blank, heads[1], *markers, blank, *lines]
    legend = figure.legend(handles=handles, loc="outside right center", fontsize=9)
    for text in legend.get_texts():
        if text.get_text() in ("Forecast", "Threshold"):
            text.set_fontweight("bold")
