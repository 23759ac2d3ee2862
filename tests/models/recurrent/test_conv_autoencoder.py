"""The autoencoder: shapes, what it depends on, what it refuses."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from earthformer_jax.models import create_model

SHAPE = (4, 5, 6, 2)
SMALL = dict(features=6, embedding=8, plane_features=2, hidden=0, heads=2, harmonics=2)


def make(channels=4, **options):
    inputs = (*SHAPE[:3], channels)
    return create_model("conv_autoencoder", inputs, SHAPE, **SMALL | options)


def draw(channels=4, seed=0):
    """Two examples; behind the fields, the season."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, *SHAPE[:3], channels)).astype(np.float32)
    angle = 0.3 + 0.02 * np.arange(SHAPE[0])
    x[..., 2::2] = np.cos(angle)[:, None, None, None]
    x[..., 3::2] = np.sin(angle)[:, None, None, None]
    return jnp.asarray(x)


@functools.cache
def fitted(**options):
    model = make(**options)
    return model, jax.jit(model.init)(jax.random.key(0), draw())


@functools.cache
def error_and_gradient():
    """Of parameters and inputs: the mean square error of what is restored."""

    def error(params, x):
        restored = fitted()[0].apply({"params": params}, x)
        return jnp.mean(jnp.square(restored - x[..., :2]))

    return jax.jit(jax.value_and_grad(error))


@functools.cache
def compiled(model, method="__call__"):
    return jax.jit(functools.partial(model.apply, method=method))


@pytest.mark.parametrize("cell", ["conv_lstm", "fa_conv_lstm"])
@pytest.mark.parametrize("strides", [(2,), (2, 2), (3,)])
def test_shapes(cell, strides):
    model = make(cell=cell, strides=strides)
    variables = jax.eval_shape(model.init, jax.random.key(0), draw())
    assert jax.eval_shape(model.apply, variables, draw()).shape == (2, *SHAPE)
    embed = functools.partial(model.apply, method="embed")
    assert jax.eval_shape(embed, variables, draw()).shape == (2, 4, 8)


@pytest.mark.slow
def test_embeddings_are_all_that_the_decoder_sees():
    model, variables = fitted()
    z = compiled(model, "embed")(variables, draw())
    restored = compiled(model, "decode")(variables, z)
    chex.assert_trees_all_close(restored, compiled(model)(variables, draw()), atol=1e-6)


@pytest.mark.slow
def test_the_calendar_is_read_as_the_season_alone():
    """Half a year later the same fields get other embeddings; a day's hour does not."""
    model, variables = fitted()
    later = draw().at[..., 2:].multiply(-1)
    embed = compiled(model, "embed")
    apart = embed(variables, later) - embed(variables, draw())
    assert jnp.abs(apart).max() > 0.1

    hourly = compiled(make(channels=6), "embed")
    x = draw(channels=6)
    want = hourly(variables, x)
    chex.assert_trees_all_equal(hourly(variables, x.at[..., 4:].set(0)), want)


@pytest.mark.slow
def test_without_calendar_there_is_no_season():
    """Steps that look the same, after states that are the same, embed the same."""
    model = make(channels=2, cell_options=dict(attention_every=0))
    x = draw(channels=2)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    zeros = compiled(model, "embed")(variables, 0 * x)
    chex.assert_trees_all_close(zeros[:, :1].repeat(4, axis=1), zeros, atol=1e-6)


@pytest.mark.slow
def test_every_parameter_learns():
    _, variables = fitted()
    # gamma, 0 at the start, holds back what lies before it in the attention.
    _, grads = error_and_gradient()(variables["params"], draw())
    flat = jax.tree_util.tree_flatten_with_path(grads)[0]
    still = [jax.tree_util.keystr(path) for path, g in flat if not jnp.any(g != 0)]
    assert all("attention" in path for path in still), still
    chex.assert_tree_all_finite(grads)


@pytest.mark.slow
def test_it_learns_to_restore():
    _, variables = fitted()
    x = draw()
    fields = x[..., :2].mean(axis=(2, 3), keepdims=True) * jnp.ones((1, 1, 5, 6, 1))
    x = x.at[..., :2].set(5 * fields)
    tx = optax.adam(1e-2)

    @jax.jit
    def changed(params, state, grads):
        updates, state = tx.update(grads, state)
        return optax.apply_updates(params, updates), state

    params, losses = variables["params"], []
    state = tx.init(params)
    for _ in range(60):
        value, grads = error_and_gradient()(params, x)
        params, state = changed(params, state, grads)
        losses.append(float(value))
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(cell="gru"), "cell must be one of"),
        (dict(strides=()), "strides=.*: expected"),
        (dict(strides=(2, 0)), "strides=.*: expected"),
        (dict(heads=3), "3 heads for an embedding of 8"),
        (dict(harmonics=5), "harmonics=5 needs an embedding of at least 10"),
        (dict(features=0), "features=.*: expected"),
        (dict(hidden=-1), "hidden=.*: expected"),
        (dict(cell_options=dict(dilation=2)), "has no option dilation"),
        (dict(channels=3), "out_len=0"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_targets_of_another_length_are_refused():
    with pytest.raises(ValueError, match="targets must be the input frames"):
        create_model("conv_autoencoder", (4, 5, 6, 2), (3, 5, 6, 2), **SMALL)


def test_inputs_of_another_shape_are_refused():
    model, variables = fitted()
    with pytest.raises(ValueError, match="inputs need shape"):
        model.apply(variables, draw()[:, :3])
