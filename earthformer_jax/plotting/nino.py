"""One page on the skill of El Niño forecasts."""

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from earthformer_jax.plotting.degrees import edges, label_degrees
from earthformer_jax.plotting.maps import MONTH_NAMES, coastline
from earthformer_jax.plotting.style import GREY, LOOKS, figure_style, look, ordered

A4 = (8.27, 11.69)  # inches
MAPS = 4  # in a row
CATEGORIES = ("La Niña", "neutral", "El Niño")
LEFT, RIGHT = 0.07, 0.95  # of the panels, shares of the page
SIZES: Any = {"axes.labelsize": 7.5, "axes.titlesize": 8.5}
SKILL_COLOURS, GAP_COLOURS = "YlGnBu", "RdBu_r"


@dataclasses.dataclass(frozen=True, eq=False)
class SkillPage:
    """What the page shows of one forecast, of the others, and of the difference.

    Attributes:
        title, subtitle: of the page.
        index: name of the index, "monthly Niño3.4".
        correlation: forecast -> `[k]`, by lead.
        error: forecast -> `[k]` root mean square error of the monthly index in K.
        bands: "correlation" and "error" -> `[k, 2]` interval of the first forecast.
        level: share of the samples inside the intervals.
        other: the forecast that the first is compared with; empty: there is none.
        gap: `[k]` correlation of the first minus that of `other`; None without one.
        gap_band: `[k, 2]` its paired interval.
        months: `[12, k]` correlation of the first by target month and lead.
        months_gap: `[12, k]` the same minus that of `other`, or None.
        heidke: forecast -> `[k]` score of three categories by lead.
        hits: `[3, 3]` windows by the forecast and the observed category.
        hits_lead: lead of `hits`.
        threshold: K, where categories are divided.
        maps: `[l, h, w]` correlation in each cell, NaN on land.
        error_ratio: `[l, h, w]` share of the error of `other` that the first avoids, or
            None.
        map_leads: `[l]` leads of the maps.
        latitude, longitude: `[h]`, `[w]`.
    """

    title: str
    subtitle: str
    index: str
    correlation: Mapping[str, np.ndarray]
    error: Mapping[str, np.ndarray]
    bands: Mapping[str, np.ndarray]
    level: float
    other: str
    gap: np.ndarray | None
    gap_band: np.ndarray | None
    months: np.ndarray
    months_gap: np.ndarray | None
    heidke: Mapping[str, np.ndarray]
    hits: np.ndarray
    hits_lead: int
    threshold: float
    maps: np.ndarray
    error_ratio: np.ndarray | None
    map_leads: Sequence[int]
    latitude: np.ndarray
    longitude: np.ndarray


def skill_page(page: SkillPage) -> Figure:
    """Draws the page, A4 upright.

    Panels that nothing is known for say why.
    """
    with figure_style(font_size=7.5), mpl.rc_context(SIZES):
        figure = Figure(figsize=A4)
        FigureCanvasAgg(figure)
        left, right = _row(figure, 0.775, 0.15, 2)
        _curves(left, page, page.correlation, page.bands["correlation"])
        left.set_title(f"Correlation of {page.index}", loc="left")
        left.set_ylim(top=1)
        left.yaxis.set_major_locator(MultipleLocator(0.2))
        figure.legend(
            *left.get_legend_handles_labels(),
            loc="upper left",
            bbox_to_anchor=(LEFT - 0.01, 0.75),
            ncols=5,
            fontsize=6.5,
        )
        _curves(right, page, page.error, page.bands["error"])
        right.set_title("Root mean square error of monthly Niño3.4 (K)", loc="left")
        right.set_ylim(bottom=0)
        left, right = _row(figure, 0.555, 0.138, 2)
        _difference(left, page)
        _curves(right, page, page.heidke, None)
        right.set_title(
            f"Heidke score of La Niña, neutral, El Niño (±{page.threshold:g} K)",
            loc="left",
        )
        left, middle, right = _row(figure, 0.36, 0.14, 3)
        _months(left, page, page.months, "Correlation by month that is forecast")
        _months(middle, page, page.months_gap, "Minus the strongest reference", True)
        _hits(right, page)
        _maps(figure, 0.2, page, page.maps, "Correlation in each cell", (0, 1))
        _maps(
            figure,
            0.065,
            page,
            page.error_ratio,
            f"Share of the squared error of {called(page.other)} that is avoided",
            (-0.5, 0.5),
        )
        figure.text(LEFT, 0.985, page.title, va="top", fontsize=11.5, fontweight="bold")
        figure.text(LEFT, 0.012, page.subtitle, fontsize=6.5, color="0.3")
    return figure


def _row(figure, bottom: float, height: float, columns: int) -> list:
    """Panels side by side; `bottom` and `height` are shares of the page."""
    gap = 0.07
    width = (RIGHT - LEFT - (columns - 1) * gap) / columns
    return [
        figure.add_axes((LEFT + i * (width + gap), bottom, width, height))
        for i in range(columns)
    ]


def called(name: str) -> str:
    """What a forecast is called within a sentence; "" is one that does not exist."""
    label = look(name)[0] if name else "a reference"
    words = ("LIM", "Linear", "Recharge")
    article = "the " if label.startswith(words) else ""
    return article + (label if label[:2].isupper() else label[0].lower() + label[1:])


def _empty(axes, why: str) -> None:
    axes.set_axis_off()
    axes.text(
        0.5,
        0.5,
        textwrap.fill(why, 30),
        transform=axes.transAxes,
        ha="center",
        va="center",
        color="0.4",
    )


def _curves(axes, page: SkillPage, curves: Mapping[str, np.ndarray], band) -> None:
    """One line per forecast against lead, with the interval of the first."""
    unknown = 0
    for name in ordered(curves):
        values = np.asarray(curves[name], np.float64)
        label, colour, style, width = look(name, unknown)
        unknown += name not in LOOKS
        first = name == next(iter(curves))
        leads = np.arange(1, values.size + 1)
        if first and band is not None and np.isfinite(band).any():
            axes.fill_between(
                leads,
                band[:, 0],
                band[:, 1],
                color=colour,
                alpha=0.15,
                linewidth=0,
                label=f"{page.level:.0%} interval",
            )
        axes.plot(
            leads,
            values,
            color=colour,
            linestyle=style,
            linewidth=0.75 * width,
            label=label,
            zorder=3 if first else 2,
        )
    _lead_axis(axes, max(len(values) for values in curves.values()))
    axes.axhline(0, color="0.35", linewidth=0.6, zorder=1)


def _lead_axis(axes, leads: int) -> None:
    axes.set_xlim(0.7, leads + 0.3)
    axes.xaxis.set_major_locator(MultipleLocator(1 if leads <= 14 else 3))
    axes.set_xlabel("Lead (months)", labelpad=1)
    axes.grid(axis="y", color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)


def _difference(axes, page: SkillPage) -> None:
    """The paired difference of the correlation to the other forecast."""
    if page.gap is None:
        _empty(axes, "There is no reference to compare with")
        return
    leads = np.arange(1, len(page.gap) + 1)
    colour = LOOKS["model"][1]
    band = page.gap_band
    if band is not None and np.isfinite(band).any():
        axes.fill_between(
            leads, band[:, 0], band[:, 1], color=colour, alpha=0.15, linewidth=0
        )
    axes.plot(leads, page.gap, color=colour, linewidth=1.8)
    axes.axhline(0, color="0.35", linewidth=0.8)
    _lead_axis(axes, len(leads))
    axes.set_title(f"Correlation minus that of {called(page.other)}", loc="left")


def _months(axes, page: SkillPage, values, title: str, diverging: bool = False) -> None:
    """Calendar months that are forecast against leads."""
    if values is None or not np.isfinite(values).any():
        why = "There is no reference to compare with"
        if values is not None:
            why = "Too few years are known for a correlation within one calendar month"
        _empty(axes, why)
        return
    leads = np.asarray(values).shape[1]
    limit = (-0.4, 0.4) if diverging else (0.0, 1.0)
    axes.set_facecolor(GREY)
    mesh = axes.pcolormesh(
        np.arange(leads + 1) + 0.5,
        np.arange(13) - 0.5,
        np.ma.masked_invalid(values),
        cmap=GAP_COLOURS if diverging else SKILL_COLOURS,
        vmin=limit[0],
        vmax=limit[1],
        rasterized=True,
    )
    axes.set_yticks(range(12), [name[0] for name in MONTH_NAMES])
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.xaxis.set_major_locator(MultipleLocator(3))
    axes.set_xlabel("Lead (months)", labelpad=1)
    axes.set_title(title, loc="left")
    bar = axes.figure.colorbar(mesh, ax=axes, aspect=25, pad=0.02, extend="both")
    bar.outline.set_visible(False)


def _hits(axes, page: SkillPage) -> None:
    """What was observed when each category was forecast."""
    hits = np.asarray(page.hits)
    if not hits.sum():
        _empty(axes, "No observed index is known for the categories")
        return
    said = hits.sum(axis=1, keepdims=True)
    share = np.where(said > 0, hits / np.maximum(said, 1), np.nan)
    axes.set_facecolor(GREY)
    axes.imshow(share, cmap="Greens", vmin=0, vmax=1, aspect="auto")
    for i, j in np.ndindex(3, 3):
        text = "never" if said[i, 0] == 0 else f"{share[i, j]:.0%}\n{hits[i, j]}"
        dark = share[i, j] > 0.6
        axes.text(j, i, text, ha="center", va="center", color="w" if dark else "0.1")
    axes.set_xticks(range(3), CATEGORIES)
    axes.set_yticks(range(3), CATEGORIES, rotation=90, va="center")
    axes.tick_params(length=0)
    axes.set_xlabel("was observed", labelpad=1)
    axes.set_ylabel("When this was forecast,", labelpad=1)
    axes.set_title(f"Categories at lead {page.hits_lead}", loc="left")


def _maps(figure, bottom: float, page: SkillPage, values, title: str, limits) -> None:
    """A row of maps, one per lead."""
    gap, height = 0.012, 0.095
    width = (RIGHT - 0.02 - LEFT - MAPS * gap) / MAPS
    panels = [
        figure.add_axes((LEFT + i * (width + gap), bottom, width, height))
        for i in range(MAPS)
    ]
    figure.text(LEFT, bottom + height + 0.017, title, fontsize=8.5)
    x, y = edges(page.longitude), edges(page.latitude)
    colours = GAP_COLOURS if limits[0] < 0 else SKILL_COLOURS
    if values is None:
        for panel in panels[1:]:
            panel.set_axis_off()
        _empty(panels[0], "There is no reference to compare with")
        return
    ocean = np.isfinite(page.maps[0])
    for panel, lead, field in zip(panels, page.map_leads, values, strict=False):
        panel.set_facecolor(GREY)
        panel.pcolormesh(
            x,
            y,
            np.ma.masked_invalid(field),
            cmap=colours,
            vmin=limits[0],
            vmax=limits[1],
            rasterized=True,
        )
        coast = coastline(x, y, ocean)
        panel.add_collection(LineCollection(coast, colors="0.3", linewidths=0.5))
        panel.set_xlim(x[0], x[-1])
        panel.set_ylim(y[0], y[-1])
        panel.set_aspect("equal")
        label_degrees(panel, x, y)
        panel.tick_params(labelsize=6, length=2)
        panel.set_title(f"Lead {lead}", fontsize=7.5, pad=3)
        if panel is not panels[0]:
            panel.set_yticklabels([])
    for panel in panels[len(page.map_leads) :]:
        panel.set_axis_off()
    bar = figure.colorbar(
        ScalarMappable(Normalize(*limits), colours),
        cax=figure.add_axes((RIGHT - 0.015, bottom + 0.01, 0.01, height - 0.02)),
        extend="both" if limits[0] < 0 else "min",
    )
    bar.outline.set_visible(False)
