"""Tables of scores for readers, made of the rows of the tidy table."""

import math
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence

from earthformer_jax import plotting
from earthformer_jax.plotting.style import lead_label
from earthformer_jax.reports.page.markup import element, table
from earthformer_jax.reports.page.tidy import Row

MODEL = "model"
MOST_LEADS = 12  # columns; of more leads every n-th is shown
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
    "sucr": "success ratio",
    "bias": "frequency bias",
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


def overall(rows: Sequence[Row], part: str = "") -> ET.Element | None:
    """Forecasts by scores of all leads and thresholds; None if there are none."""
    chosen = [
        r
        for r in rows
        if r.lead is None and r.threshold in ("", "mean") and r.part == part
    ]
    return _crossed(chosen, _column, "All test examples and all leads together.")


def by_threshold(rows: Sequence[Row]) -> list[ET.Element]:
    """Of each score of events, forecasts by thresholds."""
    chosen = [r for r in rows if r.lead is None and r.threshold not in ("", "mean")]
    return _each(chosen, lambda r: r.threshold, "by threshold")


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
        text += f", scale {row.scale}"
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


def units_text(units: str) -> str:
    """Units after a number or a name: " (K²)"; "" where there are none."""
    if units in ("", "1"):
        return ""
    units = units.replace("^2", "²")
    return f", {units}" if units.startswith("(") else f" ({units})"


def _column(row: Row) -> str:
    return label_of(row) + units_text(row.units)


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
    """A table of what is called what."""
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
