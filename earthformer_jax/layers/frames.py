"""Functions of single frames, applied to sequences of them."""

from collections.abc import Callable
from typing import Any

import einops
import jax


def each_frame(function: Callable, *sequences: jax.Array) -> Any:
    """A function of `[n, h, w, c]` arrays, applied to `[b, t, h, w, c]` ones.

    Args:
        function: takes as many arrays as there are sequences, returns an array or tree.
        *sequences: the first two axes may also be time first, if they are so in all.
    """
    steps = sequences[0].shape[1]
    flat = [einops.rearrange(x, "b t h w c -> (b t) h w c") for x in sequences]
    return jax.tree.map(
        lambda y: einops.rearrange(y, "(b t) h w c -> b t h w c", t=steps),
        function(*flat),
    )
