"""Functions of single frames, applied to sequences of them."""

from collections.abc import Callable
from typing import Any

import einops
import jax

from earthformer_jax.ops.devices import split


def each_frame(
    function: Callable, *sequences: jax.Array, time_first: bool = False
) -> Any:
    """A function of `[n, h, w, c]` arrays, applied to sequences of frames.

    Args:
        function: takes as many arrays as there are sequences, returns an array or tree.
        *sequences: `[b, t, h, w, c]`, or `[t, b, h, w, c]` with `time_first`.
        time_first: whether time is the first axis, and not the examples.

    Returns:
        What the function returns, with axes in the order of the sequences.
    """
    # Examples that lie on several devices stay there only as the first axis of n.
    swap = time_first and split.shares(*sequences) > 1
    rows = "(j i)" if swap else "(i j)"
    flat = [einops.rearrange(x, f"i j h w c -> {rows} h w c") for x in sequences]
    sizes = dict(zip("ij", sequences[0].shape[:2], strict=True))
    return jax.tree.map(
        lambda y: einops.rearrange(y, f"{rows} h w c -> i j h w c", **sizes),
        function(*flat),
    )
