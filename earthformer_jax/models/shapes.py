"""The checks of shapes that every forecaster makes."""

from collections.abc import Sequence

import jax

from earthformer_jax.checks import each, shown
from earthformer_jax.settings import at_least

_SHAPE = each(at_least(1), 4)


def check_shapes(input_shape: Sequence[int], target_shape: Sequence[int]) -> None:
    """Rejects shapes other than (T, H, W, C), and planes of different sizes.

    Raises:
        ValueError: naming the shape.
    """
    for name, shape in (("input_shape", input_shape), ("target_shape", target_shape)):
        if not _SHAPE.test(shape):
            raise ValueError(
                f"{name}={shown(shape)}: expected four whole numbers of at least 1 "
                "(time, height, width, channels)"
            )
    if tuple(input_shape[1:3]) != tuple(target_shape[1:3]):
        raise ValueError(
            "input and target need the same height and width; got input_shape "
            f"{tuple(input_shape)} and target_shape {tuple(target_shape)}"
        )


def check_inputs(inputs: jax.Array, input_shape: Sequence[int]) -> None:
    """Rejects inputs that are not `[b, *input_shape]`.

    Raises:
        ValueError: naming both shapes.
    """
    if tuple(inputs.shape[1:]) != tuple(input_shape):
        raise ValueError(
            "inputs need shape (batch, T, H, W, C) = "
            f"(batch, {', '.join(map(str, input_shape))}); got {tuple(inputs.shape)}"
        )
