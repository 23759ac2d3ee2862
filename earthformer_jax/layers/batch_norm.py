"""Batch normalisation as in Keras and PyTorch: running variances are unbiased."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from earthformer_jax.ops.devices import examples


class BatchNorm(nn.Module):
    """`scale * (x - mean) / sqrt(var + epsilon) + bias`, per channel (last axis).

    In training, mean and variance are taken over all other axes of the batch, of all
    devices under `jax.shard_map` and `jax.pmap` as well, and the
    running ones (collection `batch_stats`) move towards them; otherwise the running
    ones are used. The batch is normalised with its biased variance, sum / n, while the
    unbiased one, sum / (n - 1), is kept. Flax's own `nn.BatchNorm` keeps the biased
    one.

    Attributes:
        momentum: share of the running statistics that a step keeps. PyTorch's
            "momentum" is 1 minus this.
        epsilon: added to the variance.
        dtype: of the result; None is the type of the input.
        param_dtype: of scale and bias. Statistics are at least float32.

    Reference:
        Ioffe and Szegedy 2015, Batch Normalization. https://arxiv.org/abs/1502.03167
    """

    momentum: float = 0.99
    epsilon: float = 1e-3
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Normalises `[..., c]`."""
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, self.param_dtype)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)

        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if train:
            axes = tuple(range(x.ndim - 1))
            mean = examples.mean(jnp.mean(wide, axes))
            var = examples.mean(jnp.mean(jnp.square(wide - mean), axes))
            count = x.size // x.shape[-1] * examples.devices()
            unbiased = var * (count / max(count - 1, 1))
            if not self.is_initializing():
                self._move(running_mean, mean)
                self._move(running_var, unbiased)
        else:
            mean, var = running_mean.value, running_var.value
        y = (wide - mean) * (jax.lax.rsqrt(var + self.epsilon) * scale) + bias
        return y.astype(self.dtype or x.dtype)

    def _move(self, running, new):
        """A step of the moving average."""
        mean = self.momentum * running.value + (1 - self.momentum) * new
        running.value = jax.lax.stop_gradient(mean).astype(running.value.dtype)
