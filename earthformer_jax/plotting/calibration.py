"""How good probabilities are: CRPS, spread and error, ranks, reliability and ROC."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from earthformer_jax.plotting.style import LOOKS, figure_style, look, ordered, plural

MODEL, DRESSED = "model", "model_dressed"
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
    """The model and others: three panels, and two more for events if there are any.

    These are the reliability of their probabilities, and the curves of relative
    operating characteristics (`metrics.ensembles.calibration.roc`).

    Args:
        forecasts: scores by name, as of `EnsembleScores.compute`; "model" is one, whose
            rank histogram is drawn.
        units: of the scores, "K"; "" if they have none.
        step: length and unit of the time between frames, (5, "min").
        title: what was forecast.
    """
    events = list(forecasts[MODEL]["events"])
    rows = 2 if events else 1
    label = f", {units}" if units else ""
    with figure_style():
        figure = Figure(figsize=(4.1 * 3, 4.0 * rows), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(rows, 3, squeeze=False)
        error, spread, ranks = axes[0]
        _by_lead(error, forecasts, {"crps": "-"}, step)
        error.set_ylabel(f"CRPS{label}")
        error.legend(loc="best", fontsize=8.5)
        shown = [name for name in (MODEL, *forecasts) if name != DRESSED]
        pair = {name: forecasts[name] for name in dict.fromkeys(shown[:3])}
        _by_lead(spread, pair, {"rmse": "-", "spread": ":"}, step)
        spread.set_ylabel(f"Error of the mean (—) and spread (···){label}")
        _ranks(ranks, np.asarray(forecasts[MODEL]["rank_histogram"], np.float64))
        if events:
            curves = list(_curves(forecasts, events))
            _reliability(axes[1, 0], curves)
            _roc(axes[1, 1], curves)
            _legend(axes[1, 2], curves)
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


@dataclasses.dataclass(frozen=True)
class _Curve:
    """An event as one forecast sees it: its scores, and how it is drawn."""

    scores: Mapping[str, Any]
    label: str
    style: Mapping[str, Any]


def _curves(forecasts, events: Sequence[str]) -> Iterator[_Curve]:
    """Some of the events, of the model and of the first of the others."""
    chosen = events[:: max(1, -(-len(events) // EVENTS))]
    others = [name for name in forecasts if name not in (MODEL, DRESSED)]
    for name, colours in ((MODEL, _REDS), *((x, _BLUES) for x in others[:1])):
        for event, colour in zip(chosen, colours, strict=False):
            style = dict(
                color=colour,
                linewidth=2.0 if name == MODEL else 1.2,
                marker="o" if name == MODEL else ".",
                markersize=4,
                zorder=3 if name == MODEL else 2,
            )
            own = forecasts[name]["events"][event]
            yield _Curve(own, f"{look(name)[0]}, {_shown(event)}", style)


def _reliability(axes: Axes, curves: Sequence[_Curve]) -> None:
    """How often events followed, against their probability."""
    for curve in curves:
        frequency = np.asarray(curve.scores["frequency"], np.float64)
        share = np.asarray(curve.scores["share"], np.float64)
        known = np.isfinite(frequency) & (share >= LEAST_SHARE)
        probability = np.asarray(curve.scores["probability"])
        axes.plot(probability[known], frequency[known], **curve.style)
    _square(axes, "Forecast probability", "Observed frequency")


def _roc(axes: Axes, curves: Sequence[_Curve]) -> None:
    """How many events had a warning, against how many other cases had one."""
    for curve in curves:
        rates = curve.scores["false_alarm_rate"], curve.scores["hit_rate"]
        axes.plot(*rates, **curve.style)
    _square(
        axes,
        "False alarm rate (warnings among cases without event)",
        "Hit rate (warnings among events)",
    )


def _square(axes: Axes, x: str, y: str) -> None:
    """From 0 to 1 in both directions, with the diagonal."""
    axes.plot([0, 1], [0, 1], color="0.15", linewidth=1.2, linestyle=(0, (5, 2)))
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def _legend(axes: Axes, curves: Sequence[_Curve]) -> None:
    """Which line is which, in both panels of events, with the areas under the ROC."""
    axes.set_axis_off()
    for curve in curves:
        area = curve.scores["roc_area"]
        text = f"area {area:.3f}" if np.isfinite(area) else "seen never, or always"
        axes.plot([], [], label=f"{curve.label}: {text}", **curve.style)
    axes.legend(
        loc="upper left",
        fontsize=9.5,
        title="Events, and the area under the ROC curve\n(1 is perfect, 0.5 no skill)",
        alignment="left",
    )


def _shown(event: str) -> str:
    """ "≥16" of ">=16"."""
    return event.replace(">=", "≥").replace("<=", "≤").replace("-", "−")
