"""Convolutions over time and plane of short clips, in a form that is fast in loops."""

import einops
import jax
import jax.numpy as jnp

from earthformer_jax.ops import convolution


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """3-D cross-correlation with zeros around the clip, of which the size stays.

    It is one of planes, whose channels are those of all frames that the kernel sees at
    a time. Where a side of the kernel is even, the odd zero goes behind, in time too:
    two taps in time are the frame itself and the next one.

    Args:
        x: `[b, l, h, w, c]`.
        kernel: `[kl, kh, kw, c, g]`.

    Returns:
        `[b, l, h, w, g]`.
    """
    length, taps = x.shape[1], kernel.shape[0]
    before = (taps - 1) // 2
    x = jnp.pad(x, ((0, 0), (before, taps - 1 - before), *[(0, 0)] * 3))
    windows = jnp.concatenate([x[:, i : i + length] for i in range(taps)], axis=-1)
    y = convolution.convolve_in_loop(
        einops.rearrange(windows, "b l h w c -> (b l) h w c"),
        einops.rearrange(kernel, "kl kh kw c g -> kh kw (kl c) g"),
        convolution.plane_padding(windows.shape[2:4], kernel.shape[1:3], "same"),
    )
    return einops.rearrange(y, "(b l) h w g -> b l h w g", l=length)
