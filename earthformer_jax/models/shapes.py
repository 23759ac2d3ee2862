"""The checks of shapes that every forecaster makes."""

from collections.abc import Sequence

import jax


def check_shapes(input_shape: Sequence[int], target_shape: Sequence[int]) -> None:
    """Rejects shapes other than (T, H, W, C), and planes of different sizes.

    Raises:
        ValueError: naming the shape.
    """
    for name, shape in (("input_shape", input_shape), ("target_shape", target_shape)):
        if len(shape) != 4 or min(shape) < 1:
            raise ValueError(
                f"{name} needs four positive integers (T, H, W, C); got {tuple(shape)}"
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
