"""Convolutions of short clips over time and plane, in a form that is fast in loops.

Gain: they run as `convolve_in_loop`, whose gradient is ten times as fast inside a loop
as XLA's own (one CPU core).
"""

import einops
import jax
import jax.numpy as jnp

from earthformer_jax.ops import convolution as plain
from earthformer_jax.ops.tuned.choice import instead_of
from earthformer_jax.ops.tuned.loop_convolution import convolve_in_loop


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
