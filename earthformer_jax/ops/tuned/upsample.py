"""Up-sampling by whole factors and convolving, without creating the enlarged field.

Gain: an N-body forecast takes 0.91 instead of 1.02 s (two CPU cores), and windows that
start together reduce the gradient from 31 to 18 ms (one core).

After nearest-neighbour up-sampling, several taps of a convolution's window read the
same point, so their weights can be added first: each of the f x f phases of the output
is then a convolution of the small field with a smaller window. For a factor of 2 and 3
x 3 taps that is 4 instead of 9 products per output.
"""

import functools
from typing import NamedTuple

import einops
import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.ops import resample as plain
from earthformer_jax.ops.convolution import Padding, Pair, check_bias, convolve, pad
from earthformer_jax.ops.dense import add, widen
from earthformer_jax.ops.devices.varying import vary_alike
from earthformer_jax.ops.tuned.choice import instead_of
from earthformer_jax.ops.tuned.native import convolution as native
from earthformer_jax.ops.tuned.order import flatten_rows, materialize


class Windows(NamedTuple):
    """How a window along one axis of the enlarged field reads the small one.

    Attributes:
        taps: float32 `[factor, n, kernel]`, 1 where a tap of a phase's window reads the
            n-th point of the small field's window.
        padding: zeros before and after the small field.
        skipped: phases of the first window that lie before the enlarged field.
    """

    taps: np.ndarray
    padding: tuple[int, int]
    skipped: int


@functools.lru_cache(maxsize=64)
def windows(factor: int, kernel: int) -> Windows:
    """Windows of the small field that start at the same point for all their phases.

    Args:
        factor: of the up-sampling.
        kernel: odd length of the window, which is centred on its output.
    """
    reach = kernel // 2
    # Output o reads from point (o - reach) // factor on; the remainder is its phase.
    point = np.add.outer(np.arange(factor), np.arange(kernel)) // factor
    size = int(point.max()) + 1
    taps = (point[:, None] == np.arange(size)[:, None]).astype(np.float32)
    taps.setflags(write=False)
    padding = (-(-reach // factor), size + (-1 - reach) // factor)
    return Windows(taps, padding, -reach % factor)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    """`convolve` with gradients that are matrix products.

    XLA's CPU compiler is slow at gradients of convolutions with even windows.
    """
    return convolve(x, kernel, padding)


def _convolve_backward(padding, kept, dy):
    x, kernel = kept
    (n, h, w, c), (kh, kw, _, _) = x.shape, kernel.shape
    rows, columns = dy.shape[1:3]
    taps = [(i, j) for i in range(kh) for j in range(kw)]
    wide, dy = pad(x, padding), flatten_rows(dy)
    dkernel = [
        wide[:, i : i + rows, j : j + columns].reshape(-1, c).T @ dy for i, j in taps
    ]
    by_output = einops.rearrange(kernel, "kh kw c g -> g (kh kw c)")
    parts = materialize(dy @ by_output).reshape(n, rows, columns, len(taps), c)
    # Each tap's share of an output goes back to the point that the tap read.
    shares = [
        jnp.pad(
            parts[..., tap, :],
            ((0, 0), (i, kh - 1 - i), (j, kw - 1 - j), (0, 0)),
        )
        for tap, (i, j) in enumerate(taps)
    ]
    (top, _), (left, _) = padding
    dx = functools.reduce(jnp.add, (widen(share) for share in shares))
    dx = dx[:, top : top + h, left : left + w].astype(x.dtype)
    return dx, jnp.stack(dkernel).reshape(kernel.shape)


_convolve.defvjp(lambda x, k, p: (convolve(x, k, p), (x, k)), _convolve_backward)


@instead_of(plain.upsample_convolve, whole_fields=True)
def upsample_convolve(
    x: jax.Array, kernel: jax.Array, plane: Pair, bias: jax.Array | None = None
) -> jax.Array:
    """As `ops.resample.upsample_convolve`.

    Fractional factors and windows with even sides are left to that function.
    """
    plain.check_upsampling(x, kernel, plane)
    (_, h, w, _), (kh, kw, _, _) = x.shape, kernel.shape
    fh, fw = plane[0] // h, plane[1] // w
    if (fh * h, fw * w) != tuple(plane) or not kh % 2 or not kw % 2:
        return plain.upsample_convolve(x, kernel, plane, bias)
    check_bias(bias, kernel)
    rows, columns = windows(fh, kh), windows(fw, kw)
    folded = jnp.einsum(
        "pia,qjb,abcg->ijcpqg",
        rows.taps.astype(kernel.dtype),
        columns.taps.astype(kernel.dtype),
        kernel,
    )
    folded = einops.rearrange(folded, "i j c p q g -> i j c (p q g)")
    padding = rows.padding, columns.padding
    skipped = rows.skipped, columns.skipped
    if native.suits(x, folded, padding, bias):
        phases = native.Phases((fh, fw), skipped, tuple(plane), (kh, kw))
        return native.convolve(x, folded, padding, bias, phases)
    y = jnp.asarray(_convolve(*vary_alike(x, folded), padding))
    y = einops.rearrange(y, "n a b (p q g) -> n (a p) (b q) g", p=fh, q=fw)
    y = y[:, skipped[0] :, skipped[1] :][:, : plane[0], : plane[1]]
    return y if bias is None else add(y, bias)
