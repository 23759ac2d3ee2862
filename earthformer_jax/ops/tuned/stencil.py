"""Stencils whose gradients are stencils, and sums plane by plane.

Gain: the gradient of the weights, summed plane by plane inside the processor's cache,
is five times as fast (one CPU core).
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from earthformer_jax.ops import stencil as plain
from earthformer_jax.ops.convolution import Pair
from earthformer_jax.ops.devices import split
from earthformer_jax.ops.devices.varying import vary_alike, vary_like
from earthformer_jax.ops.stencil import Offsets
from earthformer_jax.ops.tuned.choice import instead_of


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
def _apply(x, weights, offsets, plane, strides, wrap):
    return plain.apply_stencil(x, weights, offsets, plane, strides, wrap)


def _forward(x, weights, offsets, plane, strides, wrap):
    return _apply(x, weights, offsets, plane, strides, wrap), (x, weights)


def _backward(offsets, plane, strides, wrap, saved, g):
    x, weights = saved
    weight_grad = _weight_grad(x, g, offsets, plane, strides, wrap)
    if strides != (1, 1):
        inner = [(0, s - 1, s - 1) for s in strides]
        g = lax.pad(g, jnp.zeros((), g.dtype), [(0, 0, 0), *inner, (0, 0, 0)])
    mirrored = tuple((-i, -j) for i, j in offsets)
    x_grad = _apply(g, weights, mirrored, x.shape[1:3], (1, 1), wrap)
    return x_grad, weight_grad.astype(weights.dtype)


_apply.defvjp(_forward, _backward)


def _weight_grad(x, g, offsets, plane, strides, wrap):
    """Sums of the products of g with x as seen by each tap, `[k, c]`."""
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    shares = split.shares(x, g)
    if len(x) % shares:  # a loop over planes would send all of them to each device
        terms = plain.shifted_planes(x.astype(dtype), offsets, plane, strides, wrap)
        return jnp.stack([jnp.sum(g.astype(dtype) * t, axis=(0, 1, 2)) for t in terms])

    def add(total, planes):  # one of each device
        x, g = (a.astype(dtype) for a in planes)
        terms = plain.shifted_planes(x, offsets, plane, strides, wrap)
        sums = jnp.stack([jnp.sum(g * term, axis=(1, 2)) for term in terms])
        return total + sums, None

    nothing = jnp.zeros((len(offsets), shares, x.shape[-1]), dtype)
    each = [a.reshape(shares, -1, *a.shape[1:]).swapaxes(0, 1) for a in (x, g)]
    return lax.scan(add, vary_like(nothing, x, g), tuple(each))[0].sum(axis=1)


@instead_of(plain.apply_stencil)
def apply_stencil(
    x: jax.Array,
    weights: jax.Array,
    offsets: Offsets,
    plane: Pair,
    strides: Pair = (1, 1),
    wrap: bool = False,
) -> jax.Array:
    """As `ops.stencil.apply_stencil`."""
    x, weights = vary_alike(x, weights)
    return _apply(x, weights, offsets, plane, strides, wrap)
