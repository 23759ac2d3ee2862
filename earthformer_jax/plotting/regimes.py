"""Regimes of days: a calendar, a projection of embeddings, tables of fields."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap, to_rgb
from matplotlib.figure import Figure

from earthformer_jax.plotting.fields import Colours, colours_of
from earthformer_jax.plotting.maps import MONTH_NAMES
from earthformer_jax.plotting.style import GREY, figure_style

# Safe for colour-blind readers (Tol's "bright" and "muted").
COLOURS = (
    "#4477aa",
    "#ee6677",
    "#228833",
    "#ccbb44",
    "#66ccee",
    "#aa3377",
    "#882255",
    "#999933",
    "#332288",
    "#44aa99",
)
DAYS = 366  # of a leap year
MOST_YEARS = 40  # rows of the calendar
POINTS = 6000  # of a projection


def colours(count: int) -> list:
    """One colour for each of `count` regimes."""
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    return [mpl.colormaps["turbo"](x) for x in np.linspace(0.05, 0.95, count)]


def regime_calendar(dates: np.ndarray, regimes: np.ndarray) -> Figure:
    """Years as rows, days as columns, coloured by regime; below, shares by month.

    Args:
        dates: datetime64 `[n]`, ascending; only the first frame of a day counts.
        regimes: int `[n]`, from 0.
    """
    count = int(regimes.max()) + 1
    days = dates.astype("datetime64[D]")
    years = days.astype("datetime64[Y]").astype(int) + 1970
    months = days.astype("datetime64[M]").astype(int) % 12
    column = _day_of_leap_year(days)
    shown = np.unique(years)[-MOST_YEARS:]
    grid = np.full((len(shown), DAYS), np.nan)
    for year, day, regime in zip(years[::-1], column[::-1], regimes[::-1], strict=True):
        if year >= shown[0]:
            grid[np.searchsorted(shown, year), day] = regime
    shares = np.zeros((count, 12))
    np.add.at(shares, (regimes, months), 1)
    shares /= np.maximum(shares.sum(axis=0), 1)
    palette = colours(count)
    with figure_style():
        figure = Figure(figsize=(10, 3.2 + 0.2 * len(shown)), layout="constrained")
        FigureCanvasAgg(figure)
        top, bottom = figure.subplots(
            2, 1, height_ratios=(0.25 * len(shown) + 0.4, 2.2)
        )
        top.imshow(
            np.ma.masked_invalid(grid),
            aspect="auto",
            interpolation="nearest",
            cmap=ListedColormap(palette).with_extremes(bad=GREY),
            norm=BoundaryNorm(np.arange(count + 1) - 0.5, count),
        )
        label_every = -(-len(shown) // 12)
        top.set_yticks(range(len(shown))[::label_every], shown[::label_every])
        starts = _day_of_leap_year(
            np.arange("2020-01", "2021-01", dtype="datetime64[M]").astype(
                "datetime64[D]"
            )
        )
        top.set_xticks(starts, MONTH_NAMES, ha="left")
        top.tick_params(length=0)
        top.set_title("Regime of every day", loc="left", fontweight="bold")
        base = np.zeros(12)
        for regime in range(count):
            bottom.bar(
                range(12),
                shares[regime],
                bottom=base,
                width=0.92,
                color=palette[regime],
                label=f"{regime + 1}",
            )
            base += shares[regime]
        bottom.set_xlim(-0.5, 11.5)
        bottom.set_ylim(0, 1)
        bottom.set_xticks(range(12), MONTH_NAMES)
        bottom.set_yticks([0, 0.5, 1], ["0", "50 %", "100 %"])
        bottom.set_title("Share of each regime by month", loc="left", fontweight="bold")
        bottom.legend(
            title="Regime", loc="center left", bbox_to_anchor=(1, 0.5), reverse=True
        )
    return figure


def projection(
    points: np.ndarray, regimes: np.ndarray, day: np.ndarray | None = None
) -> Figure:
    """Embeddings in two dimensions, coloured by regime and by day of the year.

    Args:
        points: `[n, 2]`.
        regimes: int `[n]`, from 0.
        day: `[n]`, from 0; None leaves the second panel out.
    """
    chosen = np.unique(np.linspace(0, len(points) - 1, POINTS).astype(int))
    rng = np.random.default_rng(0)
    chosen = rng.permutation(chosen)  # so that no regime covers all others
    x, y = points[chosen].T
    count = int(regimes.max()) + 1
    panels = 1 if day is None else 2
    size = 9 if len(chosen) < 2000 else 4
    with figure_style():
        figure = Figure(figsize=(5.6 * panels, 4.8), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(1, panels, squeeze=False, sharex=True, sharey=True)[0]
        palette = np.array([to_rgb(c) for c in colours(count)])
        axes[0].scatter(x, y, s=size, c=palette[regimes[chosen]], lw=0)
        for regime in range(count):
            axes[0].scatter([], [], s=30, color=palette[regime], label=f"{regime + 1}")
        axes[0].legend(title="Regime", loc="best", ncols=-(-count // 4))
        axes[0].set_title("Embeddings by regime", loc="left", fontweight="bold")
        axes[0].set_ylabel("Second principal component")
        if day is not None:
            dots = axes[1].scatter(
                x, y, s=size, c=day[chosen], cmap="twilight", vmin=0, vmax=365, lw=0
            )
            bar = figure.colorbar(dots, ax=axes[1], shrink=0.9)
            bar.set_ticks([30.4 * i + 15 for i in range(12)], labels=MONTH_NAMES)
            bar.outline.set_visible(False)
            axes[1].set_title("The same by season", loc="left", fontweight="bold")
        for panel in axes:
            panel.set_xlabel("First principal component")
    return figure


def field_table(
    rows: Mapping[str, Sequence[np.ndarray]],
    *,
    columns: Sequence[str],
    title: str,
    units: str = "",
    diverging: bool = False,
    south_first: bool = False,
    coordinates: Mapping[str, np.ndarray] | None = None,
) -> Figure:
    """Fields in rows and columns.

    Args:
        rows: label -> `[h, w]` for each column; grey where not finite.
        columns: their headings.
        title: of the figure.
        units: of all rows, if they share one quantity and its colours.
        diverging: colours centred on 0, for each row separately.
        south_first: whether row 0 of a field belongs at the bottom.
        coordinates: `latitude` `[h]` and `longitude` `[w]` in degrees, if known: cells
            are drawn as large as they are at the middle latitude.
    """
    height, width = np.shape(next(iter(rows.values()))[0])
    aspect = _cell_aspect(coordinates or {})
    wide = 1.5 if len(columns) > 4 else 2.1
    tall = float(np.clip(wide * aspect * height / width, 0.7, 3.0))
    everything = [x for fields in rows.values() for x in fields]
    with figure_style(font_size=9):
        figure = Figure(
            figsize=(wide * len(columns) + 2.2, (tall + 0.15) * len(rows) + 0.9),
            layout="constrained",
        )
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(rows), len(columns), squeeze=False)
        shared = colours_of("viridis", None, everything)
        for r, (label, fields) in enumerate(rows.items()):
            look = colours_of("RdBu_r", None, fields) if diverging else shared
            for c, field in enumerate(fields):
                panel = axes[r, c]
                panel.imshow(
                    np.ma.masked_invalid(field),
                    cmap=look.colormap,
                    norm=look.norm,
                    origin="lower" if south_first else "upper",
                    aspect=aspect,
                    interpolation="nearest",
                )
                panel.set_xticks([])
                panel.set_yticks([])
                if r == 0:
                    panel.set_title(columns[c], fontsize=9)
            axes[r, 0].set_ylabel(
                label, rotation=0, ha="right", va="center", fontsize=9, labelpad=8
            )
            if diverging:
                _colour_bar(figure, axes[r], look)
        if not diverging:
            _colour_bar(figure, axes, shared, label=units)
        figure.suptitle(title, fontsize=11, fontweight="bold")
    return figure


def _colour_bar(figure: Figure, axes, colours: Colours, label: str = "") -> None:
    image = ScalarMappable(colours.norm, colours.colormap)
    figure.colorbar(image, ax=axes, pad=0.01, extend=colours.extend, label=label)


def _day_of_leap_year(days: np.ndarray) -> np.ndarray:
    """0 .. 365, the same for a date in every year."""
    month = days.astype("datetime64[M]")
    start = np.cumsum([0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30])
    return start[month.astype(int) % 12] + (
        days - month.astype("datetime64[D]")
    ).astype(int)


def _cell_aspect(coordinates: Mapping[str, np.ndarray]) -> float:
    """Height of a cell in units of its width."""
    latitude, longitude = (coordinates.get(k) for k in ("latitude", "longitude"))
    if latitude is None or longitude is None or np.ndim(latitude) != 1:
        return 1.0
    if min(len(latitude), len(longitude)) < 2:
        return 1.0
    tall = abs(float(np.diff(latitude).mean()))
    wide = abs(float(np.diff(longitude).mean()))
    wide *= float(np.cos(np.deg2rad(np.mean(latitude))))
    return float(np.clip(tall / wide, 0.3, 3.0)) if wide > 0 and tall > 0 else 1.0
