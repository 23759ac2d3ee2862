"""A convolution of every frame, whose kernel's gradient is fast on CPUs.

For that gradient XLA's CPU compiler turns both fields round, frames innermost, and runs
a convolution whose windows are as large as the plane: two to four times the time of the
convolution itself. Here a loop over blocks of rows, small enough for a processor's
cache, adds up matrix products.
"""

import functools

import einops
import jax
import jax.numpy as jnp
from jax import lax

from earthformer_jax.ops.convolution import Padding, convolve, pad
from earthformer_jax.ops.dense import settle

BLOCK_BYTES = 2**20  # of the larger field, read in one round of the loop
LEAST_CHANNELS = 64  # of the input; with fewer XLA's own way is as fast


def convolve_frames(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Cross-correlation with zeros around each frame, which keeps its size.

    Args:
        x: `[b, t, h, w, c]`.
        kernel: `[kh, kw, c, g]` with odd kh and kw.

    Returns:
        `[b, t, h, w, g]`.

    Raises:
        ValueError: for other shapes.
    """
    if x.ndim != 5 or kernel.ndim != 4 or x.shape[-1] != kernel.shape[2]:
        raise ValueError(
            "x needs the shape (b, t, h, w, c) and the kernel (kh, kw, c, g); got "
            f"{x.shape} and {kernel.shape}"
        )
    kh, kw, c, _ = kernel.shape
    if not kh % 2 or not kw % 2:
        raise ValueError(
            f"a frame keeps its size under windows with odd sides; got {kh} x {kw}"
        )
    padding = ((kh // 2,) * 2, (kw // 2,) * 2)
    if jax.default_backend() != "cpu" or c < LEAST_CHANNELS:
        return _convolve(x, kernel, padding)
    return _convolve_with_gradient(x, kernel, padding)


def _convolve(x, kernel, padding):
    frames = einops.rearrange(x, "b t h w c -> (b t) h w c")
    y = convolve(frames, kernel, padding)
    return einops.rearrange(y, "(b t) h w g -> b t h w g", b=x.shape[0])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve_with_gradient(x, kernel, padding):
    return _convolve(x, kernel, padding)


def _backward(padding, kept, dy):
    x, kernel = kept
    (dx,) = jax.vjp(lambda x: _convolve(x, kernel, padding), x)[1](dy)
    return dx, kernel_gradient(x, dy, padding).astype(kernel.dtype)


_convolve_with_gradient.defvjp(
    lambda x, kernel, padding: (_convolve(x, kernel, padding), (x, kernel)), _backward
)


def kernel_gradient(x: jax.Array, dy: jax.Array, padding: Padding) -> jax.Array:
    """Gradient of a convolution's kernel.

    Args:
        x: `[b, t, h, w, c]`, what is convolved.
        dy: `[b, t, h', w', g]`, the gradient of the result.
        padding: of the convolution.

    Returns:
        `[kh, kw, c, g]`, float32 (or wider); kh and kw follow from the shapes.
    """
    b, frames, height, width, g = dy.shape
    wide = jax.vmap(lambda x: pad(x, padding))(x)
    kh, kw = wide.shape[2] - height + 1, wide.shape[3] - width + 1
    c = x.shape[-1]
    rows = _block_rows(height, width * max(c, g) * x.dtype.itemsize)
    blocks = height // rows
    dtype = jnp.promote_types(x.dtype, jnp.float32)

    def add(total, number):
        start = (0, number // blocks, number % blocks * rows, 0, 0)
        own = lax.dynamic_slice(wide, start, (b, 1, rows + kh - 1, *wide.shape[3:]))
        arrived = lax.dynamic_slice(dy, start, (b, 1, rows, width, g))
        # All windows of a row side by side, so that one product serves its taps.
        own = jnp.concatenate([own[:, 0, :, j : j + width] for j in range(kw)], -1)
        arrived = settle(einops.rearrange(arrived, "b 1 h w g -> b g (h w)"))
        taps = [
            jnp.matmul(
                arrived,
                own[:, i : i + rows].reshape(b, rows * width, kw * c),
                preferred_element_type=dtype,
            )
            for i in range(kh)
        ]
        return total + jnp.stack(taps), None

    # Examples, which may lie on several devices, are added at the end.
    nothing = jnp.zeros((kh, b, g, kw * c), dtype)
    total = lax.scan(add, nothing, jnp.arange(frames * blocks))[0]
    return einops.rearrange(total.sum(1), "i g (j c) -> i j c g", j=kw)


def _block_rows(height: int, row_bytes: int) -> int:
    """Rows of a block: a divisor of the height, the largest that is small enough."""
    most = max(1, BLOCK_BYTES // row_bytes)
    return max(n for n in range(1, height + 1) if height % n == 0 and n <= most)
