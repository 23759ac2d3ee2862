"""Up-sampling by whole factors and convolving, without the enlarged field.

After nearest-neighbour up-sampling several taps of a convolution's window read the same
point. Their weights can be added first: every one of the f x f phases of the output is
then a convolution of the small field with a smaller window. For a factor of 2 and 3 x 3
taps that is 4 instead of 9 products per output.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.ops.convolution import Padding, convolve, pad


@functools.lru_cache(maxsize=64)
def phase_taps(factor: int, kernel: int) -> tuple[np.ndarray, tuple[int, ...]]:
    """Which points of the small field the taps of each phase read, along one axis.

    Args:
        factor: of the up-sampling.
        kernel: odd length of the window, which is centred on its output.

    Returns:
        float32 `[factor, n, kernel]`, 1 where a tap reads the n-th point of the phase's
        window, and where the windows start, relative to the point under the output.
    """
    reach = kernel // 2
    point = np.array(
        [[(p + tap - reach) // factor for tap in range(kernel)] for p in range(factor)]
    )
    starts = point.min(axis=1)
    size = int((point.max(axis=1) - starts).max()) + 1
    taps = (point - starts[:, None])[:, None] == np.arange(size)[:, None]
    taps = taps.astype(np.float32)
    taps.setflags(write=False)
    return taps, tuple(int(s) for s in starts)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    """`convolve`; XLA's CPU compiler has no fast kernel gradient for even windows."""
    return convolve(x, kernel, padding)


def _convolve_backward(padding, kept, dy):
    x, kernel = kept
    (dx,) = jax.vjp(lambda x: convolve(x, kernel, padding), x)[1](dy)
    kh, kw, c, g = kernel.shape
    h, w = dy.shape[1:3]
    wide, dy = pad(x, padding), dy.reshape(-1, g)
    taps = [
        wide[:, i : i + h, j : j + w].reshape(-1, c).T @ dy
        for i in range(kh)
        for j in range(kw)
    ]
    return dx, jnp.stack(taps).reshape(kernel.shape)


_convolve.defvjp(lambda x, k, p: (convolve(x, k, p), (x, k)), _convolve_backward)


def upsample_convolve(
    x: jax.Array, kernel: jax.Array, factors: tuple[int, int]
) -> jax.Array:
    """Nearest-neighbour up-sampling, then a convolution with zeros around the field.

    Args:
        x: `[n, h, w, c]`.
        kernel: `[kh, kw, c, g]` with odd kh and kw.
        factors: whole factors along (h, w).

    Returns:
        `[n, h * factor, w * factor, g]`.
    """
    n, h, w, _ = x.shape
    (fh, fw), (kh, kw, c, g) = factors, kernel.shape
    (rows, row_starts), (columns, column_starts) = (
        phase_taps(f, k) for f, k in zip(factors, (kh, kw), strict=True)
    )
    taps = jnp.einsum(
        "pia,qjb,abcg->ijcpqg",
        rows.astype(kernel.dtype),
        columns.astype(kernel.dtype),
        kernel,
    )
    taps = taps.reshape(rows.shape[1], columns.shape[1], c, fh * fw * g)
    padding = tuple(
        (-min(starts), size - 1 + max(starts))
        for starts, size in ((row_starts, len(taps)), (column_starts, taps.shape[1]))
    )
    y = _convolve(x, taps, padding)
    y = y.reshape(*y.shape[:-1], fh, fw, g)
    phases = [
        [
            y[:, i - row_starts[0] :][:, :h, j - column_starts[0] :][:, :, :w, p, q]
            for q, j in enumerate(column_starts)
        ]
        for p, i in enumerate(row_starts)
    ]
    y = jnp.stack([jnp.stack(row, axis=3) for row in phases], axis=2)
    return y.reshape(n, h * fh, w * fw, g)
