"""Skill against lead time."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, MultipleLocator

from earthformer_jax.plotting.style import (
    BAND,
    LOOKS,
    figure_style,
    look,
    ordered,
    plural,
)

USEFUL_CORRELATION = 0.5  # above this, forecasts are commonly called useful


def skill_curves(
    correlations: Mapping[str, Sequence[float]], *, title: str, index: str
) -> Figure:
    """Correlation against lead time, one line per forecast.

    Args:
        correlations: name -> `[k]` correlations at leads 1 .. k.
        title: what was forecast.
        index: name of the quantity correlated, for the axis.
    """
    with figure_style():
        figure = Figure(figsize=(8.8, 4.4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        unknown = 0
        for name in ordered(correlations):
            values = np.asarray(correlations[name], np.float64)
            label, colour, style, width = look(name, unknown)
            unknown += name not in LOOKS
            axes.plot(
                np.arange(1, values.size + 1),
                values,
                color=colour,
                linestyle=style,
                linewidth=width,
                marker="o" if name == "model" else None,
                markersize=4.5,
                label=f"{label} (mean {np.mean(values):.2f})",
                zorder=3 if name == "model" else 2,
            )
        leads = max(len(v) for v in correlations.values())
        lowest = min(float(np.nanmin([*v, 0.0])) for v in correlations.values())
        axes.axhline(0, color="0.35", linewidth=0.8, zorder=1)
        axes.axhline(
            USEFUL_CORRELATION, color="0.7", linewidth=0.8, linestyle=":", zorder=1
        )
        axes.set_xlim(0.7, leads + 0.3)
        axes.set_ylim(np.floor(lowest * 5) / 5 - 0.02 * (lowest < 0), 1.0)
        axes.xaxis.set_major_locator(MultipleLocator(1))
        axes.yaxis.set_major_locator(MultipleLocator(0.2))
        axes.grid(axis="y", color="0.92", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.set_xlabel("Lead time (months)")
        axes.set_ylabel(f"Correlation of {index}")
        axes.set_title(title, loc="left", fontweight="bold")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)
    return figure


def lead_curves(
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    step: tuple[float, str],
    title: str,
    bands: Mapping[str, Mapping[str, Sequence[Sequence[float]]]] | None = None,
) -> Figure:
    """Scores against lead time, one panel per score, one line per forecast.

    Args:
        panels: label of a score -> name of a forecast -> `[k]` values.
        step: length and unit of the time between frames, (5, "min").
        title: what was forecast.
        bands: intervals `[k, 2]` of some of the values; None: there are none.
    """
    length, unit = step
    with figure_style():
        figure = Figure(figsize=(4.9 * len(panels) + 1.0, 4.1), layout="constrained")
        FigureCanvasAgg(figure)
        for axes, (label, curves) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0],
            panels.items(),
            strict=True,
        ):
            unknown, intervals = 0, (bands or {}).get(label, {})
            for name in ordered(curves):
                values = np.asarray(curves[name], np.float64)
                known = np.isfinite(values)
                text, colour, style, width = look(name, unknown)
                unknown += name not in LOOKS
                axes.plot(
                    length * (np.flatnonzero(known) + 1),
                    values[known],
                    color=colour,
                    linestyle=style,
                    linewidth=width,
                    marker="o" if name == "model" else None,
                    markersize=4.5,
                    label=text,
                    zorder=3 if name == "model" else 2,
                )
                if name in intervals:
                    edges = np.asarray(intervals[name], np.float64)[known].T
                    places = length * (np.flatnonzero(known) + 1)
                    axes.fill_between(places, *edges, color=colour, alpha=BAND, lw=0)
            axes.xaxis.set_major_locator(
                MaxNLocator(8, integer=True, steps=[1, 1.5, 2, 3, 5, 10])
            )
            axes.set_ylim(*_limits([*curves.values(), *intervals.values()]))
            axes.grid(axis="y", color="0.92", linewidth=0.8)
            axes.set_axisbelow(True)
            axes.set_xlabel(f"Lead time ({plural(unit)})")
            axes.set_ylabel(label)
        figure.axes[0].legend(loc="best", fontsize=9)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11.5, fontweight="bold")
    return figure


def _limits(drawn: Sequence[Any]) -> tuple[float, float]:
    """From 0 or the lowest value to slightly above the largest; 0 to 1 if empty."""
    values = np.concatenate([np.ravel(np.asarray(v, np.float64)) for v in drawn])
    values = values[np.isfinite(values)]
    low, high = min(values, default=0.0), max(values, default=1.0)
    high = high if high > min(low, 0) else 1.0
    return (0 if low >= 0 else 1.08 * low), high + 0.06 * (high - min(low, 0))
