"""Power spectra of forecasts and targets, averaged over directions."""

import dataclasses
import functools
from typing import Any

import einops
import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.metrics.batches import as_pair, check_names, counted

LEAST_SIDE = 4  # cells along the longer side of a frame that has a spectrum


@dataclasses.dataclass(frozen=True, eq=False)
class Spectra:
    """Radially averaged power spectra of frames.

    The mean of the cells that count is subtracted, and the rest multiplied with a Hann
    window along both axes, whose mean square is 1; otherwise opposite borders, which do
    not fit together, would appear as power at small scales. The power of a mode of the
    transform F is |F|^2 / (h w); without the window, its mean over all modes is the
    variance of the field. It is averaged over rings r = 1, 2, ... L // 2, where L is
    the longer side of the frame: a mode of wavelength l belongs to the ring that L / l
    rounds to. Modes of less than 2 cells, along the diagonals, are left out. Cells are
    taken to be squares.

    Cells that are not observed are 0 after subtraction of the mean, in forecast and
    target alike. Their spectra can be compared with each other, but not with those of
    whole frames. Spectra of forecasts with NaN are NaN.

    Sums are `[b, k, rings]`, or `[b, k, variables, rings]`, float32: "forecast" and
    "target", the power in squared units; "frames", the number of frames that count.

    Attributes:
        height, width: of the frames, in cells.
        variables: names of the channels, whose sums are kept apart; (): channels are
            added.
        scale: units per model unit, one for all channels or one for each.
        taper: whether to multiply with the Hann window; False: for periodic fields.

    Raises:
        ValueError: for frames of less than `LEAST_SIDE` cells along their longer side.
    """

    height: int
    width: int
    variables: tuple[str, ...] = ()
    scale: float | tuple[float, ...] = 1.0
    taper: bool = True

    names = ("forecast", "target", "frames")
    dtype = jnp.float32

    def __post_init__(self):
        if max(self.height, self.width) < LEAST_SIDE:
            raise ValueError(
                f"height={self.height} and width={self.width}: expected at least "
                f"{LEAST_SIDE} cells along one of them to have a spectrum"
            )

    @property
    def coords(self) -> dict[str, tuple]:
        """Variables, and the wavelengths of the rings in cells, longest first."""
        variables = {"variable": self.variables} if self.variables else {}
        return variables | {"wavelength": wavelengths(self.height, self.width)}

    def __call__(self, forecast, batch) -> dict[str, jax.Array]:
        pair = as_pair(forecast, batch["targets"])
        height, width = pair[1].shape[2:4]
        if (height, width) != (self.height, self.width):
            raise ValueError(
                f"targets are frames of {height} x {width} cells: expected "
                f"height={self.height} and width={self.width}"
            )
        check_names(pair[1], self.variables)
        keep = einops.rearrange(counted(batch), "b k h w c -> b k c h w")
        scale = jnp.asarray(self.scale, jnp.float32)
        fields = [einops.rearrange(scale * x, "b k h w c -> b k c h w") for x in pair]
        power = [radial_power(x, keep, taper=self.taper) for x in fields]
        frames = jnp.any(keep, axis=(3, 4))[..., None].astype(jnp.float32)
        frames = jnp.broadcast_to(frames, power[0].shape)
        found = {"forecast": power[0], "target": power[1], "frames": frames}
        if self.variables:
            return found
        return {name: jnp.sum(x, axis=2) for name, x in found.items()}


def wavelengths(height: int, width: int) -> tuple[float, ...]:
    """Wavelengths of the rings of `radial_power` in cells, longest first."""
    longer = max(height, width)
    return tuple(longer / ring for ring in range(1, longer // 2 + 1))


def radial_power(x, keep: Any = True, *, taper: bool = True) -> jax.Array:
    """Mean power of the modes of each ring, as `Spectra` defines it.

    Args:
        x: `[..., h, w]`.
        keep: bool, broadcastable to `x`: the cells that count.
        taper: whether to multiply with the Hann window.

    Returns:
        `[..., rings]` float32, 0 where no cell counts.
    """
    x = jnp.asarray(x, jnp.float32)
    height, width = x.shape[-2:]
    window = _window(height, width) if taper else np.ones((height, width), np.float32)
    share = jnp.where(keep, window, 0)

    def total(x):
        return jnp.sum(x, axis=(-2, -1), keepdims=True)

    # First a value that occurs, so that a constant field has no power at all.
    least = jnp.min(jnp.where(keep, x, jnp.inf), axis=(-2, -1), keepdims=True)
    x = jnp.where(keep, x - least, 0)
    known = total(share)
    mean = total(share * x) / jnp.where(known > 0, known, 1)
    modes = jnp.fft.rfft2(share * (x - mean))
    power = (modes.real**2 + modes.imag**2) / (height * width)
    places, weights = _rings(height, width)
    power = einops.rearrange(power, "... y x -> ... (y x)")
    return jnp.sum(power[..., places] * weights, axis=-1)


@functools.lru_cache
def _window(height: int, width: int) -> np.ndarray:
    """`[h, w]` float32 Hann window whose mean square is 1."""
    along = [np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2 for n in (height, width)]
    window = np.outer(*along)
    return (window / np.sqrt(np.mean(window**2))).astype(np.float32)


@functools.lru_cache
def _rings(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The modes of each ring, as positions in a flat real transform, and weights.

    Returns:
        two arrays `[rings, n]`; rings of fewer than n modes are filled with weights of
        0. A mode that stands for two of the full transform has twice the weight of
        others, and the weights of a ring sum to 1.
    """
    longer = max(height, width)
    across, along = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    ring = np.round(np.hypot(across, along) * longer).astype(int)
    twice = (along > 0) & (along < 0.5)
    stands_for = np.broadcast_to(np.where(twice, 2.0, 1.0), ring.shape).ravel()
    members = [np.flatnonzero(ring == r) for r in range(1, longer // 2 + 1)]
    most = max(map(len, members))
    places = np.stack([np.pad(m, (0, most - len(m))) for m in members])
    real = np.arange(most) < np.array([[len(m)] for m in members])
    weights = np.where(real, stands_for[places], 0)
    weights /= weights.sum(axis=1, keepdims=True)
    return places.astype(np.int32), weights.astype(np.float32)
