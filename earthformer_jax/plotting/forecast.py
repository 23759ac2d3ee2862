"""Figures of a forecast file: maps of its variables, and its indices by time."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from earthformer_jax.plotting.degrees import edges, label_degrees
from earthformer_jax.plotting.fields import Colours, colours_of
from earthformer_jax.plotting.frames import colour_bar, every
from earthformer_jax.plotting.maps import NINO34_BOX
from earthformer_jax.plotting.style import GREY, figure_style, look, save

PANELS = 6  # maps of a figure: the last input, if it is given, and leads
PANEL_WIDTH, PANEL_HEIGHT = 3.4, 4.5  # inches, at most
COLORMAP, ANOMALY_COLORMAP, SPREAD_COLORMAP = "viridis", "RdBu_r", "YlGnBu"
BANDS = ((0.05, 0.95, 0.2), (0.25, 0.75, 0.4))  # quantiles of members, and opacity
LEAST_FOR_BANDS = 10  # members; fewer are drawn as lines
INPUT_COLOUR = "0.45"
TICKS = 10  # dates along the axis of an index
EL_NINO = 0.5  # K, above which NOAA speaks of El Niño conditions
NINO34 = "nino34"
INDICES = {NINO34: "Niño3.4", "nino3": "Niño3", "nino4": "Niño4", "nino12": "Niño1+2"}
MOST_NORTH = 60.0  # degrees; further maps are stretched no more

MEMBER = "realization"
STEPS = ("lead_time", "step", "time")  # dimension of the leads: the first at hand
STARTS = ("forecast_reference_time", "last_frame", "start")
PLANES = (("lat", "lon"), ("latitude", "longitude"), ("y", "x"))
MONTH = np.timedelta64(28, "D")


@dataclasses.dataclass(frozen=True)
class _Steps:
    """The leads of one forecast, and texts that say when they are.

    Attributes:
        dimension: of the leads.
        start: date of the last input; "" without dates.
        valid: date of each lead, or "+3" without dates.
        monthly: whether leads are months.
    """

    dimension: str
    start: str
    valid: list[str]
    monthly: bool


@dataclasses.dataclass(frozen=True)
class _Cells:
    """Edges of the cells of a map.

    Attributes:
        x: `[w + 1]`.
        y: `[h + 1]`, descending where the first row is at the top.
        in_degrees: whether x is the longitude and y the latitude.
        aspect: how much longer a unit of y is drawn than one of x.
    """

    x: np.ndarray
    y: np.ndarray
    in_degrees: bool
    aspect: float

    @property
    def shape(self) -> float:
        """Height of a map relative to its width."""
        return float(self.aspect * np.ptp(self.y) / np.ptp(self.x))


def draw(
    forecast: xr.Dataset,
    stem: str | os.PathLike[str],
    inputs: xr.Dataset | None = None,
) -> list[Path]:
    """Writes a figure of maps for each variable of a forecast, and one of each index.

    If there are several starts, the first is drawn. Maps show the mean of the members;
    further figures show their spread (the standard deviation), and the mean of the area
    of each of them.

    Args:
        forecast: a forecast as it is written into files: variables with a dimension of
            leads (`time`, `lead_time` or `step`) and a plane (`lat` and `lon`, or `y`
            and `x`), or without a plane if they are an index.
        stem: beginning of the names of the figures: "out/sst" gives
            "out/sst_VARIABLE.png", and of members also "out/sst_VARIABLE_spread.png"
            and "out/sst_VARIABLE_area_mean.png".
        inputs: the frames before the forecast: variables of the same names with the
            dimension `time`; None: only the forecast is drawn.

    Returns:
        the files.

    Raises:
        ValueError: if the data set has no dimension of leads.
    """
    forecast = _decoded(forecast)
    if not any(name in forecast.dims for name in STEPS):
        raise ValueError(
            f"forecast has the dimensions {', '.join(map(str, forecast.dims))}; "
            f"expected one of {', '.join(STEPS)}"
        )
    forecast = forecast.isel({name: 0 for name in STARTS if name in forecast.dims})
    inputs = xr.Dataset() if inputs is None else _decoded(inputs)
    steps = _steps(forecast)
    written = []
    for name, values in forecast.data_vars.items():
        if steps.dimension not in values.dims or values.dtype.kind != "f":
            continue
        dims = set(values.dims) - {steps.dimension, MEMBER}
        plane = next((p for p in PLANES if set(p) == dims), None)
        before = inputs.get(name)
        made: dict[str, Figure] = {}
        if plane is not None:
            box = NINO34_BOX if NINO34 in forecast else None
            count = values.sizes.get(MEMBER, 1)
            mean, spread, areas = _of_members(values, steps, plane)
            made[""] = _map_figure(mean, before, steps, plane, box, _of(count, "mean"))
            if count > 1:
                made["_spread"] = _map_figure(
                    spread, None, steps, plane, box, _of(count, "spread")
                )
                past = None if before is None else _area_mean(before, plane)
                made["_area_mean"] = _index_figure(areas, past, steps)
        elif not dims and name != "valid_time":
            made[""] = _index_figure(values, before, steps)
        for kind, figure in made.items():
            path = Path(f"{os.fspath(stem)}_{name}{kind}.png")
            save(figure, path)
            written.append(path)
    return written


def _of(count: int, what: str) -> str:
    """What the title says of members, "mean of 20 members"; "" of a single one."""
    return f"{what} of {count} members" if count > 1 else ""


def _of_members(
    values: xr.DataArray, steps: _Steps, plane: tuple[str, str]
) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """Mean and spread of members `[k, h, w]`, and the area mean of each `[k, m]`.

    One lead is read after the other, so that memory does not grow with their number.
    """
    if values.sizes.get(MEMBER, 1) == 1:
        values = values.squeeze(MEMBER) if MEMBER in values.dims else values
        return values, values, values
    kinds: list[list[xr.DataArray]] = [[], [], []]
    for i in range(values.sizes[steps.dimension]):
        members = values.isel({steps.dimension: [i]}).load()
        kinds[0].append(members.mean(MEMBER, keep_attrs=True))
        kinds[1].append(members.std(MEMBER, ddof=1, keep_attrs=True))
        kinds[2].append(_area_mean(members, plane))
    mean, spread, area = (xr.concat(x, dim=steps.dimension) for x in kinds)
    return mean, spread, area


def _area_mean(values: xr.DataArray, plane: tuple[str, str]) -> xr.DataArray:
    """The mean over rows and columns; in degrees, each counts by its area."""
    weights = xr.ones_like(values[plane[0]], dtype=np.float64)
    if plane[0].startswith("lat") and plane[0] in values.coords:
        weights.values = np.cos(np.deg2rad(values[plane[0]].values))
    mean = values.weighted(weights).mean(plane, keep_attrs=True)
    return mean.assign_attrs(long_name=f"area mean of {_name(values)}")


def _decoded(dataset: xr.Dataset) -> xr.Dataset:
    """With dates instead of numbers since a date."""
    return xr.decode_cf(dataset, decode_timedelta=False)


def _steps(forecast: xr.Dataset) -> _Steps:
    dimension = next(name for name in STEPS if name in forecast.dims)
    moments = forecast.get("valid_time", forecast.get("time"))
    if moments is None or moments.dtype.kind in "iuf":
        leads = range(1, forecast.sizes[dimension] + 1)
        return _Steps(dimension, "", [f"+{i}" for i in leads], False)
    start = forecast.get("forecast_reference_time")
    series = list(moments.values) if start is None else [start.values[()]]
    series += [] if start is None else list(moments.values)
    monthly = _is_monthly(series)
    texts = _dates(series, monthly)
    return _Steps(dimension, "" if start is None else texts.pop(0), texts, monthly)


def _is_monthly(moments: list) -> bool:
    apart = np.diff(np.array(moments))
    return len(apart) > 0 and bool(np.all(apart >= MONTH))


def _dates(moments: list, monthly: bool) -> list[str]:
    """ "2014-11" of months, "2014-11-03" of days, otherwise with hours and minutes."""
    texts = [
        str(moment.astype("datetime64[m]"))
        if isinstance(moment, np.datetime64)
        else moment.strftime("%Y-%m-%dT%H:%M")  # of cftime
        for moment in moments
    ]
    if monthly:
        return [text[:7] for text in texts]
    if all(text.endswith("T00:00") for text in texts):
        return [text[:10] for text in texts]
    return [text.replace("T", " ") for text in texts]


def _name(values: xr.DataArray) -> str:
    if values.name in INDICES:
        return f"{INDICES[str(values.name)]} index"
    return str(values.attrs.get("long_name") or values.name)


def _label(values: xr.DataArray) -> str:
    units = values.attrs.get("units", "")
    return f"{_name(values)} ({units})" if units not in ("", "1") else _name(values)


def _is_anomaly(values: xr.DataArray) -> bool:
    names = (values.name, _name(values), values.attrs.get("standard_name"))
    return any("anomal" in str(name).lower() for name in names)


def _set_title(
    figure: Figure, values: xr.DataArray, steps: _Steps, what: str = ""
) -> None:
    title = f"Forecast of {_name(values)}"
    title += f", {what}" if what else ""
    if steps.start:
        title += f", last input {steps.start}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=11.5, fontweight="bold")


def _map_figure(
    values: xr.DataArray,
    before: xr.DataArray | None,
    steps: _Steps,
    plane,
    box,
    what: str,
) -> Figure:
    fields = values.transpose(steps.dimension, *plane)
    panels = []
    if before is not None:
        last = before.transpose("time", *plane)[-1]
        panels.append((f"{steps.start}\nlast input".strip(), last.values))
    for i in _evenly(len(fields), PANELS - len(panels)):
        panels.append((_panel_title(steps, i), fields[i].values))
    cells = _cells(fields, plane)
    colormap, limits = ANOMALY_COLORMAP if _is_anomaly(values) else COLORMAP, None
    label = _label(values)
    if what.startswith("spread"):
        label = _label(values.assign_attrs(long_name="Standard deviation"))
        colormap, limits = (
            SPREAD_COLORMAP,
            (0.0, float(np.nan_to_num(fields.max())) or 1.0),
        )
    colours = colours_of(colormap, limits, [field for _, field in panels])
    columns = min(len(panels), 3 if cells.shape < 1.5 else PANELS)
    columns = 2 if len(panels) == 4 and columns == 3 else columns
    rows = -(-len(panels) // columns)
    width = min(PANEL_WIDTH, PANEL_HEIGHT / cells.shape)
    size = columns * (width + 0.35) + 1.6, rows * (width * cells.shape + 0.65) + 0.5
    with figure_style(font_size=9):
        figure = Figure(figsize=size, layout="compressed")
        FigureCanvasAgg(figure)
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        for axes, (title, field) in zip(grid.flat, panels, strict=False):
            _map(axes, field, cells, colours)
            axes.set_title(title, fontsize=9, pad=4)
            if cells.in_degrees and box is not None:
                axes.add_patch(
                    Rectangle(box[:2], *box[2:], fill=False, lw=0.9, ec="0.1")
                )
        if before is not None:
            grid[0, 0].title.set_color(INPUT_COLOUR)
        colour_bar(figure, grid, colours, label, pad=0.02, aspect=30)
        _set_title(figure, values, steps, what)
    return figure


def _evenly(count: int, most: int) -> list[int]:
    """At most `most` of 0 .. count - 1, evenly spaced, with the first and the last."""
    return np.unique(np.linspace(0, count - 1, most).round().astype(int)).tolist()


def _panel_title(steps: _Steps, i: int) -> str:
    lead, plural = f"+{i + 1}", "s" if i else ""
    if steps.valid[i] == lead:
        return f"{lead} frame{plural}"
    if steps.monthly:
        return f"{steps.valid[i]}\n{lead} month{plural}"
    return steps.valid[i]


def _map(axes, field, cells: _Cells, colours: Colours) -> None:
    axes.set_facecolor(GREY)
    axes.pcolormesh(
        cells.x,
        cells.y,
        np.ma.masked_invalid(field),
        cmap=colours.colormap,
        norm=colours.norm,
        rasterized=True,
    )
    axes.set_xlim(cells.x.min(), cells.x.max())
    axes.set_ylim(cells.y.min(), cells.y.max())
    axes.set_aspect(cells.aspect)
    if cells.in_degrees:
        label_degrees(axes, cells.x, cells.y)
    else:
        axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(visible=True, linewidth=0.6)


def _cells(fields: xr.DataArray, plane: tuple[str, str]) -> _Cells:
    """The cells of `[k, h, w]`: in degrees if rows and columns are, else squares."""
    known = [name for name in (*plane, "lat", "latitude") if name in fields.coords]
    if plane[0].startswith("lat") and set(plane) <= set(known):
        longitude = fields[plane[1]].values.astype(np.float64)
        x, y = edges(np.unwrap(longitude, period=360)), edges(fields[plane[0]].values)
        middle = np.deg2rad(np.clip(y.mean(), -MOST_NORTH, MOST_NORTH))
        return _Cells(x, y, True, float(1 / np.cos(middle)))
    height, width = fields.shape[1:]
    y = np.arange(height, -1.0, -1)
    # Rows of km, or of a tilted grid, may begin in the south; those of images do not.
    rows = [fields[name].values for name in known if name != plane[1]]
    if rows and rows[0].flat[-1] > rows[0].flat[0]:
        y = y[::-1]
    return _Cells(np.arange(width + 1.0), y, False, 1.0)


def _index_figure(
    values: xr.DataArray, before: xr.DataArray | None, steps: _Steps
) -> Figure:
    """An index by time: the inputs before, the forecast, and how members spread."""
    ordered = values.transpose(steps.dimension, ...)
    members = ordered.values.reshape(len(ordered), -1)
    count = members.shape[1]
    mean = members.mean(axis=1)
    past, dates = np.array([]), []
    if before is not None:
        past = np.asarray(before.values, np.float64)
        dates = _dates(list(before["time"].values), steps.monthly)
    elif steps.start:
        dates = [steps.start]
    dates += steps.valid
    leads = np.arange(1, len(members) + 1)
    _, colour, _, width = look("model")
    with figure_style():
        figure = Figure(figsize=(7.2, 3.8), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        if _is_anomaly(values) or values.name in INDICES:
            axes.axhline(0, color="0.35", linewidth=0.8)
        if str(values.name).startswith(NINO34):
            for level in (-EL_NINO, EL_NINO):
                axes.axhline(level, color="0.55", linewidth=0.8, linestyle=":")
        if len(past):
            axes.plot(np.arange(1 - len(past), 1), past, "o-", color="0.25", ms=3.5)
            axes.plot([0, 1], [past[-1], mean[0]], color=colour, linewidth=width)
            axes.axvline(0, color="0.8", linewidth=0.8, zorder=0)
        if count >= LEAST_FOR_BANDS:
            for low, high, opacity in BANDS:
                edge = np.quantile(members, (low, high), axis=1)
                # All members begin at the last input.
                at = np.r_[0, leads] if len(past) else leads
                edge = np.c_[past[[-1, -1]], edge] if len(past) else edge
                label = f"{low * 100:.0f} to {high * 100:.0f} %"
                axes.fill_between(
                    at, *edge, color=colour, alpha=opacity, lw=0, label=label
                )
        elif count > 1:
            axes.plot(leads, members, color=colour, linewidth=0.6, alpha=0.35)
        label = "mean" if count >= LEAST_FOR_BANDS else None
        axes.plot(leads, mean, "o-", color=colour, lw=width, markersize=4, label=label)
        if label:
            axes.legend(loc="upper left", fontsize=8.5)
        shown = every(len(dates), TICKS)
        first = len(members) - len(dates) + 1
        axes.set_xticks([first + i for i in shown], [dates[i] for i in shown])
        axes.tick_params(axis="x", labelrotation=35, labelsize=8.5)
        axes.set_xlim(first - 0.4, len(members) + 0.4)
        axes.set_ylabel(_label(values))
        _set_title(figure, values, steps, _of(count, "mean"))
    return figure
