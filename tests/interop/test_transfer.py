"""Weights for a model with other lengths, another grid or other channels."""

import functools

import jax
import numpy as np
import pytest
from flax import traverse_util

from earthformer_jax import models
from earthformer_jax.interop import official
from earthformer_jax.interop.transfer import transfer
from earthformer_jax.models.earthformer import tables
from earthformer_jax.ops.attention import relative_position_index
from earthformer_jax.training import state

SMALL = dict(
    base_units=16,
    num_heads=2,
    enc_depth=(1, 1),
    dec_depth=(1, 1),
    dec_hierarchical_pos_embed=True,
)
INPUTS, TARGETS = (4, 16, 16, 1), (5, 16, 16, 1)


def make(inputs=INPUTS, targets=TARGETS, **options):
    return models.create_model("earthformer", inputs, targets, **(SMALL | options))


@functools.cache
def like(model):
    return state.abstract_variables(model, model.input_shape)


def weights(model, seed=0):
    """Random arrays of a model, by path."""
    rng = np.random.default_rng(seed)
    shapes = traverse_util.flatten_dict(like(model), sep="/")
    return {k: rng.normal(size=x.shape).astype(np.float32) for k, x in shapes.items()}


@pytest.fixture(scope="module")
def trained():
    return weights(make())


def taken(found):
    return traverse_util.flatten_dict(dict(found.variables), sep="/")


def test_the_same_model(trained):
    found = transfer(trained, make(), like(make()))
    assert not found.adapted and not found.new and not found.unused
    assert set(found.kept) == set(trained)
    for name, array in taken(found).items():
        np.testing.assert_array_equal(array, trained[name])


@pytest.mark.parametrize(
    ("inputs", "targets", "adapted", "new"),
    [
        ((6, 16, 16, 1), TARGETS, {"time", "relative_position_bias"}, set()),
        ((3, 16, 16, 1), (7, 16, 16, 1), {"time", "relative_position_bias"}, set()),
        (
            (4, 32, 24, 1),
            (5, 32, 24, 1),
            {"height", "width", "relative_position_bias"},
            set(),
        ),
        ((4, 16, 16, 3), TARGETS, set(), {"params/stem/convs_0/conv_0/kernel"}),
        (
            (4, 16, 16, 2),
            (5, 16, 16, 2),
            set(),
            {
                "params/stem/convs_0/conv_0/kernel",
                "params/head_proj/kernel",
                "params/head_proj/bias",
            },
        ),
    ],
)
def test_other_sizes(trained, inputs, targets, adapted, new):
    model = make(inputs, targets)
    found = transfer(trained, model, like(model))
    assert set(found.new) == new
    kinds = {
        kind
        for name in found.adapted
        for kind in ("time", "height", "width", "relative_position_bias")
        if f"/{kind}" in name
    }
    assert kinds == adapted
    shapes = traverse_util.flatten_dict(like(model), sep="/")
    for name, array in taken(found).items():
        assert array.shape == shapes[name].shape and array.dtype == shapes[name].dtype


def test_frames_are_counted_from_the_present(trained):
    found = taken(transfer(trained, *longer((6, 16, 16, 1), (7, 16, 16, 1))))
    name = "params/encoder_position/time/embedding"
    first, *rest = trained[name]
    np.testing.assert_array_equal(found[name], [first, first, first, *rest])
    name = "params/decoder_position/time/embedding"
    *rest, last = trained[name]
    np.testing.assert_array_equal(found[name], [*rest, last, last, last])
    found = taken(transfer(trained, *longer((2, 16, 16, 1), (3, 16, 16, 1))))
    name = "params/encoder_position/time/embedding"
    np.testing.assert_array_equal(found[name], trained[name][-2:])


def longer(inputs, targets):
    model = make(inputs, targets)
    return model, like(model)


def test_rows_are_interpolated():
    """A field that changes linearly from south to north does so on another grid."""
    table = np.linspace(0, 15, 8)[:, None] + np.zeros((1, 3))
    model = make((4, 32, 16, 1), (5, 32, 16, 1))
    before = tables.Fields((4, 8, 8), 5)
    path = "encoder_position/height/embedding"
    made, how = tables.resized(path, table, model, before)
    assert how == "interpolated from 8 to 16"
    where = (np.arange(16) + 0.5) / 2 - 0.5
    np.testing.assert_allclose(made[:, 0], np.clip(where, 0, 7) * 15 / 7)


def test_biases_keep_their_offsets(trained):
    """Two cells that are as far apart as before attend to each other as before."""
    model = make((6, 32, 16, 1), (5, 32, 16, 1), enc_pattern="full")
    old = make(enc_pattern="full")
    arrays = weights(old)
    found = taken(transfer(arrays, model, like(model)))
    path = "encoder/block_0_0/attention_0/relative_position_bias"
    small, large = (
        tables.bias_reach(path, m, tables.fields_of(m)) for m in (old, model)
    )
    assert small == (4, 8, 8) and large == (6, 16, 8)
    old_index = relative_position_index(small, small, small)
    new_index = relative_position_index(small, small, large)
    np.testing.assert_array_equal(
        found[f"params/{path}"][new_index], arrays[f"params/{path}"][old_index]
    )
    far = relative_position_index(large, large, large)[0, -1]
    end = relative_position_index(small, small, small)[0, -1]
    np.testing.assert_array_equal(
        found[f"params/{path}"][far], arrays[f"params/{path}"][end]
    )


def test_a_plane_in_one_table():
    """Its rows and columns are not known if it has another size."""
    arrays = weights(make(pos_embed="t+hw"))
    model = make((4, 32, 16, 1), (5, 32, 16, 1), pos_embed="t+hw")
    found = transfer(arrays, model, like(model))
    assert not found.adapted
    name = "params/encoder_position/plane/embedding"
    assert found.new[name] == "(64, 16) in the weights, (128, 16) here"
    model = make((6, 16, 16, 1), TARGETS, pos_embed="t+hw")
    assert not transfer(arrays, model, like(model)).new


def test_official_weights_of_other_sizes():
    old = make((4, 16, 16, 2), (5, 16, 16, 1), enc_depth=(2, 1))
    arrays = weights(old)
    variables = traverse_util.unflatten_dict(arrays, sep="/")
    state_dict = official.state_dict_from_params(variables, old)
    model = make((6, 16, 24, 1), TARGETS[:1] + (16, 24, 1))
    found, unused = official.arrays_from_state_dict(state_dict, model)
    assert unused and all(name.startswith("encoder.blocks.0.1.") for name in unused)
    found = {f"params/{name}": array for name, array in found.items()}
    result = transfer(found, model, like(model), unused)
    assert set(result.new) == {"params/stem/convs_0/conv_0/kernel"}
    assert list(result.unused) == unused
    name = "params/encoder/block_0_0/ffn_0/ffn_1/kernel"
    np.testing.assert_array_equal(taken(result)[name], arrays[name])


def test_weights_of_another_model(trained):
    wider = make(base_units=32, num_heads=2)
    with pytest.raises(ValueError, match=r"only \d+ of \d+ arrays fit this model"):
        transfer(trained, wider, like(wider))
    unet = models.create_model("unet", INPUTS, TARGETS)
    with pytest.raises(ValueError, match="only 0 of"):
        transfer(trained, unet, like(unet))


def test_lines(trained):
    model = make((6, 16, 16, 3))
    found = transfer(trained, model, like(model), ["more.weight"])
    assert jax.tree.leaves(found.variables)
    assert "adapted, 1 new; 1 others unused" in found.summary()
    lines = list(found.lines())
    assert lines[0].startswith("new: params/stem/convs_0/conv_0/kernel ((3, 3, 1, 16)")
    assert lines[-1] == "unused: more.weight"
    assert len(lines) == 2 + len(found.adapted)
