"""Cuboids counted in an order that devices can share, and dropout in that order."""

import einops
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.ops import cuboid
from earthformer_jax.ops.cuboid import CuboidSpec
from earthformer_jax.ops.devices import split
from earthformer_jax.ops.dropout import Reordered, dropout
from earthformer_jax.ops.global_attention import softmax_in_parts
from earthformer_jax.ops.tuned.hashed_key import hashed_key, keep_mask
from earthformer_jax.training import mesh as mesh_lib

GRID = (3, 8, 8)


@pytest.mark.parametrize(
    ("size", "grid", "order"),
    [
        ((3, 1, 1), GRID, "htw"),  # whole cuboids lie on each device
        ((1, 1, 8), GRID, "htw"),
        ((1, 8, 1), GRID, "wth"),  # columns are on none: the width is divided
        ((1, 4, 4), GRID, "hwt"),  # two times two windows for four devices
        ((1, 8, 8), (4, 8, 8), "thw"),
        ((3, 8, 8), GRID, "thw"),  # one cuboid: nothing to be shared
    ],
)
def test_spread(size, grid, order):
    """The order for four devices, whose first cuboids are those of the first device."""
    spec = CuboidSpec(size)
    assert spec.spread(grid, 1) is spec
    spread = spec.spread(grid, 4)
    assert spread.order == order
    assert (spread.reordered(grid) is None) == (
        spread.order == "thw" or grid[0] == size[0]
    )


@pytest.mark.parametrize("order", ["htw", "wth", "hwt"])
def test_order_of_cuboids(order):
    """Another order exchanges cuboids, in fields, masks and random numbers alike."""
    usual = CuboidSpec((2, 2, 4), "lld", (1, 1, 0))
    other = CuboidSpec((2, 2, 4), "lld", (1, 1, 0), order=order)
    x = np.arange(np.prod(GRID), dtype=np.float32).reshape(1, *GRID, 1)
    cut, want = (
        np.asarray(cuboid.decompose(jnp.asarray(x), spec, "zeros"))
        for spec in (other, usual)
    )
    counts = dict(zip(("t", "h", "w"), usual.counts(GRID), strict=True))
    pattern = f"b (t h w) ... -> b ({' '.join(order)}) ..."
    np.testing.assert_array_equal(cut, einops.rearrange(want, pattern, **counts))
    np.testing.assert_array_equal(cuboid.merge(cut, other, GRID, "zeros"), x)
    masks = [cuboid.attention_mask(GRID, s, "ignore")[None] for s in (other, usual)]
    np.testing.assert_array_equal(
        masks[0], einops.rearrange(masks[1], pattern, **counts)
    )


def test_dropout_in_another_order():
    """The same elements are dropped, by a key of JAX's and by a hashing key."""
    reordered = Reordered(1, (2, 3, 4), (2, 0, 1))
    shape, pattern = (2, 24, 5, 6), "b (t h w) ... -> b (w t h) ..."
    sizes = dict(t=2, h=3, w=4)
    ones, key = jnp.ones(shape), jax.random.key(0)
    want = einops.rearrange(dropout(ones, 0.5, key), pattern, **sizes)
    np.testing.assert_array_equal(dropout(ones, 0.5, key, reordered), want)
    words = jax.random.key_data(hashed_key(key))
    for swap in (False, True):
        want = einops.rearrange(
            keep_mask(shape, 0.5, words, swap=swap), pattern, **sizes
        )
        have = keep_mask(shape, 0.5, words, swap=swap, reordered=reordered)
        np.testing.assert_array_equal(have, want)


def test_softmax_in_parts():
    """The parts of the softmax of the whole; one row may be left out altogether."""
    scores = np.random.default_rng(0).normal(size=(2, 7, 3)).astype(np.float32)
    where = np.array([True, False, True, True, True])[:, None]
    near, far = softmax_in_parts([scores[:, :5], scores[:, 5:]], 1, where)
    whole = np.concatenate([where, np.ones((2, 1), bool)])
    want = jax.nn.softmax(scores, axis=1, where=whole)
    np.testing.assert_allclose(np.concatenate([near, far], 1), want, rtol=1e-6)


def test_parts():
    """Fields are split by an axis "space" that the compiler handles, and no other."""
    automatic = jax.sharding.AxisType.Auto
    for shape, names, want in [
        ((4,), ("space",), 4),
        ((2, 2), ("data", "space"), 2),
        ((4,), ("data",), 1),
        ((4, 1), ("data", "space"), 1),
    ]:
        kinds = (automatic,) * len(shape)
        mesh = jax.make_mesh(shape, names, axis_types=kinds)
        x = jax.device_put(np.zeros((1, 2, 4)), jax.NamedSharding(mesh, jax.P()))
        assert split.parts(x) == want
        assert jax.jit(lambda x: x * split.parts(x + 1) + 1)(x)[0, 0, 0] == 1
    assert split.parts(np.zeros(3), jnp.zeros(3)) == 1


def test_parts_inside_shard_map():
    """Each device has a part there, which is not split again."""
    mesh = jax.make_mesh((4,), ("space",), axis_types=(jax.sharding.AxisType.Auto,))
    found = []

    def function(x):
        found.append(split.parts(x))
        return x

    spec = jax.P("space")
    sharded = jax.shard_map(function, mesh=mesh, in_specs=spec, out_specs=spec)
    jax.eval_shape(sharded, jax.ShapeDtypeStruct((4,), np.float32))
    assert found == [1]


def test_copies_outside_a_program():
    """A parameter on one device, for examples on four: values and gradient."""
    mesh = mesh_lib.data_mesh()
    x = jnp.arange(8.0).reshape(4, 2)
    on_four = jax.device_put(x, mesh_lib.by_example(mesh))

    def loss(parameter):
        copied = split.copies(parameter, on_four)
        assert copied is not None
        return jnp.sum(on_four * split.of_examples(copied, len(on_four)))

    gradient = jax.grad(loss)(jnp.ones(2))
    np.testing.assert_array_equal(gradient, x.sum(0))
