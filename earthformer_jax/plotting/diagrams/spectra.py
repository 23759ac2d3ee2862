"""Power spectra of forecasts beside that of the truth."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from earthformer_jax.plotting.style import LOOKS, figure_style, look, ordered

HALF = 0.5  # of the power: what counts as resolved
LEAST = 0.1  # of the least power of the truth; what is less is not shown


def spectra(
    forecasts: Mapping[str, Sequence[float]],
    truth: Sequence[float],
    *,
    wavelengths: Sequence[float],
    units: str,
    title: str,
) -> Figure:
    """Power against wavelength, and relative to the truth.

    Args:
        forecasts: name -> `[n]` power.
        truth: `[n]`.
        wavelengths: `[n]` in cells, longest first.
        units: of the power; "" if there are none.
        title: of the figure.
    """
    true, x = np.asarray(truth, np.float64), np.asarray(wavelengths, np.float64)
    with figure_style():
        figure = Figure(figsize=(9.6, 4.2), layout="constrained")
        FigureCanvasAgg(figure)
        power, share = figure.subplots(1, 2)
        curves = {name: np.asarray(v, np.float64) for name, v in forecasts.items()}
        unknown = 0
        for name in ordered(curves):
            label, colour, style, width = look(name, unknown)
            unknown += name not in LOOKS
            options = dict(color=colour, linestyle=style, linewidth=width, label=label)
            options["zorder"] = 3 if name == "model" else 2
            _draw(power, x, curves[name], true > 0, options)
            ratio = np.divide(
                curves[name], true, out=np.full(true.shape, np.nan), where=true > 0
            )
            _draw(share, x, ratio, np.isfinite(ratio), options)
        options = dict(color="0.15", linestyle=(0, (5, 2)), linewidth=1.6, zorder=4)
        _draw(power, x, true, true > 0, options | {"label": "Truth"})
        share.axhline(1, color="0.15", linestyle=(0, (5, 2)), linewidth=1.2)
        share.axhline(HALF, color="0.6", linestyle=":", linewidth=1)
        share.set_ylim(0, min(3.0, max(1.3, share.get_ylim()[1])))
        power.set_ylabel(f"Power, {units}" if units else "Power")
        share.set_ylabel("Power relative to the truth")
        power.set_yscale("log")
        if np.any(true > 0):
            bottom = LEAST * true[true > 0].min()
            power.set_ylim(bottom=max(power.get_ylim()[0], bottom))
        power.legend(loc="best", fontsize=8.5)
        for axes in (power, share):
            _wavelengths(axes, x)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11.5, fontweight="bold")
    return figure


def _draw(axes: Axes, x, y, known, options) -> None:
    """A curve where it is known; a power of 0 has no place on the axis."""
    keep = known & np.isfinite(y) & (y > 0)
    axes.plot(x[keep], y[keep], **options)


def _wavelengths(axes: Axes, x: np.ndarray) -> None:
    """A logarithmic axis from long to short wavelengths, with plain numbers."""
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(x.max() * 1.05, x.min() / 1.05)
    axes.set_xlabel("Wavelength (cells)")
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
