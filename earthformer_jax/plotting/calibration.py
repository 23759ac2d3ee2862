"""Whether probabilities come true: CRPS, spread and error, ranks, reliability."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from earthformer_jax.plotting.style import LOOKS, figure_style, look, ordered, plural

MODEL = "model"
LEAST_SHARE = 1e-4  # of the forecasts; probabilities that are rarer are not drawn
EVENTS = 4  # at most so many are drawn
_BLUES = ("#2166ac", "#4393c3", "#92c5de", "#d1e5f0")
_REDS = ("#67001f", "#b2182b", "#d6604d", "#f4a582")


def calibration(
    forecasts: Mapping[str, Mapping[str, Any]],
    *,
    units: str,
    step: tuple[float, str],
    title: str,
) -> Figure:
    """The model beside others: four panels, or three without events.

    Args:
        forecasts: scores by name, as of `EnsembleScores.compute`; "model" is one, whose
            rank histogram is drawn.
        units: of the scores, "K"; "" if they have none.
        step: length and unit of the time between frames, (5, "min").
        title: what was forecast.
    """
    events = list(forecasts[MODEL]["events"])
    panels = 4 if events else 3
    label = f", {units}" if units else ""
    with figure_style():
        figure = Figure(figsize=(4.1 * panels, 4.0), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(1, panels)
        _by_lead(axes[0], forecasts, {"crps": "-"}, step)
        axes[0].set_ylabel(f"CRPS{label}")
        axes[0].legend(loc="best", fontsize=8.5)
        shown = [name for name in (MODEL, *forecasts) if name != "model_dressed"]
        pair = {name: forecasts[name] for name in dict.fromkeys(shown[:3])}
        _by_lead(axes[1], pair, {"rmse": "-", "spread": ":"}, step)
        axes[1].set_ylabel(f"Error of the mean (—) and spread (···){label}")
        _ranks(axes[2], np.asarray(forecasts[MODEL]["rank_histogram"], np.float64))
        if events:
            chosen = events[:: max(1, -(-len(events) // EVENTS))]
            _reliability(axes[3], forecasts, chosen)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11.5, fontweight="bold")
    return figure


def _by_lead(axes: Axes, forecasts, curves: Mapping[str, str], step) -> None:
    """Scores against lead time, a line style for each score."""
    length, unit = step
    unknown = 0
    for name in ordered(forecasts):
        text, colour, _, width = look(name, unknown)
        unknown += name not in LOOKS
        for number, (score, style) in enumerate(curves.items()):
            values = np.asarray(forecasts[name][f"{score}_by_lead"], np.float64)
            known = np.isfinite(values)
            axes.plot(
                length * (np.flatnonzero(known) + 1),
                values[known],
                color=colour,
                linestyle=style,
                linewidth=width,
                label=None if number else text,
                zorder=3 if name == MODEL else 2,
            )
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    axes.grid(axis="y", color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel(f"Lead time ({plural(unit)})")


def _ranks(axes: Axes, share: np.ndarray) -> None:
    """The rank histogram of the model, relative to a flat one."""
    bins = share.size
    axes.bar(np.arange(bins), bins * share, width=0.9, color=LOOKS[MODEL][1], alpha=0.8)
    axes.axhline(1, color="0.15", linewidth=1.2, linestyle=(0, (5, 2)))
    axes.set_ylim(0, max(1.6, 1.08 * bins * float(np.nan_to_num(share).max())))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlabel("Members below the truth")
    axes.set_ylabel("How often, relative to a flat histogram")


def _reliability(axes: Axes, forecasts, events: list[str]) -> None:
    """How often events followed, against their probability."""
    others = [name for name in forecasts if name not in (MODEL, "model_dressed")]
    axes.plot([0, 1], [0, 1], color="0.15", linewidth=1.2, linestyle=(0, (5, 2)))
    for name, colours in ((MODEL, _REDS), *((x, _BLUES) for x in others[:1])):
        for event, colour in zip(events, colours, strict=False):
            own = forecasts[name]["events"][event]
            frequency = np.asarray(own["frequency"], np.float64)
            share = np.asarray(own["share"], np.float64)
            known = np.isfinite(frequency) & (share >= LEAST_SHARE)
            axes.plot(
                np.asarray(own["probability"])[known],
                frequency[known],
                color=colour,
                linewidth=2.0 if name == MODEL else 1.2,
                marker="o" if name == MODEL else ".",
                markersize=4,
                label=f"{look(name)[0]}, {_shown(event)}",
                zorder=3 if name == MODEL else 2,
            )
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel("Forecast probability")
    axes.set_ylabel("Observed frequency")
    axes.legend(loc="upper left", fontsize=8)


def _shown(event: str) -> str:
    """ "≥16" of ">=16"."""
    return event.replace(">=", "≥").replace("<=", "≤").replace("-", "−")
