"""Fourier amplitude and correlation: sharp fields, wherever small features are."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.losses.cells import Masked
from earthformer_jax.settings import FRACTION, setting

SMALL = 1e-3  # model units; what the correlation of empty fields is measured by


@dataclasses.dataclass(frozen=True)
class FourierAmplitudeCorrelation(Masked):
    """FACL: in each step either the correlation or the amplitudes of Fourier modes.

    With F and G the orthonormal transforms in height and width of forecast and target,

        amplitude    mean (|F| - |G|)^2
        correlation  1 - sum Re(F conj(G)) / sqrt(sum |F|^2 sum |G|^2)

    The correlation says where things are, the amplitudes how sharp they are. One of
    them is drawn in each step, the correlation with a probability that falls linearly
    from 1 at the beginning of the training to 0, and the amplitudes alone in the last
    part. Without a key it is the mean of both with these probabilities.

    Fields are multiplied by the roots of the weights, and are 0 in both where a target
    is unknown; the amplitudes are then normalised like the other losses, and are not
    more than `mse`. The sums of the correlation, which are the same over cells as over
    modes, are those of all frames of an example, each with a further constant
    component of `SMALL`: fields without anything in them are then equal to each other,
    and the gradient is finite. The factor sqrt(h w) of both in the authors' code is
    left out.

    Attributes:
        amplitude: share of the training, at its end, with amplitudes alone.

    Reference:
        Yan et al. 2024, Fourier Amplitude and Correlation Loss,
        https://arxiv.org/abs/2410.23159.
    """

    amplitude: float = setting(0.1, FRACTION)

    def of_known(self, forecast, targets, weights, key, progress) -> jax.Array:
        """Scalar; see `Masked`."""
        root = np.sqrt(weights)
        x, y = forecast * root, targets * root
        norm = np.broadcast_to(weights, targets.shape[1:]).sum()
        share = self.correlation_probability(progress)
        if key is not None:
            share = jax.random.bernoulli(key, share)
        return share * correlation_loss(x, y, norm) + (1 - share) * amplitude_loss(
            x, y, norm
        )

    def correlation_probability(self, progress: jax.Array | None) -> jax.Array:
        """Probability of the correlation after a share of the training."""
        falls = 1 - self.amplitude
        if progress is None or not falls:
            return jnp.float32(bool(falls))
        return jnp.clip(1 - jnp.asarray(progress, jnp.float32) / falls, 0, 1)


def amplitude_loss(x: jax.Array, y: jax.Array, norm: float) -> jax.Array:
    """sum (|F| - |G|)^2 / (b * norm), with the transforms F of x and G of y.

    Args:
        x: `[b, k, h, w, c]`.
        y: `[b, k, h, w, c]`.
        norm: sum of the weights over the field of an example.
    """
    f, g = (jnp.abs(jnp.fft.fft2(z, axes=(2, 3), norm="ortho")) for z in (x, y))
    return jnp.sum(jnp.square(f - g)) / (len(x) * norm)


def correlation_loss(x: jax.Array, y: jax.Array, norm: float) -> jax.Array:
    """The mean over examples of 1 - (x . y) / (|x| |y|), over all cells.

    Arguments as in `amplitude_loss`. The modes need not be known: an orthonormal
    transform keeps these sums.
    """
    axes, constant = (1, 2, 3, 4), norm * SMALL**2
    xx, yy, xy = (jnp.sum(z, axes) + constant for z in (x * x, y * y, x * y))
    return jnp.mean(1 - xy / jnp.sqrt(xx * yy))
