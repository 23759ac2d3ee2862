"""Laws of cutting and merging, under every transformation users compose with."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.ops import attention, cuboid, patterns, resample
from earthformer_jax.ops.cuboid import CuboidSpec

SPECS = [
    CuboidSpec((2, 3, 4)),
    CuboidSpec((2, 3, 4), "ddd"),
    CuboidSpec((3, 2, 2), "ldl", (1, 0, 1)),
    CuboidSpec((4, 4, 4), "lll", (2, 2, 2)),
]


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("grid", [(4, 6, 8), (5, 7, 6), (1, 2, 3)])
@pytest.mark.parametrize("padding", ["ignore", "zeros"])
def test_merge_inverts_decompose(spec, grid, padding):
    x = jax.random.normal(jax.random.key(0), (2, *grid, 3))
    fitted = spec.fit(grid)
    cuboids = cuboid.decompose(x, fitted, padding)
    assert cuboids.shape[2] == fitted.volume
    np.testing.assert_array_equal(cuboid.merge(cuboids, fitted, grid, padding), x)


def test_nearest_padding_by_a_whole_factor_is_undone():
    x = jax.random.normal(jax.random.key(0), (1, 3, 5, 7, 2))
    padded = resample.pad_grid(x, (6, 10, 14), "nearest")
    np.testing.assert_array_equal(resample.unpad_grid(padded, (3, 5, 7), "nearest"), x)


@pytest.mark.parametrize("spec", SPECS)
def test_valid_positions_are_the_data(spec):
    grid = (5, 7, 6)
    fitted = spec.fit(grid)
    ones = np.asarray(cuboid.decompose(jnp.ones((1, *grid, 1)), fitted, "zeros"))
    valid = cuboid.validity(grid, fitted)
    np.testing.assert_array_equal(ones[0, :, :, 0] > 0, valid)
    assert valid.sum() == np.prod(grid)


def test_no_mask_where_everything_may_attend():
    assert cuboid.attention_mask((4, 4, 4), CuboidSpec((2, 2, 2)), "ignore") is None


def test_a_shift_masks_what_was_rolled_together():
    """One row of four, windows of two rolled by one: the ends do not see each other."""
    spec = CuboidSpec((1, 1, 2), shift=(0, 0, 1))
    mask = cuboid.attention_mask((1, 1, 4), spec, "zeros")
    np.testing.assert_array_equal(mask[0], [[True, True], [True, True]])
    np.testing.assert_array_equal(mask[1], [[True, False], [False, True]])


def layer(x, spec, grid):
    """Attention without projections: a pure function of the field."""
    cuboids = cuboid.decompose(x, spec, "ignore")[..., None, :]
    out = attention.attend(
        cuboids,
        cuboids,
        cuboids,
        scale=0.5,
        mask=cuboid.attention_mask(grid, spec, "ignore"),
    )
    return cuboid.merge(out[..., 0, :], spec, grid, "ignore")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["axial", "video_swin_2x4"])
def test_patterns_under_jit_vmap_grad_and_pmap(name):
    grid = (3, 5, 6)
    x = jax.random.normal(jax.random.key(1), (4, *grid, 2))

    def block(x):
        for spec in patterns.self_attention(name, grid):
            x = x + layer(x, spec.fit(grid), grid)
        return x

    want = block(x)
    assert want.shape == x.shape
    chex.assert_tree_all_finite(want)
    np.testing.assert_allclose(jax.jit(block)(x), want, rtol=1e-5, atol=1e-5)
    one = jax.vmap(lambda field: block(field[None])[0])(x)
    np.testing.assert_allclose(one, want, rtol=1e-5, atol=1e-5)
    mapped = jax.pmap(block)(x[:, None])[:, 0]
    np.testing.assert_allclose(mapped, want, rtol=1e-5, atol=1e-5)
    chex.assert_tree_all_finite(jax.grad(lambda x: jnp.sum(block(x) ** 2))(x))


def test_full_attention_is_plain_softmax_attention():
    x = jax.random.normal(jax.random.key(2), (2, 2, 3, 2, 4))
    grid = x.shape[1:4]
    have = layer(x, CuboidSpec(grid), grid)
    tokens = np.asarray(x.reshape(2, 12, 4), np.float64)
    scores = np.exp(0.5 * tokens @ tokens.swapaxes(1, 2))
    want = scores / scores.sum(-1, keepdims=True) @ tokens
    np.testing.assert_allclose(have.reshape(2, 12, 4), want, rtol=1e-5, atol=1e-6)


def test_attention_ignores_the_order_of_keys():
    key = jax.random.normal(jax.random.key(3), (1, 2, 5, 2, 3))
    query, order = key[:, :, :4], np.array([3, 0, 4, 1, 2])
    want = attention.attend(query, key, key, scale=1.0)
    have = attention.attend(query, key[:, :, order], key[:, :, order], scale=1.0)
    np.testing.assert_allclose(have, want, rtol=1e-5, atol=1e-6)


def test_a_row_that_sees_nothing_is_zero_with_finite_gradients():
    x = jax.random.normal(jax.random.key(4), (1, 1, 3, 1, 2))
    mask = np.array([[[True, True, True], [False] * 3, [True, False, True]]])

    def run(x):
        return attention.attend(x, x, x, scale=1.0, mask=mask)

    np.testing.assert_array_equal(run(x)[0, 0, 1], 0)
    chex.assert_tree_all_finite(jax.grad(lambda x: run(x).sum())(x))


def test_global_vectors_take_part_in_one_softmax():
    """With keys that all score the same, every key weighs the same."""
    query = jnp.zeros((1, 1, 2, 1, 3))
    value = jnp.ones((1, 1, 2, 1, 3))
    out = attention.attend(
        query,
        query,
        value,
        scale=1.0,
        global_key=jnp.zeros((1, 2, 1, 3)),
        global_value=jnp.full((1, 2, 1, 3), 3.0),
    )
    np.testing.assert_allclose(out, 2.0)


def test_attention_dropout():
    x = jax.random.normal(jax.random.key(5), (1, 4, 8, 2, 4))
    with pytest.raises(ValueError, match="needs a dropout_key"):
        attention.attend(x, x, x, scale=1.0, dropout_rate=0.5)
    drop = dict(dropout_rate=0.5, dropout_key=jax.random.key(0))
    means = [
        attention.attend(
            x, x, x, scale=1.0, dropout_rate=0.5, dropout_key=jax.random.key(i)
        )
        for i in range(400)
    ]
    want = attention.attend(x, x, x, scale=1.0)
    assert not np.allclose(attention.attend(x, x, x, scale=1.0, **drop), want)
    np.testing.assert_allclose(np.mean(means, axis=0), want, atol=0.25)


def test_patch_merge_orders_channels_by_time_height_width():
    x = jnp.arange(8.0).reshape(1, 2, 2, 2, 1)
    merged = resample.patch_merge(x, (2, 2, 2), "zeros")
    np.testing.assert_array_equal(merged[0, 0, 0, 0], np.arange(8))


def test_patch_merge_pads_time_alone():
    x = jnp.ones((1, 3, 2, 2, 1))
    assert resample.patch_merge(x, (2, 2, 2), "zeros").shape == (1, 2, 1, 1, 8)


def test_resize_by_a_whole_factor_equals_the_index():
    x = jax.random.normal(jax.random.key(6), (1, 2, 3, 4, 2))
    have = resample.resize_nearest(x, (2, 9, 8))
    want = x[:, :, resample.nearest_index(3, 9)][:, :, :, resample.nearest_index(4, 8)]
    np.testing.assert_array_equal(have, want)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(size=(2, 2)), "three whole numbers"),
        (dict(size=(0, 2, 2)), "three whole numbers"),
        (dict(size=(2, 2, 2), strategy="lxl"), "'l' or 'd'"),
        (dict(size=(2, 2, 2), shift=(0, -1, 0)), "whole numbers of at least 0"),
    ],
)
def test_impossible_cuts(arguments, message):
    with pytest.raises(ValueError, match=message):
        CuboidSpec(**arguments)


def test_unknown_names():
    with pytest.raises(ValueError, match="did you mean one of axial"):
        patterns.self_attention("axal", (4, 8, 8))
    with pytest.raises(ValueError, match="unknown cross-attention pattern"):
        patterns.cross_attention("cross_5x5", (4, 8, 8))
    with pytest.raises(ValueError, match="padding must be one of"):
        resample.pad_grid(jnp.ones((1, 1, 1, 1, 1)), (2, 2, 2), "reflect")
    with pytest.raises(ValueError, match="do not fit a bias table"):
        attention.relative_position_index((3, 1, 1), (5, 1, 1), (4, 1, 1))


@pytest.mark.parametrize("spec", [*SPECS, CuboidSpec((2, 2, 2), at_least=(4, 1, 1))])
@pytest.mark.parametrize("grid", [(4, 6, 8), (5, 7, 6), (1, 2, 3)])
@pytest.mark.parametrize("padding", resample.PADDINGS)
@pytest.mark.parametrize("time_at_front", [False, True])
def test_order_is_that_of_a_field_of_numbers(spec, grid, padding, time_at_front):
    number = np.arange(1, np.prod(grid) + 1).reshape(1, *grid, 1)
    front = dict(time_at_front=time_at_front)
    cuboids = cuboid.decompose(jnp.asarray(number), spec, padding, **front)
    order = cuboid.raster_order(grid, spec, padding, **front)
    np.testing.assert_array_equal(order, np.asarray(cuboids)[0, :, :, 0] - 1)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("padding", ["ignore", "zeros"])
def test_places_invert_the_order(spec, padding):
    grid = (5, 7, 6)
    n, q = cuboid.places(grid, spec, padding).T
    order = cuboid.raster_order(grid, spec, padding)
    np.testing.assert_array_equal(order[n, q], np.arange(np.prod(grid)))
    with pytest.raises(ValueError, match="'nearest' repeats positions of the grid"):
        cuboid.places(grid, spec, "nearest")


@pytest.mark.parametrize("padding", ["ignore", "zeros"])
def test_causal_masks_of_all_patterns(padding):
    """The mask without order, where the key is not after the query."""
    grid = (3, 5, 6)
    specs = {
        spec.fit(grid)
        for name in patterns.self_attention_names()
        for spec in patterns.self_attention(name, grid)
    }
    for spec in specs | {spec.fit(grid) for spec in SPECS}:
        mask = cuboid.causal_mask(grid, spec, padding)
        order = cuboid.raster_order(grid, spec, padding)
        want = order[:, None] <= order[:, :, None]
        allowed = cuboid.attention_mask(grid, spec, padding)
        want = want if allowed is None else want & allowed
        np.testing.assert_array_equal(want if mask is None else mask, want)


@pytest.mark.parametrize("spec", SPECS)
def test_causal_mask_where_padding_repeats_cells(spec):
    """No key after the cell that takes the result of a repeated one."""
    grid = (3, 5, 6)
    mask = cuboid.causal_mask(grid, spec, "nearest")
    order = cuboid.raster_order(grid, spec, "nearest")
    latest = np.where(mask, order[:, None], -1).max(axis=-1)
    merged = cuboid.merge(jnp.asarray(latest)[None, ..., None], spec, grid, "nearest")
    assert (np.asarray(merged).ravel() <= np.arange(np.prod(grid))).all()
    assert (latest == order).mean() > 0.9
