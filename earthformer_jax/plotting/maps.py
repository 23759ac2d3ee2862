"""Maps of sea surface temperature forecasts next to the truth."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from earthformer_jax.plotting.degrees import edges, label_degrees
from earthformer_jax.plotting.style import GREY, figure_style

COLORMAP = "RdBu_r"
MONTH_NAMES = tuple("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split())
NINO34_BOX = (190.0, -5.0, 50.0, 10.0)  # west, south, width, height in degrees


def forecast_maps(
    rows: Mapping[str, np.ndarray],
    *,
    leads: Sequence[int],
    start_month: int,
    latitude: np.ndarray,
    longitude: np.ndarray,
    ocean_mask: np.ndarray,
    index: Mapping[str, Sequence[float]] | None = None,
    title: str = "",
) -> Figure:
    """Maps of temperature anomalies: one row per field, one column per lead.

    Args:
        rows: row label -> `[k, h, w]` anomalies in K of months 1 .. k.
        leads: the months to show, from 1.
        start_month: calendar month of month 1, 0 is January.
        latitude, longitude: `[h]`, `[w]`, degrees, cell centres, ascending.
        ocean_mask: `[h, w]` bool.
        index: row label -> `[k]` Nino3.4 in K, written on the maps.
        title: of the figure.
    """
    west, east = edges(longitude)[[0, -1]]
    south, north = edges(latitude)[[0, -1]]
    shape = (north - south) / (east - west)
    width = 2.6 * len(leads) + 1.3
    height = len(rows) * (2.42 * shape + 0.12) + 0.95
    shown = [np.asarray(field)[np.asarray(leads) - 1] for field in rows.values()]
    peak = max(float(np.max(np.abs(field[:, ocean_mask]))) for field in shown)
    limit = max(0.5, np.ceil(2 * min(peak, 4.0)) / 2)
    with figure_style(font_size=9):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(
            len(rows), len(leads), squeeze=False, sharex=True, sharey=True
        )
        for row, (label, field) in enumerate(rows.items()):
            for column, lead in enumerate(leads):
                panel = axes[row, column]
                _map(panel, field[lead - 1], latitude, longitude, ocean_mask, limit)
                if row == 0:
                    month = MONTH_NAMES[(start_month + lead - 1) % 12]
                    panel.set_title(f"Lead {lead} ({month})")
                if column == 0:
                    panel.set_ylabel(
                        textwrap.fill(label, 14), fontsize=10, fontweight="bold"
                    )
                if index is not None:
                    panel.text(
                        0.985,
                        0.03,
                        f"Niño3.4 {index[label][lead - 1]:+z.1f} K".replace("-", "−"),
                        transform=panel.transAxes,
                        ha="right",
                        va="bottom",
                        fontsize=8,
                        bbox={"facecolor": "white", "alpha": 0.8, "lw": 0, "pad": 1.5},
                    )
        bar = figure.colorbar(
            ScalarMappable(Normalize(-limit, limit), COLORMAP),
            ax=axes,
            shrink=0.9,
            pad=0.012,
            aspect=24,
            extend="both",
        )
        bar.set_label("Sea surface temperature anomaly (K)")
        bar.outline.set_visible(False)
        if title:
            figure.suptitle(title, fontsize=12, fontweight="bold")
    return figure


def _map(panel, field, latitude, longitude, ocean_mask, limit) -> None:
    """Draws one map: cells, land, coastline and the Nino3.4 box."""
    x, y = edges(longitude), edges(latitude)
    panel.set_facecolor(GREY)
    panel.pcolormesh(
        x,
        y,
        np.ma.masked_where(~ocean_mask, field),
        cmap=COLORMAP,
        vmin=-limit,
        vmax=limit,
        rasterized=True,
    )
    panel.add_collection(
        LineCollection(coastline(x, y, ocean_mask), colors="0.3", linewidths=0.7)
    )
    panel.add_patch(
        Rectangle(
            NINO34_BOX[:2], *NINO34_BOX[2:], fill=False, edgecolor="0.1", linewidth=0.9
        )
    )
    panel.set_xlim(x[0], x[-1])
    panel.set_ylim(y[0], y[-1])
    panel.set_aspect("equal")
    label_degrees(panel, x, y)
    for spine in panel.spines.values():
        spine.set_visible(True)
        spine.set_linewidth(0.6)


def coastline(x, y, ocean_mask) -> list:
    """Segments between cells of which exactly one is ocean."""
    across = [
        [(x[j + 1], y[i]), (x[j + 1], y[i + 1])]
        for i, j in np.argwhere(ocean_mask[:, 1:] != ocean_mask[:, :-1])
    ]
    along = [
        [(x[j], y[i + 1]), (x[j + 1], y[i + 1])]
        for i, j in np.argwhere(ocean_mask[1:] != ocean_mask[:-1])
    ]
    return across + along
