"""Colours of fields: limits, colour maps, and fields as pixels."""

import dataclasses
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.colors import BoundaryNorm, Colormap, ListedColormap, Normalize

from earthformer_jax.plotting.style import GREY

# Vertically integrated liquid as it is shown since the tutorial of SEVIR: a colour from
# each of these codes to the next, black below the first, purple from the last on.
VIL = "vil"
VIL_LEVELS = (16, 31, 59, 74, 100, 133, 160, 181, 219, 255)
VIL_COLOURS = (
    "#4d4d4d #28be28 #199619 #0a690a #0a4b0a #f5f500 #edac00 #f06e00 #a00000".split()
)
VIL_UNDER, VIL_OVER = "#000000", "#e700ff"
LEVELS = 200  # colours per map: with the greys of the text they fit a GIF's 256
DIVERGING = frozenset(
    "rdbu coolwarm seismic bwr brbg piyg prgn puor rdgy rdylbu rdylgn spectral berlin "
    "managua vanimo".split()
)


@dataclasses.dataclass(frozen=True)
class Colours:
    """How the values of one channel are coloured.

    Attributes:
        colormap: grey where a value is masked.
        low, high: displayed values at its ends.
        extend: which ends are exceeded: "neither", "min", "max" or "both".
        edges: values at which one colour ends and the next begins; (): it is gradual.
    """

    colormap: Colormap
    low: float
    high: float
    extend: str
    edges: tuple[float, ...] = ()

    @property
    def norm(self) -> Normalize:
        """To the colours, for matplotlib."""
        if self.edges:
            return BoundaryNorm(self.edges, len(self.edges) - 1)
        return Normalize(self.low, self.high)

    def rgb(self, shown) -> np.ndarray:
        """uint8 `[..., 3]` of values; grey where they are not finite."""
        pixels = self.colormap(self.norm(np.ma.masked_invalid(shown)))
        return np.round(255 * pixels[..., :3]).astype(np.uint8)


def colours_of(
    colormap: str,
    limits: tuple[float, float] | None,
    fields: Sequence[np.ndarray],
    levels: int = LEVELS,
) -> Colours:
    """Colours for fields of one kind.

    Args:
        colormap: name of a matplotlib colour map, or "vil": the colours of SEVIR, for
            codes from 0 to 255.
        limits: lowest and highest displayed value; None: nearly the whole range of the
            fields, symmetric about 0 for diverging colour maps.
        fields: displayed values; those that are not finite are ignored.
        levels: number of different colours.
    """
    if colormap == VIL:
        steps = ListedColormap(VIL_COLOURS).with_extremes(
            under=VIL_UNDER, over=VIL_OVER, bad=GREY
        )
        return Colours(steps, VIL_LEVELS[0], VIL_LEVELS[-1], "both", VIL_LEVELS)
    values = np.concatenate([np.ravel(np.asarray(f, np.float64)) for f in fields])
    values = values[np.isfinite(values)]
    if limits is not None:
        low, high = map(float, limits)
    else:
        low, high = np.percentile(values, (0.2, 99.8)) if values.size else (0.0, 1.0)
        low, high = float(low), float(high)
        if colormap.lower().removesuffix("_r") in DIVERGING:
            high = max(abs(low), abs(high))
            low = -high
    if not high > low:
        low, high = low - 0.5, low + 0.5
    below = values.size and values.min() < low - 1e-6 * (high - low)
    above = values.size and values.max() > high + 1e-6 * (high - low)
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}
    colours = mpl.colormaps[colormap].resampled(levels).with_extremes(bad=GREY)
    return Colours(colours, low, high, extend[bool(below), bool(above)])


def shown(fields, channel, number: int, observed=None) -> np.ndarray:
    """Displayed values `[t, h, w]` of one channel; NaN where not observed.

    Args:
        fields: `[t, h, w, c]` in model units.
        channel: `data.dataset.Channel`.
        number: of the channel.
        observed: bool, like `fields`, or None.
    """
    values = channel.shown(np.asarray(fields)[..., number])
    if observed is None:
        return values
    return np.where(np.asarray(observed)[..., number], values, np.nan)


def label_of(channel) -> str:
    """Name and units, for a colour bar."""
    return f"{channel.name} ({channel.units})" if channel.units else channel.name


def render_frames(
    fields, channel, south_first: bool = False, *, size: int = 256, limits=None
) -> np.ndarray:
    """Fields as pixels, small ones enlarged by repeating their cells.

    Args:
        fields: `[t, h, w]` in model units; grey where not finite.
        channel: `data.dataset.Channel`, which says how values are shown.
        south_first: whether row 0 belongs at the bottom.
        size: largest number of pixels of the longer side when enlarging.
        limits: lowest and highest displayed value; None: those of the channel, or the
            default of `colours_of`.

    Returns:
        uint8 RGB `[t, H, W, 3]`.
    """
    values = channel.shown(fields)
    colours = colours_of(channel.colormap, limits or channel.limits, [values])
    pixels = colours.rgb(values)
    if south_first:
        pixels = pixels[:, ::-1]
    times = max(1, size // max(values.shape[1:]))
    return pixels.repeat(times, axis=1).repeat(times, axis=2)
