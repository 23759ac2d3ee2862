"""Normalisation that keeps little for the gradient.

Layer norms keep the input and two numbers per position; their gradient takes 0.9 ms
instead of 2.4 (one CPU core). Group norms keep the input, in C++ where there is a
compiler; docs/performance.md says what they gain.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from earthformer_jax.ops import norm as plain
from earthformer_jax.ops.devices.varying import vary_alike
from earthformer_jax.ops.tuned.choice import instead_of
from earthformer_jax.ops.tuned.native import group_norm as native
from earthformer_jax.ops.tuned.order import (
    flatten_rows,
    leading_axes,
    materialize,
    schedule_after,
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _layer_norm(x, scale, offset, epsilon):
    return _forward(x, scale, offset, epsilon)[0]


def _forward(x, scale, offset, epsilon):
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = wide.mean(axis=-1, keepdims=True)
    variance = jnp.square(wide - mean).mean(axis=-1, keepdims=True)
    mean, inverse = materialize(mean, lax.rsqrt(variance + epsilon))
    y = (wide - mean) * inverse * scale + offset
    return y.astype(x.dtype), (x, mean, inverse, scale, offset)


def _backward(epsilon, kept, dy):
    del epsilon
    x, mean, inverse, scale, offset = kept
    shape = x.shape
    x, dy, mean, inverse = (
        flatten_rows(array)
        for array in (schedule_after(dy, x), dy.astype(mean.dtype), mean, inverse)
    )
    standard = (x.astype(mean.dtype) - mean) * inverse
    rows = leading_axes(x)
    dscale = (dy * standard).sum(axis=rows).astype(scale.dtype)
    doffset = dy.sum(axis=rows).astype(offset.dtype)
    slope = dy * scale
    along = (slope * standard).mean(axis=-1, keepdims=True)
    level, along = materialize(slope.mean(axis=-1, keepdims=True), along)
    dx = inverse * (slope - level - standard * along)
    return dx.astype(x.dtype).reshape(shape), dscale, doffset


_layer_norm.defvjp(_forward, _backward)


@instead_of(plain.layer_norm)
def layer_norm(
    x: jax.Array, scale: jax.Array, offset: jax.Array, epsilon: float
) -> jax.Array:
    """As `ops.norm.layer_norm`."""
    return _layer_norm(*vary_alike(x, scale, offset), epsilon)


@instead_of(plain.group_norm)
def group_norm(
    x: jax.Array,
    scale: jax.Array,
    offset: jax.Array,
    *,
    groups: int,
    epsilon: float,
    slope: float = 1.0,
) -> jax.Array:
    """As `ops.norm.group_norm`."""
    fits = native.suits(x, scale, offset)
    function = native.group_norm if fits else plain.group_norm
    return function(x, scale, offset, groups=groups, epsilon=epsilon, slope=slope)
