"""Linear layers over channels."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from jax import lax

from earthformer_jax.layers import initializers
from earthformer_jax.ops.dense import add, widen
from earthformer_jax.ops.tuned.dense import dense


def _apply(dtype, kernel, bias, x):
    x, kernel = promote_dtype(x, kernel, dtype=dtype)
    return dense(x, kernel, None if bias is None else widen(bias))


def weights_of_dense(
    layer: Any, *, with_bias: bool = True
) -> tuple[jax.Array, ...] | None:
    """Kernel and bias, or the kernel alone, of what `Dense.bind_weights` returns.

    None for anything else, and for a layer that has no bias, or has one.
    """
    bound = bound_to(_apply, layer)
    if bound is None or with_bias is (bound[1][1] is None):
        return None
    return tuple(x for x in bound[1] if x is not None)


def bound_to(function: Callable, layer: Any) -> tuple[tuple, tuple] | None:
    """The options and the arrays that a layer binds to a function; None for another.

    What a method returned may have been put into another function since
    (`flax.linen.intercept_methods`).
    """
    own = getattr(layer, "func", None)
    if own is None or getattr(own, "func", None) is not function:
        return None
    return own.args, layer.args


class Dense(nn.Module):
    """`x @ kernel + bias` over the last axis; parameters named as in `nn.Dense`.

    Its gradient is as fast as its value.

    Attributes:
        features: channels of the output.
        use_bias: add a bias.
        kernel_init: initialiser of the kernel `[c, features]`.
        bias_init: initialiser of the bias.
        dtype: computation type; None follows input and parameters.
        param_dtype: parameter type.
    """

    features: int
    use_bias: bool = True
    kernel_init: Any = initializers.linear("fan_in")
    bias_init: Any = nn.initializers.zeros
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def bind_weights(self, inputs: int) -> jax.tree_util.Partial:
        """The layer as a pure function of `[..., inputs]` that carries its weights."""
        shape = (inputs, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = None
        if self.use_bias:
            bias = self.param("bias", self.bias_init, shape[1:], self.param_dtype)
        return jax.tree_util.Partial(
            functools.partial(_apply, self.dtype), kernel, bias
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[..., c]` to `[..., features]`."""
        return self.bind_weights(x.shape[-1])(x)


class Linear(nn.Module):
    """`nn.DenseGeneral` over the last axes, with a bias as `ops.dense.add` adds it.

    Attributes:
        features: channels of the output.
        axes: number of axes at the end that are contracted.
        use_bias: add a bias.
        kernel_init: initialiser of the kernel `[..., features]`, as a matrix.
        bias_init: initialiser of the bias.
        dtype: computation type; None follows input and parameters.
        param_dtype: parameter type.
    """

    features: int
    axes: int = 1
    use_bias: bool = True
    kernel_init: Any = nn.initializers.lecun_normal()
    bias_init: Any = nn.initializers.zeros
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Contracts the last axes of `x` into `features`."""
        inner = x.shape[x.ndim - self.axes :]

        def create(key, shape, dtype):
            matrix = math.prod(inner), self.features
            return self.kernel_init(key, matrix, dtype).reshape(shape)

        shape = (*inner, self.features)
        kernel = self.param("kernel", create, shape, self.param_dtype)
        bias = None
        if self.use_bias:
            bias = self.param("bias", self.bias_init, shape[-1:], self.param_dtype)
        x, kernel = promote_dtype(x, kernel, dtype=self.dtype)
        own, others = range(x.ndim - self.axes, x.ndim), range(self.axes)
        y = lax.dot_general(x, kernel, ((tuple(own), tuple(others)), ((), ())))
        return y if bias is None else add(y, bias)
