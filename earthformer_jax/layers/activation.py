"""Activations by name, as the reference defines them."""

import functools

import jax
from flax import linen as nn

from earthformer_jax.layers.initializers import LEAKY_SLOPE
from earthformer_jax.ops.tuned.gelu import gelu

ACTIVATIONS = {
    "leaky": functools.partial(nn.leaky_relu, negative_slope=LEAKY_SLOPE),
    "gelu": gelu,
    "relu": nn.relu,
    "elu": nn.elu,
    "sigmoid": nn.sigmoid,
    "tanh": nn.tanh,
    "softplus": nn.softplus,
    "softrelu": nn.softplus,
    "softsign": nn.soft_sign,
    "identity": lambda x: x,
}


def leaky_slope(name: str) -> float | None:
    """Slope below zero of a leaky ReLU; None for other activations."""
    return LEAKY_SLOPE if name == "leaky" else None


def activate(name: str, x: jax.Array) -> jax.Array:
    """Applies the named activation.

    Raises:
        ValueError: if the name is unknown.
    """
    if name not in ACTIVATIONS:
        raise ValueError(
            f"activation must be one of {tuple(ACTIVATIONS)}; got {name!r}"
        )
    return ACTIVATIONS[name](x)
