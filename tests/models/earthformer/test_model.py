"""The whole model: shapes, modes, precision, and what it refuses."""

import dataclasses
import functools
import zlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from earthformer_jax import models
from earthformer_jax.models.earthformer.cuboid_attention import CuboidSelfAttention
from earthformer_jax.models.earthformer.options import (
    AttentionOptions,
    block_options,
)
from earthformer_jax.models.earthformer.variants import VARIANTS
from earthformer_jax.ops.cuboid import CuboidSpec
from tests.variables import drawn

INPUT, TARGET = (3, 6, 8, 2), (2, 6, 8, 1)
SMALL = dict(
    base_units=16,
    num_heads=2,
    enc_depth=(1,),
    dec_depth=(1,),
    num_global_vectors=2,
    enc_pattern="divided_st",
)
# Number of arrays, and checksum of their paths and shapes.
NAMES = {
    "enso_released": (166, 2958845558),
    "sevir_released": (275, 2814420374),
    "small": (195, 3997702895),
}
LAYERS_ONLY = {"qkv_bias", "qk_scale", "expansion", "hidden", "pre_norm"}


def make(**options):
    return models.create_model("earthformer", INPUT, TARGET, **SMALL | options)


compiled = functools.cache(lambda model: jax.jit(model.apply))


@functools.cache
def training(model):
    """(variables, inputs, key) to the forecast with dropout."""
    apply = functools.partial(model.apply, train=True)
    return jax.jit(lambda v, x, key: apply(v, x, rngs={"dropout": key}))


@functools.cache
def gradient(model):
    return jax.jit(jax.grad(lambda v, x: jnp.sum(model.apply(v, x) ** 2)))


@pytest.fixture(scope="module")
def inputs():
    return jax.random.normal(jax.random.key(0), (2, *INPUT))


@pytest.fixture(scope="module")
def variables(inputs):
    return drawn(make().init, inputs)


@pytest.mark.slow
def test_forecast(variables, inputs):
    forecast = compiled(make())(variables, inputs)
    chex.assert_shape(forecast, (2, *TARGET))
    chex.assert_tree_all_finite(forecast)
    others = compiled(make())(variables, inputs.at[0].multiply(-2))
    np.testing.assert_allclose(others[1], forecast[1], rtol=1e-4, atol=1e-5)
    assert not np.allclose(others[0], forecast[0], atol=1e-3)


@pytest.mark.slow
def test_dropout_acts_in_training_only(variables, inputs):
    want = compiled(make())(variables, inputs)
    learn = training(make())
    train = [learn(variables, inputs, jax.random.key(i)) for i in (0, 0, 1)]
    np.testing.assert_array_equal(train[0], train[1])
    assert not np.allclose(train[0], train[2])
    assert not np.allclose(train[0], want)


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["offload", "blocks"])
def test_recomputation_changes_no_value(variables, inputs, remat):
    plain, again = (
        gradient(model)(variables, inputs) for model in (make(), make(remat=remat))
    )
    chex.assert_trees_all_close(plain, again, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_attention_of_the_library_gives_the_same(variables, inputs):
    model = make(attn_implementation="library", attn_drop=0.0)
    want = compiled(make())(variables, inputs)
    np.testing.assert_allclose(compiled(model)(variables, inputs), want, atol=1e-5)


@pytest.mark.slow
def test_bfloat16_keeps_float32_parameters_and_forecasts(variables, inputs):
    model = make(dtype="bfloat16")
    forecast = compiled(model)(variables, inputs)
    assert forecast.dtype == jnp.float32
    created = jax.eval_shape(model.init, jax.random.key(0), inputs)
    assert {x.dtype for x in jax.tree.leaves(created)} == {jnp.dtype("float32")}
    want = compiled(make())(variables, inputs)
    assert np.abs(forecast - want).max() < 0.1 * np.abs(want).max()


@pytest.mark.slow
def test_initial_weights_have_the_reference_spread():
    """Standard deviations of section 4 of the reference's description."""
    shapes = (4, 16, 16, 3), (4, 16, 16, 1)
    depth = dict(enc_depth=(1, 1), dec_depth=(1, 1))
    model = models.create_model("earthformer", *shapes, base_units=64, **depth)
    attention, stem = "encoder/block_1_0/attention_0/", "stem/convs_0/conv_1/"
    uniform, leaky = 3**-0.5, (2 / 1.01) ** 0.5
    want = {  # the spread times the root of what is summed, and how exact it is
        attention + "qkv/kernel": (128, 1, 0.02),
        "encoder/block_1_0/ffn_0/ffn_2/kernel": (512, 1, 0.02),
        stem + "kernel": (9 * 64, uniform, 0.02),
        stem + "bias": (9 * 64, uniform, 0.15),
        "decoder/upsample_0/conv/kernel": (9 * 64, leaky, 0.02),
        "global_vectors": (1, 0.02, 0.003),
        attention + "relative_position_bias": (1, 0.02, 0.008),
    }

    @jax.jit  # of these alone: what all others begin as takes long to compile
    def drawn(key):
        v = model.init(key, jnp.zeros((1, 4, 16, 16, 3)))["params"]
        flat = traverse_util.flatten_dict(v, sep="/")
        return {name: flat[name] for name in want}

    for name, x in drawn(jax.random.key(0)).items():
        fan, spread, exact = want[name]
        assert float(jnp.std(x)) * fan**0.5 == pytest.approx(spread, abs=exact), name


def test_one_pattern_name_per_level():
    options = SMALL | dict(enc_depth=(1, 1), dec_depth=(1, 1))
    model = make(**options | dict(enc_pattern="axial, full"))
    v = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *INPUT)))
    layers = [
        sum(name.startswith("attention") for name in v["params"]["encoder"][block])
        for block in ("block_0_0", "block_1_0")
    ]
    assert layers == [3, 1]


def test_the_change_from_the_last_frame(variables, inputs):
    change = compiled(make())(variables, inputs)
    forecast = compiled(make(forecast_change=True))(variables, inputs)
    last = inputs[:, -1:, ..., : TARGET[-1]]
    np.testing.assert_allclose(forecast, change + last, atol=1e-6)
    more_channels = (*TARGET[:3], INPUT[3] + 1)
    with pytest.raises(ValueError, match="forecast_change needs targets"):
        models.create_model(
            "earthformer", INPUT, more_channels, **SMALL, forecast_change=True
        )


def test_a_shrunken_cuboid_keeps_true_distances(inputs):
    """The bias of two neighbours does not depend on how large the cuboid was made."""
    x = jax.random.normal(jax.random.key(2), (1, 1, 3, 3, 4))
    options = AttentionOptions(num_heads=1)
    layer = CuboidSelfAttention(options, CuboidSpec((1, 4, 4)))
    v = layer.init(jax.random.key(0), x)
    small = CuboidSelfAttention(options, CuboidSpec((1, 3, 3)))
    table = v["params"]["relative_position_bias"].reshape(1, 7, 7, 1)
    inner = table[:, 1:-1, 1:-1].reshape(-1, 1)
    same = {"params": dict(v["params"]) | {"relative_position_bias": inner}}
    np.testing.assert_allclose(layer.apply(v, x)[0], small.apply(same, x)[0], atol=1e-6)
    options = AttentionOptions(num_heads=1, match_reference=True)
    slip = CuboidSelfAttention(options, CuboidSpec((1, 4, 4)))
    assert not np.allclose(slip.apply(v, x)[0], small.apply(same, x)[0], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(base_unit=16), "did you mean base_units"),
        (dict(enc_depth=(0,)), "_depth=.*: expected a sequence"),
        (dict(start="random"), "start=.*: expected"),
        (dict(dec_cross_start=1), "dec_cross_start must be a level"),
        (dict(stem="stack_conv", stem_stages=((8, (1, 2, 2), 1),)), "last stage"),
        (dict(num_global_vectors=-1), "num_global_vectors=-1: expected"),
        (dict(enc_pattern=("axial", "axial")), "one for each of 1"),
        (dict(pos_embed="sinus"), "pos_embed=.*: expected"),
        (dict(ffn_activation="swish"), "activation=.*: expected"),
        (dict(norm="batch_norm"), "norm=.*: expected"),
        (
            dict(attn_implementation="flash"),
            "use one of xla, library, cudnn, or a function",
        ),
        (dict(attn_implementation="library", attn_drop=0.1), "expected 0"),
        pytest.param(
            dict(attn_implementation="cudnn", attn_drop=0.0),
            "needs a GPU",
            marks=pytest.mark.skipif(
                "jax.default_backend() == 'gpu'", reason="has one"
            ),
        ),
    ],
)
def test_refusals(options, message, inputs):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(make(**options).init, jax.random.key(0), inputs)


def test_inputs_of_another_shape(variables):
    with pytest.raises(ValueError, match=r"got \(2, 4, 6, 8, 2\)"):
        make().apply(variables, jnp.zeros((2, 4, 6, 8, 2)))


def test_unknown_model():
    with pytest.raises(ValueError, match="unknown model 'earthfromer'"):
        models.create_model("earthfromer", INPUT, TARGET)


def test_options_reach_their_groups():
    model = make(
        num_heads=8,
        attn_drop=0.0,
        proj_drop=0.3,
        ffn_drop=0.4,
        use_global_vector_ffn=True,
        use_global_self_attn=False,
        separate_global_qkv=True,
        ffn_activation="leaky",
        gated_ffn=True,
        norm="rms_norm",
        padding="nearest",
        use_relative_pos=False,
        self_attn_use_final_proj=False,
        remat=1,
        scan_blocks=True,
        attn_implementation="library",
        attn_init="fan_out",
        ffn_init="fan_out",
        match_reference=True,
        param_dtype="bfloat16",
    )
    options = block_options(model, jnp.bfloat16)
    for group in (options, options.attention, options.feed_forward):
        unchanged = {
            field.name
            for field in dataclasses.fields(group)
            if getattr(group, field.name) == field.default
        }
        assert unchanged <= LAYERS_ONLY


@pytest.mark.parametrize("variant", NAMES)
def test_names_and_shapes_of_parameters(variant):
    """They are the checkpoint format: a change here makes old checkpoints useless."""
    inputs, targets = (12, 24, 48, 1), (14, 24, 48, 1)
    model = models.create_model("earthformer", inputs, targets, **VARIANTS[variant])
    made = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *inputs)))
    flat = traverse_util.flatten_dict(made["params"], sep="/")
    lines = [f"{path} {x.shape}" for path, x in sorted(flat.items())]
    assert (len(lines), zlib.crc32("\n".join(lines).encode())) == NAMES[variant]
