"""Convolutions that stay fast inside a loop, also where there is no C++.

Gain: inside a loop XLA's CPU compiler runs convolutions well in only one layout, and
gradients need another: they take ten times as long as outside. Here derivatives are
matrix products and take as long as outside (one CPU core).
"""

import functools

import einops
import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from earthformer_jax.ops import convolution as plain
from earthformer_jax.ops.convolution import Padding, convolve, output_plane, pad
from earthformer_jax.ops.dense import dense, widen
from earthformer_jax.ops.devices.varying import vary_alike
from earthformer_jax.ops.tuned.choice import instead_of
from earthformer_jax.ops.tuned.native import convolution as native


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _convolve(x, kernel, padding, wrap):
    return convolve(x, kernel, padding, wrap=wrap)


def _jvp(padding, wrap, primals, tangents):
    x, kernel = primals
    product = functools.partial(_as_product, padding=padding, wrap=wrap)
    # The gradient of the kernel reads all windows of x. They are as many times larger
    # as the kernel has positions, so x is kept for the backward pass in their place.
    product = jax.checkpoint(product, prevent_cse=False)
    terms = [
        product(a, k)
        for a, k in ((tangents[0], kernel), (x, tangents[1]))
        if not isinstance(a, SymbolicZero) and not isinstance(k, SymbolicZero)
    ]
    y = _convolve(x, kernel, padding, wrap)
    return y, sum(terms) if terms else jnp.zeros_like(y)


_convolve.defjvp(_jvp, symbolic_zeros=True)


def _as_product(x, kernel, padding, wrap):
    """`convolve` with stride 1 as one matrix product of all windows."""
    kh, kw = kernel.shape[:2]
    h, w = output_plane(x.shape[1:3], (kh, kw), padding)
    # The gradient of x is the sum of those of all windows that overlap.
    wide = pad(widen(x), padding, wrap)
    windows = [wide[:, i : i + h, j : j + w] for i in range(kh) for j in range(kw)]
    windows = [window.astype(x.dtype) for window in windows]
    flat = kernel.reshape(-1, kernel.shape[-1])
    return dense(jnp.concatenate(windows, -1), flat)


@instead_of(convolve)
def convolve_in_loop(
    x: jax.Array, kernel: jax.Array, padding: Padding, *, wrap: bool = False
) -> jax.Array:
    """As `ops.convolution.convolve` with stride 1 and no dilation."""
    if native.suits(x, kernel, padding):
        if wrap:
            rows, columns = padding
            x, padding = pad(x, ((0, 0), columns), wrap=True), (rows, (0, 0))
        return native.convolve(x, kernel, padding)
    return _convolve(*vary_alike(x, kernel), padding, wrap)


@instead_of(plain.convolve_clips)
def convolve_clips(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """As `ops.convolution.convolve_clips`.

    Computed as a convolution of planes whose channels are those of all the frames that
    the kernel covers at once.
    """
    _, length, h, w, _ = x.shape
    taps, kh, kw = kernel.shape[:3]
    before = (taps - 1) // 2
    x = jnp.pad(x, ((0, 0), (before, taps - 1 - before), *[(0, 0)] * 3))
    windows = jnp.concatenate([x[:, i : i + length] for i in range(taps)], axis=-1)
    y = convolve_in_loop(
        einops.rearrange(windows, "b l h w c -> (b l) h w c"),
        einops.rearrange(kernel, "kl kh kw c g -> kh kw (kl c) g"),
        plain.plane_padding((h, w), (kh, kw), "same"),
    )
    return einops.rearrange(y, "(b l) h w g -> b l h w g", l=length)
