"""Functions of single frames, applied to sequences of them."""

from collections.abc import Callable, Sequence
from typing import Any

import einops
import jax
from flax import linen as nn

from earthformer_jax.ops.devices import split
from earthformer_jax.ops.devices.shared import shared_by_examples


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


def loop_of_examples(
    loop: Callable[..., tuple],
    layer: nn.Module,
    *sequences: Any,
    axes: Sequence[int | None],
    out_axes: Sequence[int | None],
) -> tuple:
    """A loop over time that uses a layer, by each device for its own examples.

    Args:
        loop: of the layer, whose methods it may call, and the sequences.
        layer: with parameters alone: the module that calls this, or one of it.
        *sequences: trees of arrays.
        axes: as for `ops.devices.shared.shared_by_examples`.
        out_axes: likewise.
    """
    if layer.is_initializing() or split.shares(*jax.tree.leaves(sequences)) == 1:
        return loop(layer, *sequences)
    alone = layer.clone(parent=None, name=None)

    def own(params, *sequences):
        return alone.apply({"params": params}, *sequences, method=loop)

    own = shared_by_examples(own, axes, out_axes)
    return own(layer.variables["params"], *sequences)
