"""Earthformer AR with its VQ-VAE: the contract, training, samples, refusals."""

import functools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.models import contract, create_model
from earthformer_jax.models.autoregressive.model import TOKENIZER

SHAPES = (2, 6, 8, 2), (3, 6, 8, 1)
SMALL = dict(
    base_units=4,
    num_heads=2,
    enc_depth=(1,),
    dec_depth=(1,),
    enc_pattern="full",
    dec_self_pattern="full",
    num_global_vectors=1,
    codebook_size=6,
    factor=2,
    tokenizer_options=dict(features=4, code_width=3, blocks=0, frames=2),
)
RANDOM = np.random.default_rng(0)
INPUTS = RANDOM.normal(size=(2, *SHAPES[0])).astype(np.float32)
TARGETS = RANDOM.normal(size=(2, *SHAPES[1])).astype(np.float32)
RNGS = {"dropout": jax.random.key(1), "sampling": jax.random.key(2)}

compiled = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)


def make(**options):
    return create_model("earthformer_ar", *SHAPES, **SMALL | options)


def variables_of(model):
    like = jax.eval_shape(model.init, jax.random.key(0), INPUTS)
    random = np.random.default_rng(1)
    made = jax.tree.map(
        lambda x: jnp.asarray(0.4 * random.normal(size=x.shape), x.dtype), like
    )
    book = made["batch_stats"][TOKENIZER]["batch_stats"]["codebook"]
    book["share"] = jnp.abs(book["share"])
    return made


def loss(model, variables, **teaching):
    def of(params):
        _, changed = model.apply(
            {**variables, "params": params},
            INPUTS,
            train=True,
            rngs=RNGS,
            mutable=["losses", "batch_stats"],
            **teaching,
        )
        (term,) = changed["losses"]["cross_entropy"]
        return term, changed["batch_stats"]

    return of


def test_the_contract():
    model = make()
    assert contract.uses_targets(model) and contract.own_loss(model)
    assert contract.draws(model) and contract.final_teaching(model, 9) == 0
    variables = jax.eval_shape(model.init, jax.random.key(0), INPUTS)
    inside = variables["batch_stats"][TOKENIZER]
    alone = model.vq_vae()
    whole = jax.ShapeDtypeStruct((1, 5, 6, 8, 1), jnp.float32)
    assert inside == jax.eval_shape(alone.init, jax.random.key(0), whole)


def test_samples():
    """Members differ, and are the same whatever the batch."""
    model = make()
    variables = variables_of(model)
    members = compiled(functools.partial(model.apply, size=2, method="members"))
    two = members(variables, INPUTS)
    assert two.shape == (2, 2, *SHAPES[1]) and two.dtype == jnp.float32
    assert np.abs(two[0] - two[1]).max() > 1e-3
    turned = members(variables, INPUTS[::-1])
    np.testing.assert_allclose(turned[:, ::-1], two, atol=1e-5)
    with pytest.raises(ValueError, match="size=0: expected"):
        model.apply(variables, INPUTS, 0, method="members")
    with pytest.raises(ValueError, match="learns without samples"):
        model.apply(variables, INPUTS, 1, train=True, method="members")


@pytest.mark.slow
def test_only_the_most_probable_code_is_the_forecast():
    model = make(top_k=1)
    variables = variables_of(model)

    @compiled
    def run(inputs):
        samples = model.apply(variables, inputs, 1, method="members")
        return samples[0], model.apply(variables, inputs)

    np.testing.assert_allclose(*run(INPUTS), atol=1e-6)


@pytest.mark.slow
def test_several_devices_draw_the_same():
    model = make()
    variables = variables_of(model)
    draw = functools.partial(model.apply, size=2, method="members")
    two = compiled(draw)(variables, INPUTS)
    mapped = jax.pmap(draw, in_axes=(None, 0))(variables, INPUTS[:, None])
    np.testing.assert_allclose(mapped[:, :, 0].swapaxes(0, 1), two, atol=1e-5)


def test_training_changes_no_constant():
    model = make(attn_drop=0.0, proj_drop=0.0, ffn_drop=0.0)
    variables = variables_of(model)
    weights = np.ones(TARGETS.shape, np.float32)
    weights[0, :, :2], weights[1] = 0, 2 * weights[1]

    @compiled
    def step(params, targets, weights):
        of = loss(model, variables, targets=targets, weights=weights)
        return jax.value_and_grad(of, has_aux=True)(params)

    (value, after), slope = step(variables["params"], TARGETS, weights)
    jax.tree.map(np.testing.assert_array_equal, after, variables["batch_stats"])
    unused = {
        jax.tree_util.keystr(path)
        for path, x in jax.tree_util.tree_leaves_with_path(slope)
        if not np.any(x)
    }
    assert all("global" in path for path in unused), unused  # of the last block
    unknown = np.where(weights > 0, TARGETS, np.nan)
    (same, _), _ = step(variables["params"], unknown, weights)
    assert (
        same
        == step(variables["params"], np.where(weights > 0, TARGETS, 0), weights)[0][0]
    )
    assert np.isfinite(value)


def test_weights_of_codes_are_means_over_their_cells():
    model = make(factor=4)
    weights = RANDOM.uniform(size=(1, 3, 6, 8, 1)).astype(np.float32)
    have = model._per_code(weights)
    assert have.shape == (1, 3, 2, 2)
    np.testing.assert_allclose(
        have[0, 1, 0, 1], weights[0, 1, :4, 4:].mean(), rtol=1e-5
    )
    np.testing.assert_allclose(
        have[0, 2, 1, 0], weights[0, 2, 4:, :4].mean(), rtol=1e-5
    )
    np.testing.assert_allclose(model._per_code(np.float32(2)), 2)


def test_low_precision_and_recomputation_can_be_traced():
    """In forecasts, samples, training, and under vmap."""
    model = make(dtype="bfloat16", remat=2)
    variables = jax.eval_shape(model.init, jax.random.key(0), INPUTS)
    shape = jax.eval_shape
    forecast = shape(model.apply, variables, INPUTS)
    assert forecast.dtype == jnp.float32 and forecast.shape == TARGETS.shape
    samples = functools.partial(model.apply, size=9, method="members")
    assert shape(samples, variables, INPUTS).shape == (9, *TARGETS.shape)
    slopes = shape(
        lambda v: jax.grad(loss(model, v, targets=TARGETS), has_aux=True)(v["params"]),
        variables,
    )
    assert jax.tree.structure(slopes[0]) == jax.tree.structure(variables["params"])
    one_by_one = jax.vmap(lambda v, x: model.apply(v, x[None])[0], (None, 0))
    assert shape(one_by_one, variables, INPUTS).shape == TARGETS.shape


def test_export():
    model = make()
    variables = jax.eval_shape(model.init, jax.random.key(0), INPUTS)
    (b,) = jax.export.symbolic_shape("b")
    inputs = jax.ShapeDtypeStruct((b, *SHAPES[0]), jnp.float32)
    exported = jax.export.export(jax.jit(model.apply))(variables, inputs)
    assert exported.out_avals[0].shape[1:] == SHAPES[1]


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(top_k=7), "top_k=7: expected at most codebook_size=6"),
        (dict(padding="nearest"), "padding='nearest': expected 'ignore' or"),
        (dict(dec_depth=(1, 1)), "need one entry per level"),
        (dict(num_heads=3), "num_heads must divide the channels"),
        (dict(temperature=0.0), "temperature=0.0: expected a number greater than 0"),
        (dict(dec_self_pattern="axal"), "dec_self_pattern='axal': unknown"),
        (dict(dec_cross_pattern="axial"), "dec_cross_pattern='axial': unknown"),
        (
            dict(tokenizer_options=dict(factor=2)),
            "tokenizer_options: the VQ-VAE has no option factor; expected some of",
        ),
        (
            dict(tokenizer_options=dict(blocks=-1)),
            "tokenizer_options: blocks=-1: expected",
        ),
        (dict(noise=8), "noise=8: model 'earthformer_ar' draws its members"),
        (dict(noise_seed=8), "noise_seed=8 is for a model with noise"),
        (dict(ensemble=2), "ensemble=2: model 'earthformer_ar' draws its members"),
        (dict(base="persistence"), "base='persistence': model .* forecasts codes"),
    ],
)
def test_options_that_cannot_work(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_targets_that_do_not_fit():
    with pytest.raises(ValueError, match="need all channels of the targets"):
        create_model("earthformer_ar", SHAPES[1], (3, 6, 8, 2), **SMALL)
    model = make()
    variables = jax.eval_shape(model.init, jax.random.key(0), INPUTS)
    with pytest.raises(ValueError, match="targets=None: expected the true frames"):
        jax.eval_shape(functools.partial(model.apply, train=True), variables, INPUTS)
