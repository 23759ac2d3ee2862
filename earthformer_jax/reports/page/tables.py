"""Tables of scores for readers, made of the rows of the tidy table."""

import math
import xml.etree.ElementTree as ET
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from earthformer_jax import plotting
from earthformer_jax.plotting.style import lead_label
from earthformer_jax.reports.page.markup import element, table
from earthformer_jax.reports.page.tidy import Row
from earthformer_jax.reports.scoring import MODEL
from earthformer_jax.reports.verification.units import units_text

MOST_LEADS = 12  # columns; of more leads every n-th is shown
BY_WAVELENGTH = ("power_ratio",)
# Scores that are folded away, where others say the same or are better known.
FURTHER = (
    "psnr bias csi_m_by_lead_mean csi_m3_by_lead_mean useful_window crps_plain "
    "effective_resolution pod success_ratio far c_nino34_wm nino34_rmse"
).split()
# Scores whose differences are shown, if there are any.
COMPARED = "mse frame_mse csi_m ssim acc correlation_mean c_nino34_m".split()
Key = tuple[str, str, str]  # score, part, scale

NAMES = {
    "mse": "MSE",
    "mae": "MAE",
    "rmse": "RMSE",
    "nino34_rmse": "RMSE of Niño3.4",
    "ssim": "SSIM",
    "psnr": "PSNR",
    "acc": "anomaly correlation",
    "csi": "CSI",
    "pod": "POD",
    "far": "FAR",
    "csi_m_matched": "CSI, mean over thresholds, quantiles matched",
    "bias_m_matched": "frequency bias, mean over thresholds, quantiles matched",
    "csi_m_by_lead_mean": "CSI, mean over leads and thresholds",
    "csi_m3_by_lead_mean": "CSI-M3, mean over leads and three thresholds",
    "hss": "HSS",
    "ets": "ETS",
    "fss": "FSS",
    "crps": "CRPS",
    "crps_plain": "CRPS, not fair",
    "c_nino34_m": "C-Nino3.4-M",
    "c_nino34_wm": "C-Nino3.4-WM",
    "correlation_mean": "mean correlation",
    "heidke": "Heidke score",
    "brier": "Brier score",
}


def overall(
    rows: Sequence[Row], parts: Collection[str], *, first: bool = True
) -> ET.Element | None:
    """Forecasts by scores of all leads and thresholds; None if there are none.

    Args:
        rows: of all scores.
        parts: of what is scored; those of several stand side by side.
        first: whether the scores that matter most are wanted, or the others.
    """
    chosen = [
        r
        for r in rows
        if r.lead is None
        and r.threshold in ("", "mean")
        and r.part in parts
        and r.score not in BY_WAVELENGTH
        and (r.score in FURTHER or bool(r.scale)) != first
    ]

    def column(row: Row) -> str:
        return _column(row, f" of {row.part}" if len(parts) > 1 and row.part else "")

    return _crossed(chosen, column, "All test examples and all leads together.")


def by_threshold(rows: Sequence[Row], *, first: bool) -> list[ET.Element]:
    """Of each score of events, forecasts by thresholds.

    Args:
        rows: of all scores.
        first: whether the scores that matter most are wanted, or the others.
    """
    chosen = [
        r
        for r in rows
        if r.lead is None
        and r.threshold not in ("", "mean")
        and (r.score == "csi" or (r.score == "frequency_bias" and not r.scale)) == first
    ]
    return _each(chosen, lambda r: r.threshold, "by threshold")


def differences(scores: Mapping[str, Any], rows: Sequence[Row]) -> ET.Element | None:
    """The scores of the model less those of each reference, with their intervals.

    Args:
        scores: what scores.json holds.
        rows: of all scores, which name their units.
    """
    found = scores["forecasts"].get(MODEL, {}).get("differences", {})
    names = [x for x in COMPARED if any(x in own for own in found.values())]
    if not names:
        return None
    heads = []
    for name in names:
        score, at = (name[:-2], "mean") if name == "csi_m" else (name, "")
        row = next((r for r in rows if (r.score, r.threshold) == (score, at)), None)
        heads.append(name if row is None else _column(row))
    body = [
        [title_of(other), *(difference(own.get(name)) or "–" for name in names)]
        for other, own in found.items()
    ]
    caption = "Model minus each reference, on the same bootstrap samples."
    return table(["minus", *heads], body, caption)


def difference(found: Mapping[str, Any] | None) -> str:
    """ "−0.02 (−0.03 to −0.01)"; "" if it is unknown, or not a single number."""
    if found is None or np.ndim(found["difference"]):
        return ""
    value, low, high = np.array([found["difference"], *found["interval"]], np.float64)
    return cell(Row("", "", value=float(value), low=float(low), high=float(high)))


def by_lead(rows: Sequence[Row], frame: str) -> list[ET.Element]:
    """Of each score, forecasts by leads.

    Args:
        rows: of all scores.
        frame: time from one frame to the next, "5 min"; "" if unknown.
    """
    chosen = [r for r in rows if r.lead is not None and r.threshold in ("", "mean")]
    last = max((r.lead for r in chosen if r.lead is not None), default=1)
    step = -(-last // MOST_LEADS)
    kept = [r for r in chosen if r.lead is not None and (last - r.lead) % step == 0]
    return _each(kept, lambda r: lead_label(frame, r.lead or 0), "by lead")


def label_of(row: Row) -> str:
    """What a score is called: "CSI, mean over thresholds, after pooling 4 × 4"."""
    text = NAMES.get(row.score, row.score.replace("_", " "))
    if row.threshold == "mean":
        text += ", mean over thresholds"
    if row.scale:
        text += f", {row.scale} × {row.scale} cells"
    return text


def number(value: float) -> str:
    """Four significant digits, "–" where it is not defined."""
    if not math.isfinite(value):
        return "–"
    text = f"{value:.4g}"
    if "e" in text and 1e-6 < abs(value) < 1e7:
        text = f"{value:.0f}" if abs(value) >= 1 else f"{value:.7f}".rstrip("0")
    return text.replace("-", "−")


def cell(row: Row) -> str:
    """A value with its interval, "0.42 (0.40 to 0.44)"."""
    text = number(row.value)
    if math.isfinite(row.low) and math.isfinite(row.high):
        text += f" ({_short(row.low)} to {_short(row.high)})"
    return text


def title_of(forecast: str) -> str:
    """The name of a forecast for readers, as in the figures."""
    return plotting.look(forecast)[0]


def _short(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def _column(row: Row, of: str = "") -> str:
    return label_of(row) + of + units_text(row.units)


def _each(
    rows: Sequence[Row], column: Callable[[Row], str], how: str
) -> list[ET.Element]:
    """A table for each score, part and scale."""
    groups: dict[Key, list[Row]] = {}
    for row in rows:
        groups.setdefault((row.score, row.part, row.scale), []).append(row)
    made = []
    for (_, part, _), own in groups.items():
        caption = f"{_column(own[0])}, {how}" + (f"; {part}" if part else "")
        found = _crossed(own, column, caption)
        if found is not None:
            made.append(found)
    return made


def _crossed(
    rows: Sequence[Row], column: Callable[[Row], str], caption: str
) -> ET.Element | None:
    """Forecasts down, columns across; None if there are no rows."""
    if not rows:
        return None
    heads = list(dict.fromkeys(column(r) for r in rows))
    cells: dict[str, dict[str, str]] = {}
    for row in rows:
        cells.setdefault(row.forecast, {})[column(row)] = cell(row)
    body = [
        [title_of(name), *(own.get(head, "–") for head in heads)]
        for name, own in cells.items()
    ]
    return table(["forecast", *heads], body, caption, title_of(MODEL))


def facts(pairs: Mapping[str, str]) -> ET.Element:
    """A table of two columns: names, and a text for each."""
    lines = [
        element("tr", element("th", name, scope="row"), element("td", text))
        for name, text in pairs.items()
    ]
    return element(
        "div",
        element("table", element("tbody", *lines), class_="facts"),
        class_="scroll",
        tabindex="0",
    )
