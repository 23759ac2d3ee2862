"""The axes of the main functions, named by letters and checked at run time.

Sizes that share a letter must be equal, also between arguments and results.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from beartype import beartype
from jaxtyping import Array, Float, TypeCheckError, jaxtyped

from earthformer_jax.ops import attention, cuboid, global_attention, patches, resample
from earthformer_jax.ops.cuboid import CuboidSpec
from earthformer_jax.ops.tuned.attention import attend as tuned_attend
from earthformer_jax.ops.tuned.upsample import upsample_convolve

SPEC = CuboidSpec((2, 3, 2), "ldl", (1, 0, 1))  # 2 x 2 x 3 cuboids of 12 positions

check = jaxtyped(typechecker=beartype)


def numbers(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


@check
def decompose(x: Float[Array, "b 4 6 6 c"]) -> Float[Array, "b 12 12 c"]:
    return cuboid.decompose(x, SPEC, "zeros")


@check
def decompose_and_merge(x: Float[Array, "b t h w c"]) -> Float[Array, "b t h w c"]:
    grid = x.shape[1:4]
    return cuboid.merge(cuboid.decompose(x, SPEC, "zeros"), SPEC, grid, "zeros")


@check
def attend(
    function,
    query: Float[Array, "b n q a d"],
    key: Float[Array, "b n s a d"],
    value: Float[Array, "b n s a e"],
    global_key: Float[Array, "b g a d"],
    global_value: Float[Array, "b g a e"],
    bias: Float[Array, "a q s"],
) -> Float[Array, "b n q a e"]:
    vectors = dict(global_key=global_key, global_value=global_value)
    return function(query, key, value, scale=1.0, bias=bias, **vectors)


@check
def attend_global(
    query: Float[Array, "b g a d"],
    key: Float[Array, "b n s a d"],
    value: Float[Array, "b n s a e"],
) -> Float[Array, "b g a e"]:
    return global_attention.attend_global(query, key, value, scale=1.0)


@check
def merge_patches(x: Float[Array, "b t h w c"]) -> Float[Array, "b t h//2 w//2 4*c"]:
    return resample.patch_merge(x, (1, 2, 2), "zeros")


@check
def patches_as_channels(
    x: Float[Array, "b t h w c"],
) -> Float[Array, "b t h//2 w//2 4*c"]:
    return patches.reshape_patch(x, 2)


@check
def upsample(
    x: Float[Array, "n h w c"], kernel: Float[Array, "3 3 c g"]
) -> Float[Array, "n 2*h 3*w g"]:
    return upsample_convolve(x, kernel, (2 * x.shape[1], 3 * x.shape[2]))


@check
def look_back(
    query: Float[Array, "b l h w c"], history: Float[Array, "b s h w c"]
) -> Float[Array, "b l h w c"]:
    return global_attention.recall(query, history)


def test_cuboids():
    decompose(numbers(2, 4, 6, 6, 3))
    decompose_and_merge(numbers(2, 3, 5, 4, 3))


@pytest.mark.parametrize("function", [attention.attend, tuned_attend])
def test_attention(function):
    b, n, q, s, a, d, e, g = 2, 3, 4, 5, 2, 3, 7, 1
    attend(
        function,
        numbers(b, n, q, a, d),
        numbers(b, n, s, a, d),
        numbers(b, n, s, a, e),
        numbers(b, g, a, d),
        numbers(b, g, a, e),
        numbers(a, q, s),
    )
    attend_global(numbers(b, g, a, d), numbers(b, n, s, a, d), numbers(b, n, s, a, e))


def test_grids():
    merge_patches(numbers(2, 3, 4, 6, 5))
    patches_as_channels(numbers(2, 3, 4, 6, 5))
    upsample(numbers(2, 4, 5, 3), numbers(3, 3, 3, 6))
    look_back(numbers(2, 1, 3, 4, 5), numbers(2, 6, 3, 4, 5))


def test_a_wrong_axis_is_noticed():
    @check
    def swapped(x: Float[Array, "b h w c"]) -> Float[Array, "b w h c"]:
        return jax.nn.relu(x)

    with pytest.raises(TypeCheckError):
        swapped(numbers(1, 2, 3, 4))
