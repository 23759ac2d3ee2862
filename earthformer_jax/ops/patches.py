"""Square patches of a plane as channels, and back."""

import einops
import jax

from earthformer_jax.checks import check_array, check_value
from earthformer_jax.settings import at_least

_PLANE = "... (h dy) (w dx) c"
_PATCHES = "... h w (dy dx c)"


def reshape_patch(x: jax.Array, patch: int) -> jax.Array:
    """Moves patches of `patch` x `patch` pixels into the channels.

    Args:
        x: `[..., h, w, c]`, any leading axes; sides divisible by `patch`.
        patch: side of a patch in pixels.

    Returns:
        `[..., h / patch, w / patch, patch * patch * c]`; channels are ordered (row in
        the patch, column in the patch, c), c fastest.

    Raises:
        ValueError: if a side is not divisible.

    Reference:
        Wang et al. 2017, PredRNN, whose frames enter in patches of 4x4.
    """
    check_array("x", x, "... h w c")
    check_value("patch", patch, at_least(1))
    if x.shape[-3] % patch or x.shape[-2] % patch:
        raise ValueError(
            f"a plane of {x.shape[-3]}x{x.shape[-2]} cannot be divided into patches of "
            f"{patch}x{patch}; pad it first"
        )
    return einops.rearrange(x, f"{_PLANE} -> {_PATCHES}", dy=patch, dx=patch)


def reshape_patch_back(x: jax.Array, patch: int) -> jax.Array:
    """Inverse of `reshape_patch`: `[..., h, w, patch * patch * c]` to pixels.

    Raises:
        ValueError: if the number of channels does not fit such patches.
    """
    check_array("x", x, "... h w c")
    check_value("patch", patch, at_least(1))
    if x.shape[-1] % patch**2:
        raise ValueError(
            f"{x.shape[-1]} channels cannot be patches of {patch}x{patch} pixels"
        )
    return einops.rearrange(x, f"{_PATCHES} -> {_PLANE}", dy=patch, dx=patch)
