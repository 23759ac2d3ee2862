"""Scores of the sums of errors, of anomalies and of similarity.

Every function maps sums by name, arrays of one shape, to an array of that shape, in
float64; NaN where nothing was counted. The sums are those of `statistics.errors`,
`statistics.anomaly` and `statistics.similarity`.

Reference:
    Wilks 2019, Statistical Methods in the Atmospheric Sciences, chapter 9.
"""

from collections.abc import Mapping

import numpy as np

from earthformer_jax.metrics.sums import ratio

Sums = Mapping[str, np.ndarray]


def mse(sums: Sums) -> np.ndarray:
    """Mean squared error, sum w e^2 / sum w."""
    return ratio(sums["squared"], sums["weight"])


def mae(sums: Sums) -> np.ndarray:
    """Mean absolute error, sum w |e| / sum w."""
    return ratio(sums["absolute"], sums["weight"])


def rmse(sums: Sums) -> np.ndarray:
    """Root of the mean squared error of all that was added: not a mean of roots."""
    return np.sqrt(mse(sums))


def bias(sums: Sums) -> np.ndarray:
    """Mean error, forecast minus target: sum w e / sum w."""
    return ratio(sums["error"], sums["weight"])


def frame_mse(sums: Sums) -> np.ndarray:
    """Mean over frames of the squared error summed over the cells of a frame."""
    return ratio(sums["squared"], sums["frames"])


def frame_mae(sums: Sums) -> np.ndarray:
    """Mean over frames of the absolute error summed over the cells of a frame."""
    return ratio(sums["absolute"], sums["frames"])


def psnr(sums: Sums, data_range: float = 1.0) -> np.ndarray:
    """Peak signal-to-noise ratio in dB, 10 log10(data_range^2 / MSE).

    It is made of the mean squared error of all that was added, and so is not the mean
    of the ratios of single frames; infinite for a perfect forecast.

    Args:
        sums: of errors.
        data_range: highest minus lowest value possible, in the units of the errors.
    """
    error = mse(sums)
    perfect = error == 0
    noise = np.log10(data_range**2 / np.where(perfect, 1, error))
    return np.where(perfect, np.inf, 10 * noise)


def ssim(sums: Sums) -> np.ndarray:
    """Mean structural similarity of the frames that have one."""
    return ratio(sums["ssim"], sums["frames"])


def acc(sums: Sums) -> np.ndarray:
    """Anomaly correlation: the mean over frames of the correlation in space.

    It is uncentred, as is usual for weather: the mean of an anomaly over the cells is
    not removed. Frames without an anomaly, as of a forecast of the climatology, have no
    correlation and are left out.

    Reference:
        Rasp et al. 2024, WeatherBench 2, https://doi.org/10.1029/2023MS004019.
    """
    return ratio(sums["correlation"], sums["frames"])


def pooled_acc(sums: Sums) -> np.ndarray:
    """Anomaly correlation of all that was added: over cells and examples together."""
    product, forecast, target = (
        np.asarray(sums[name], np.float64) for name in ("product", "forecast", "target")
    )
    return ratio(product, np.sqrt(forecast) * np.sqrt(target))
