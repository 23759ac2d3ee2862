"""The order of cutting and projecting; everything else is in the golden cases."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.models.earthformer import cuboid_attention as lib
from earthformer_jax.models.earthformer import projections
from earthformer_jax.models.earthformer.options import AttentionOptions
from earthformer_jax.ops.cuboid import CuboidSpec
from earthformer_jax.ops.patterns import CrossSpec
from earthformer_jax.profiling.multiply_adds import multiply_adds

GRID = (5, 4, 6)
OPTIONS = dict(num_heads=2, separate_global_qkv=True)


def numbers(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def random_params(layer, *arguments):
    """Like the initial ones, but no bias is zero."""
    params = jax.jit(layer.init)(jax.random.key(0), *arguments)
    leaves, structure = jax.tree.flatten(params)
    leaves = [x + 0.1 * numbers(*x.shape, seed=i) for i, x in enumerate(leaves)]
    return jax.tree.unflatten(structure, leaves)


def self_attention(**more):
    spec = CuboidSpec((3, 4, 4), "dll", shift=(0, 2, 1))
    layer = lib.CuboidSelfAttention(AttentionOptions(**OPTIONS | more), spec)
    return layer, (numbers(2, *GRID, 8), numbers(2, 3, 8, seed=1))


def cross_attention(**more):
    spec = CrossSpec((2, 4), n_temporal=2)
    layer = lib.CuboidCrossAttention(AttentionOptions(**OPTIONS | more), spec, 50)
    memory = numbers(2, 3, *GRID[1:], 8, seed=1)
    return layer, (numbers(2, *GRID, 8), memory, numbers(2, 3, 8, seed=2))


@pytest.mark.slow
@pytest.mark.parametrize("make", [self_attention, cross_attention])
@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("padding", ["zeros", "ignore", "nearest"])
def test_projecting_before_padding_changes_nothing(
    monkeypatch, padding, with_bias, separate, make
):
    layer, arguments = make(
        padding=padding, qkv_bias=with_bias, separate_global_qkv=separate
    )
    params = random_params(layer, *arguments)

    def run():
        def loss(params, *arguments):
            out = layer.apply(params, *arguments)
            return sum(jnp.sin(x).sum() for x in jax.tree.leaves(out)), out

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(params, *arguments)

    have = run()
    monkeypatch.setattr(projections, "pads", lambda *_: False)
    chex.assert_trees_all_close(have, run(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("with_bias", [False, True])
def test_padding_is_projected_only_where_there_is_a_bias(with_bias):
    options = AttentionOptions(num_heads=2, qkv_bias=with_bias)
    layer = lib.CuboidSelfAttention(options, CuboidSpec((3, 1, 1)))
    field = numbers(1, *GRID, 8)
    params = layer.init(jax.random.key(0), field)
    have = multiply_adds(layer.apply, params, field)
    positions, padded = np.prod(GRID), np.prod((6, *GRID[1:]))
    projected = padded if with_bias else positions
    # Queries, keys and values; the result; scores and sums inside cuboids of 3.
    assert have == 8 * 24 * projected + 8 * 8 * positions + 2 * 3 * 8 * padded
