"""Scores of several forecasts by lead time, and paired differences, with bands."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from earthformer_jax.plotting.style import BAND, LOOKS, figure_style, look, plural

MOST_TICKS = 8  # lead times that all have a tick
# A curve: values `[k]` and their intervals `[k, 2]`.
Curve = tuple[np.ndarray, np.ndarray]
Panel = tuple[str, Mapping[str, Curve], Mapping[str, Curve]]


def comparison(
    panels: Sequence[Panel],
    *,
    baseline: str,
    banded: Collection[str],
    step: tuple[float, str],
    title: str,
) -> Figure:
    """One column per score: above by lead time, below minus a baseline.

    Args:
        panels: label of a score, its curves by forecast, and those of the differences
            to the baseline.
        baseline: name of the forecast that is subtracted.
        banded: forecasts whose intervals are drawn; more than a few hide each other.
        step: length and unit of the time between frames, (5, "min").
        title: what was forecast.
    """
    with figure_style():
        size = 4.9 * len(panels) + 0.6, 7.0
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        rows = figure.subplots(
            2, len(panels), squeeze=False, sharex="col", height_ratios=(3, 2)
        )
        looks = _looks([*panels[0][1]])
        for (label, values, differences), (above, below) in zip(
            panels, rows.T, strict=True
        ):
            _draw(above, values, looks, step, banded)
            _draw(below, differences, looks, step, banded)
            above.set_ylabel(label)
            below.axhline(0, color=looks[baseline][1], linewidth=1.4)
            below.set_ylabel(f"Minus {looks[baseline][0]}")
            below.set_xlabel(f"Lead time ({plural(step[1])})")
        handles, labels = rows[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
        figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
    return figure


def _looks(names: Sequence[str]) -> dict[str, tuple]:
    """The look of each forecast; names of models are written as they are."""
    found, unknown = {}, 0
    for name in names:
        label, *rest = look(name, unknown)
        unknown += name not in LOOKS
        found[name] = (label if name in LOOKS else name, *rest)
    return found


def _draw(axes: Axes, curves: Mapping[str, Curve], looks, step, banded) -> None:
    axes.xaxis.set_major_locator(
        MaxNLocator(MOST_TICKS, integer=True, steps=[1, 1.5, 2, 3, 5, 10])
    )
    for name, (values, limits) in curves.items():
        label, colour, style, width = looks[name]
        leads = step[0] * np.arange(1, len(values) + 1)
        axes.plot(
            leads,
            values,
            color=colour,
            linestyle=style,
            linewidth=width,
            label=label,
            marker="o" if len(values) < 3 else None,
        )
        if name in banded:
            axes.fill_between(leads, *limits.T, color=colour, alpha=BAND, linewidth=0)
        if len(values) <= MOST_TICKS:
            axes.set_xticks(leads)
    axes.grid(axis="y", color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
