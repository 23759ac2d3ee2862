"""The table and the figure of `enso_benchmark.py`."""

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from markdown_table import markdown
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

MEAN_LEADS = 12
SHOWN_LEADS = (1, 3, 6, 9, 12, 15, 18, 24)

LABELS = {
    "persistence": "persistence",
    "damped_persistence": "damped persistence",
    "lim": "LIM",
    "lim_memory": "LIM + memory",
    "lim_field_memory": "LIM + memory of fields",
    "lim_hidden": "LIM + hidden states",
    "oscillator": "oscillator",
    "unet": "UNet",
    "conv_lstm": "ConvLSTM",
    "earthformer": "Earthformer",
    "hybrid": "hybrid Earthformer",
    "lim_two_indices": "LIM of T and h",
    "lim_indices": "LIM of 10 indices",
    "xro_linear": "XRO, linear",
    "xro": "XRO, nonlinear",
    "xro_memory": "XRO, memory of SST for h",
}
TRAINED = ("unet", "conv_lstm", "earthformer", "hybrid")


def table(results: Mapping[str, Any], leads: int) -> str:
    """A section of table.md."""
    shown = [k for k in SHOWN_LEADS if k <= leads]
    has_error = "mse" in next(iter(results["rows"].values()))
    strongest = results["strongest"]
    against = LABELS.get(strongest, strongest)
    mean_leads = min(MEAN_LEADS, leads)
    heads = ["forecast", *(f"r{k}" for k in shown), f"mean 1-{mean_leads}"]
    heads += ["C-Nino3.4-M", "map MSE, K²"] * has_error
    heads += [f"mean less that of {against}"] * bool(strongest)
    heads += [f"map MSE less that of {against}"] * (has_error and bool(strongest))
    rows, remarks = [], []
    for name, row in results["rows"].items():
        cells = [row["label"], *(f"{row['correlation'][k - 1]:.2f}" for k in shown)]
        cells.append(_cell(row, "correlation_mean"))
        cells += [_cell(row, key) for key in ("c_nino34_m", "mse") if has_error]
        for key in ("correlation_mean_minus", "mse_minus"):
            if key in row:
                cells.append("" if name == strongest else _cell(row, key, "+"))
        rows.append(cells)
    for row in results["rows"].values():
        if found := row.get("members"):
            each = ", ".join(f"{r:.3f}" for r in found["correlation_mean"])
            errors = ", ".join(f"{e:.3f}" for e in found["mse"])
            remarks += [
                f"\n{row['label']}: the seeds alone have the means {each} and the map "
                f"MSE {errors}; the row is the average of their forecasts."
            ]
    return "\n".join([markdown(heads, rows), *remarks])


def _cell(row: Mapping[str, Any], key: str, sign: str = "") -> str:
    low, high = row[f"{key}_interval"]
    digits = 3 if key.startswith("mse") else 2
    if not np.isfinite([low, high]).all():  # too few windows
        return f"{row[key]:{sign}.3f}"
    return f"{row[key]:{sign}.3f} ({low:{sign}.{digits}f} to {high:{sign}.{digits}f})"


def figure(results: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Correlation by lead, a panel for each part; the best has its interval."""
    with mpl.rc_context({"font.size": 10, "legend.fontsize": 8.5}):
        made = Figure(figsize=(6.4 * len(results), 5.4), layout="constrained")
        FigureCanvasAgg(made)
        panels = made.subplots(1, len(results), squeeze=False)[0]
        for axes, part in zip(panels, results.values(), strict=True):
            rows = part["rows"]
            dashed = set(rows) - set(TRAINED) if set(rows) & set(TRAINED) else set()
            best = max(rows, key=lambda name: rows[name]["correlation_mean"])
            for i, (name, row) in enumerate(rows.items()):
                leads = np.arange(1, len(row["correlation"]) + 1)
                colour = "0.6" if name == "persistence" else f"C{i % 10}"
                width = 2.6 if name == best else 1.5
                axes.plot(
                    leads,
                    row["correlation"],
                    "--" if name in dashed else "-",
                    color=colour,
                    linewidth=width,
                    label=row["label"],
                )
                if name == best:
                    low, high = np.transpose(row["correlation_interval"])
                    axes.fill_between(leads, low, high, color=colour, alpha=0.15)
            axes.axhline(0, color="0.4", linewidth=0.8)
            axes.set(xlabel="lead in months", ylim=(None, 1))
            axes.set_ylabel("correlation of monthly Niño3.4")
            axes.set_title(f"{part['protocol']}, {part['windows']} windows", loc="left")
            axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
            axes.legend(
                loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3, frameon=False
            )
    return made
