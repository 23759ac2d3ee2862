"""Structural similarity of two fields (SSIM).

Reference:
    Wang et al. 2004, Image quality assessment, https://doi.org/10.1109/TIP.2003.819861.
    The conventions are those of torchmetrics: Gaussian window of 11 x 11 pixels with
    sigma 1.5, K1 = 0.01, K2 = 0.03, biased moments.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.checks import check_array

WINDOW = 11  # pixels
MARGIN = WINDOW // 2
SIGMA = 1.5  # pixels
K1, K2 = 0.01, 0.03


def has_ssim(height: int, width: int) -> bool:
    """Whether a frame is as large as the window."""
    return min(height, width) >= WINDOW


def ssim(
    forecast,
    target,
    data_range: float | np.ndarray | jax.Array = 1.0,
    crop: bool = True,
) -> jax.Array:
    """Structural similarity of each frame: 1 if equal, less the more they differ.

    Args:
        forecast, target: `[..., h, w]`, at least 11 x 11 pixels.
        data_range: highest minus lowest value possible, the unit of the constants; a
            number, or an array of the leading axes.
        crop: average over the pixels whose window lies inside the frame (torchmetrics
            up to 1.3, used by the paper); otherwise over all pixels, fields reflected
            at the borders and variances at least 0 (torchmetrics from 1.4).

    Returns:
        `[...]` float32.

    Raises:
        ValueError: if the frames are smaller than the window.
    """
    check_array("forecast", forecast, "... h w")
    check_array("target", target, "... h w")
    if forecast.shape != target.shape:
        raise ValueError(
            f"target has shape {target.shape}: expected that of forecast, "
            f"{forecast.shape}"
        )
    x, y = jnp.asarray(forecast, jnp.float32), jnp.asarray(target, jnp.float32)
    height, width = x.shape[-2:]
    if not has_ssim(height, width):
        raise ValueError(
            f"SSIM needs frames of {WINDOW} x {WINDOW} pixels or more; "
            f"these have {height} x {width}"
        )
    data_range = jnp.asarray(data_range, jnp.float32)[..., None, None]
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    smooth = functools.partial(_smooth, crop=crop)
    # Variances are differences of squares, which float32 holds better near 0.
    middle = jnp.mean((x + y) / 2, axis=(-2, -1), keepdims=True)
    x, y = x - middle, y - middle
    mean_x, mean_y = smooth(x), smooth(y)
    var_x = smooth(x * x) - mean_x**2
    var_y = smooth(y * y) - mean_y**2
    covariance = smooth(x * y) - mean_x * mean_y
    if not crop:
        var_x, var_y = jnp.maximum(var_x, 0), jnp.maximum(var_y, 0)
    mean_x, mean_y = mean_x + middle, mean_y + middle
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (var_x + var_y + c2)
    return jnp.mean(luminance * structure, axis=(-2, -1))


def global_range(forecasts, targets) -> float:
    """The larger of the ranges of two whole sets of fields.

    What torchmetrics up to 0.9 took for `data_range` when none was given, and so the
    published SSIM of the paper; it depends on the forecasts, outliers among them.
    """
    return max(float(np.max(x) - np.min(x)) for x in (forecasts, targets))


def window() -> np.ndarray:
    """`[11]` weights of the Gaussian window along one axis, summing to 1."""
    weights = np.exp(-0.5 * (np.arange(-MARGIN, MARGIN + 1) / SIGMA) ** 2)
    return weights / weights.sum()


@functools.lru_cache
def _band(size: int, crop: bool) -> np.ndarray:
    """`[out, size]` matrix that smooths along one axis."""
    positions = np.arange(size) if not crop else np.arange(MARGIN, size - MARGIN)
    matrix = np.zeros((len(positions), size), np.float32)
    for shift, weight in zip(range(-MARGIN, MARGIN + 1), window(), strict=True):
        source = np.abs(positions + shift)
        source = np.where(source < size, source, 2 * (size - 1) - source)
        np.add.at(matrix, (np.arange(len(positions)), source), weight)
    return matrix


def _smooth(x, crop: bool) -> jax.Array:
    """`[..., h, w]` local means; matrix products, float32 throughout."""
    height, width = x.shape[-2:]
    return jnp.einsum(
        "ih,...hw,jw->...ij",
        _band(height, crop),
        x,
        _band(width, crop),
        precision=jax.lax.Precision.HIGHEST,
    )
