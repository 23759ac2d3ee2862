"""Matrix products and pointwise layers whose gradients are as fast as their values.

Three things make XLA's CPU compiler slow in the gradient of a transformer. It contracts
over the first axis of a wide left operand by way of a transposed copy that costs more
than the product. It fuses sums along the residual path into everything that reads
them, and computes them again for each. And it keeps several intermediate values of an
activation or a normalisation where one suffices. The functions here have gradients of
their own, which choose the order of the operands and compute from what must be kept
anyway; `settle` ends fusion where a value is read more than once.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

_ROOT_HALF = 0.5**0.5
_DENSITY_AT_ZERO = 0.3989422804014327  # of the standard normal distribution


def settle(*arrays):
    """The arrays, each computed once and stored, and their gradients as well.

    Returns:
        One array for one, else a tuple.
    """
    settled = lax.optimization_barrier(arrays)
    return settled[0] if len(arrays) == 1 else settled


def as_rows(x: jax.Array) -> jax.Array:
    """`[..., c]` as `[n, c]`, and the compiler keeps it so.

    Where products of two arrays are summed over their last axis, XLA's CPU compiler
    makes a batch of scalar products of it, which takes ten times as long if the batch
    has several axes.
    """
    return settle(x.reshape(-1, x.shape[-1]))


def after(first: jax.Array, x: jax.Array) -> jax.Array:
    """`x`, but not before `first` is computed.

    A compiler is free to compute what a gradient needs again long before it is needed,
    or to see that it is there already. To the end of compilation an order only survives
    as arithmetic: something is added, a zero that nobody can foresee.

    Args:
        first: `[b, ...]`.
        x: `[b, ...]`; examples wait for their own, and so devices for nobody.
    """
    corner = first[(slice(None), *(0,) * (first.ndim - 1))]
    zero = jnp.minimum(jnp.abs(corner), 0).astype(x.dtype)
    return x + zero.reshape(-1, *(1,) * (x.ndim - 1))


def recompute(*functions):
    """Functions in a row, whose gradient keeps what each of them takes.

    Everything inside them is computed again. Unlike `jax.checkpoint` that waits for the
    gradient to arrive, so that a compiler does not keep the first results after all.

    Args:
        functions: pure, `function(x, weights) -> x`; x and weights are trees of arrays.

    Returns:
        Function of the first x and of one tree of weights per function.
    """

    @jax.custom_vjp
    def wrapped(x, *weights):
        return forward(x, *weights)[0]

    def forward(x, *weights):
        taken = []
        for function, own in zip(functions, weights, strict=True):
            taken.append((x, own))
            x = function(x, own)
        return x, taken

    def backward(taken, gradient):
        # All wait for the same: what becomes of the gradient on its way is then read
        # by its products alone, and can be fused with them.
        arrived = jax.tree.leaves(gradient)[0]
        found = []
        for function, arguments in zip(functions[::-1], taken[::-1], strict=True):
            arguments = jax.tree.map(
                lambda x: after(arrived, x) if _is_large(x) else x, arguments
            )
            gradient, own = jax.vjp(function, *arguments)[1](gradient)
            found.append(own)
        return gradient, *found[::-1]

    wrapped.defvjp(forward, backward)
    return wrapped


def _is_large(x):
    """Whether it is worth while to wait before anything is computed from it."""
    return jnp.issubdtype(x.dtype, jnp.inexact) and x.ndim > 2


@jax.custom_vjp
def dense(x: jax.Array, kernel: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    """`x @ kernel + bias`: `[..., c]` to `[..., g]`.

    Args:
        x: `[..., c]`.
        kernel: `[c, g]`.
        bias: `[g]`, or None.
    """
    y = x.reshape(-1, x.shape[-1]) @ kernel
    if bias is not None:
        y = y + bias
    return y.reshape(*x.shape[:-1], kernel.shape[-1])


def _dense_forward(x, kernel, bias):
    return dense(x, kernel, bias), (x, kernel, bias)


def _dense_backward(kept, dy):
    x, kernel, bias = kept
    shape, (inputs, outputs) = x.shape, kernel.shape
    x, dy = as_rows(x), as_rows(dy)
    if inputs <= outputs:
        dkernel = x.T @ dy
    else:
        # The narrow operand is the one to be transposed; `settle` keeps the compiler
        # from turning the product round again.
        dkernel = settle(dy.T @ x).T
    dbias = None if bias is None else dy.sum(axis=0).astype(bias.dtype)
    return (dy @ kernel.T).reshape(shape), dkernel.astype(kernel.dtype), dbias


dense.defvjp(_dense_forward, _dense_backward)


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
    """`x` times the normal distribution function of `x`, the exact form.

    Reference:
        Hendrycks and Gimpel 2016, https://arxiv.org/abs/1606.08415
    """
    return x * _normal_distribution(x)


def _normal_distribution(x):
    return 0.5 + 0.5 * lax.erf(x * _ROOT_HALF)


def _gelu_backward(x, dy):
    x, dy = settle(x, dy)
    density = _DENSITY_AT_ZERO * jnp.exp(-0.5 * jnp.square(x))
    return (dy * (_normal_distribution(x) + x * density),)


gelu.defvjp(lambda x: (gelu(x), x), _gelu_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def layer_norm(
    x: jax.Array, scale: jax.Array, offset: jax.Array, epsilon: float
) -> jax.Array:
    """Normalises the last axis, with statistics in float32 (or wider).

    Args:
        x: `[..., c]`.
        scale: `[c]`.
        offset: `[c]`.
        epsilon: added to the variance.

    Returns:
        `[..., c]` in the type of `x`.

    Reference:
        Ba et al. 2016, https://arxiv.org/abs/1607.06450
    """
    return _layer_norm_forward(x, scale, offset, epsilon)[0]


def _layer_norm_forward(x, scale, offset, epsilon):
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = wide.mean(axis=-1, keepdims=True)
    variance = jnp.square(wide - mean).mean(axis=-1, keepdims=True)
    mean, inverse = settle(mean, lax.rsqrt(variance + epsilon))
    y = (wide - mean) * inverse * scale + offset
    return y.astype(x.dtype), (x, mean, inverse, scale, offset)


def _layer_norm_backward(epsilon, kept, dy):
    del epsilon
    x, mean, inverse, scale, offset = kept
    shape = x.shape
    x, dy, mean, inverse = (
        as_rows(array) for array in (after(dy, x), dy.astype(mean.dtype), mean, inverse)
    )
    standard = (x.astype(mean.dtype) - mean) * inverse
    dscale = (dy * standard).sum(axis=0).astype(scale.dtype)
    doffset = dy.sum(axis=0).astype(offset.dtype)
    slope = dy * scale
    along = (slope * standard).mean(axis=-1, keepdims=True)
    level, along = settle(slope.mean(axis=-1, keepdims=True), along)
    dx = inverse * (slope - level - standard * along)
    return dx.astype(x.dtype).reshape(shape), dscale, doffset


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)
