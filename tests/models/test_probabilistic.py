"""Noise in the norms of a network: equal at first, keyed by the window, refusals."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from earthformer_jax.layers.batch_norm import BatchNorm
from earthformer_jax.layers.dropout import Dropout
from earthformer_jax.layers.frames import each_frame
from earthformer_jax.layers.norm import GroupNorm, LayerNorm
from earthformer_jax.models import RESTORERS, contract, create_model, names
from earthformer_jax.models.earthformer.model import Earthformer
from earthformer_jax.models.ensemble import Ensemble
from earthformer_jax.models.hybrid import Hybrid, network_of
from earthformer_jax.models.probabilistic import (
    NoiseOptions,
    Probabilistic,
    _modulation,
    modulated,
)
from earthformer_jax.run.recipes import SMALL

SHAPE = (2, 4, 4, 1)
WITHOUT = ("persistence", "earthformer_ar", *RESTORERS)
NETWORKS = [name for name in names() if name not in WITHOUT]
# Two blocks per level, so that a loop over them would be possible.
EARTHFORMER = dict(base_units=16, num_heads=2, enc_depth=(2,), dec_depth=(2,))
EARTHFORMER |= dict(num_global_vectors=2, stem_scale=(1, 2, 2))
ONE_BLOCK = EARTHFORMER | dict(enc_depth=(1,), dec_depth=(1,))
SMALLEST = SMALL["test"] | {
    "earthformer": ONE_BLOCK,
    "rainformer": dict(features=8, factors=(2,), heads=(1,), head_dim=2, window=2),
}


class Toy(nn.Module):
    """Norms of every kind: bound, in a loop, recomputed, of a batch, of frames."""

    input_shape: tuple = SHAPE
    target_shape: tuple = SHAPE

    def check(self):
        pass

    @nn.compact
    def __call__(self, inputs, *, train=False):
        x = nn.Dense(6, name="wide")(inputs)
        x = LayerNorm(name="bound").bind_weights(6)(x)
        x = BatchNorm(name="of_batch")(x, train=train)
        x = Dropout(0.5, train)(x)
        group = nn.GroupNorm(num_groups=2, name="of_frames")
        x = each_frame(group, x)
        x = x + nn.remat(lambda layer, y: layer(y))(nn.LayerNorm(name="again"), x)
        loop = nn.scan(
            lambda layer, y, _: (y + layer(y), None),
            variable_broadcast="params",
            split_rngs={"params": False},
            length=2,
        )
        x, _ = loop(nn.LayerNorm(name="in_loop"), x, None)
        return nn.Dense(1, name="head")(x)


class Decoding(nn.Module):
    """An encoder of 7 channels, a decoder with a norm."""

    input_shape: tuple = SHAPE
    target_shape: tuple = SHAPE

    @nn.compact
    def __call__(self, inputs, *, train=False):
        x = LayerNorm(name="norm")(nn.Dense(7, name="encoder")(inputs))
        x = LayerNorm(name="decoder_norm")(nn.Dense(5)(x))
        return nn.Dense(1)(x)


def probabilistic(network, **options):
    options = NoiseOptions(**(dict(noise=3, noise_in="all", members=4) | options))
    return Probabilistic(SHAPE, SHAPE, network, options)


def inputs_of(examples, shape=SHAPE):
    rng = np.random.default_rng(0)
    return rng.normal(size=(examples, *shape)).astype(np.float32)


def initial(model, shape=SHAPE):
    """Random variables of the network, and what else there is as it begins."""
    rng = np.random.default_rng(0)
    inputs = jax.ShapeDtypeStruct((1, *shape), np.float32)
    like = jax.eval_shape(model.init, jax.random.key(0), inputs)
    made = jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(x.dtype), like)
    stats = made["batch_stats"]
    if "network" in stats:
        stats["network"] = jax.tree.map(lambda x: np.abs(x) + 0.5, stats["network"])
    stats["spread"] = np.ones_like(stats["spread"])
    noise = made["params"]["noise"]
    made["params"]["noise"] = jax.tree.map(np.zeros_like, noise)
    return made


def noisy(variables):
    """The same with random noise layers."""
    rng = np.random.default_rng(1)
    layers = jax.tree.map(
        lambda x: rng.normal(0, 0.3, x.shape).astype(x.dtype),
        variables["params"]["noise"],
    )
    return {**variables, "params": {**variables["params"], "noise": layers}}


def alone(variables):
    """The variables of the network."""
    return {kind: x["network"] for kind, x in variables.items() if "network" in x}


@functools.partial(jax.jit, static_argnums=(0, 3))
def _members(model, variables, inputs, size):
    return model.apply(variables, inputs, size, method="members")


def members(model, variables, inputs, size):
    return np.asarray(_members(model, variables, inputs, size))


@functools.partial(jax.jit, static_argnums=0)
def _step(model, variables, inputs):
    rngs = {"dropout": jax.random.key(2), "sampling": jax.random.key(3)}
    kinds = ["batch_stats"]
    return model.apply(variables, inputs, train=True, rngs=rngs, mutable=kinds)


def step(model, variables, inputs):
    """Members in training, and the batch statistics after it."""
    out, changed = _step(model, variables, inputs)
    return np.asarray(out), changed["batch_stats"]


@functools.partial(jax.jit, static_argnums=0)
def forecast(model, variables, inputs):
    return model.apply(variables, inputs)


@pytest.fixture(scope="module")
def toy():
    model = probabilistic(Toy())
    return model, initial(model)


class TestWithoutTraining:
    def test_every_norm_has_a_layer(self, toy):
        model, variables = toy
        layers = variables["params"]["noise"]
        assert sorted(layers) == ["again", "bound", "in_loop", "of_batch", "of_frames"]
        assert {x.shape for x in layers.values()} == {(3, 2, 6)}
        assert not any(np.any(x) for x in layers.values())
        assert variables["batch_stats"]["spread"].shape == model.target_shape

    def test_it_is_its_network(self, toy):
        """All members are equal, and so is their mean."""
        model, variables = toy
        inputs = inputs_of(3)
        wanted = np.asarray(forecast(Toy(), alone(variables), inputs))
        drawn = members(model, variables, inputs, 4)
        np.testing.assert_array_equal(drawn, np.broadcast_to(drawn[0], drawn.shape))
        mean = forecast(model, variables, inputs)
        for found in (drawn[0], mean):
            np.testing.assert_allclose(found, wanted, atol=2e-6)

    def test_every_layer_has_an_effect(self, toy):
        model, variables = toy
        inputs = inputs_of(1)
        random = noisy(variables)["params"]["noise"]
        for name, layer in random.items():
            layers = {**variables["params"]["noise"], name: layer}
            changed = {**variables, "params": {**variables["params"], "noise": layers}}
            assert members(model, changed, inputs, 4).std(axis=0).min() > 0, name


class TestMembers:
    def test_a_window_has_the_same_in_every_batch(self, toy):
        """Frames that share an axis with the batch get the noise of their example."""
        model, variables = toy
        variables, inputs = noisy(variables), inputs_of(3)
        together = members(model, variables, inputs, 4)
        assert together.std(axis=0).min() > 1e-3
        single = members(model, variables, inputs[2:], 4)
        np.testing.assert_allclose(single, together[:, 2:], atol=1e-5)
        turned = members(model, variables, inputs[::-1], 4)
        np.testing.assert_allclose(turned[:, ::-1], together, atol=1e-5)

    def test_several_devices_draw_the_same(self, toy):
        model, variables = toy
        variables, inputs = noisy(variables), inputs_of(3)
        together = members(model, variables, inputs, 4)
        draw = functools.partial(model.apply, size=4, method="members")
        mapped = jax.pmap(draw, in_axes=(None, 0))(variables, inputs[:, None])
        each = np.asarray(mapped)[:, :, 0]
        np.testing.assert_allclose(each.swapaxes(0, 1), together, atol=1e-5)

    def test_fewer_are_the_first(self, toy):
        """Also of more than forecast side by side, and with a fitted spread."""
        model, variables = toy
        stats = {**variables["batch_stats"], "spread": np.full((2, 1, 1, 1), 1.5)}
        variables = noisy({**variables, "batch_stats": stats})
        inputs = inputs_of(3)
        many = members(model, variables, inputs, 11)
        for size in (1, 4):
            few = members(model, variables, inputs, size)
            np.testing.assert_allclose(few, many[:size], atol=1e-5)
        mean = forecast(model, variables, inputs)
        np.testing.assert_allclose(mean, many[:4].mean(axis=0), atol=1e-5)

    def test_spread(self, toy):
        """It changes the departures of each lead, not the forecast, nor training."""
        model, variables = toy
        variables, inputs = noisy(variables), inputs_of(3)
        factors = np.float32([1, 2]).reshape(2, 1, 1, 1)
        stats = {**variables["batch_stats"], "spread": factors}
        wider = {**variables, "batch_stats": stats}
        before, after = (members(model, v, inputs, 4) for v in (variables, wider))
        mean = before.mean(axis=0)
        np.testing.assert_allclose(after.mean(axis=0), mean, atol=1e-5)
        np.testing.assert_allclose(after - mean, factors * (before - mean), atol=1e-5)
        learned = [step(model, v, inputs)[0] for v in (variables, wider)]
        np.testing.assert_array_equal(*learned)

    def test_another_seed(self, toy):
        model, variables = toy
        other = model.clone(options=dataclasses.replace(model.options, noise_seed=1))
        programs = {
            str(
                jax.make_jaxpr(lambda v, x, m=m: m.apply(v, x))(variables, inputs_of(1))
            )
            for m in (model, other)
        }
        assert len(programs) == 2


class TestTraining:
    def test_members_share_dropout(self, toy):
        """Without noise they are equal; with it they differ, and so do examples."""
        model, variables = toy
        inputs = np.repeat(inputs_of(1), 3, axis=0)
        equal, _ = step(model, variables, inputs)
        assert equal.shape == (2, 3, *SHAPE)
        np.testing.assert_array_equal(equal[0], equal[1])
        assert np.abs(equal[0, 0] - equal[0, 1]).max() > 0
        different, _ = step(model, noisy(variables), inputs)
        assert np.abs(different[0] - different[1]).min() > 0

    def test_running_statistics_are_the_mean_of_the_members(self, toy):
        model, variables = toy
        variables, inputs = noisy(variables), inputs_of(3)
        _, after = step(model, variables, inputs)
        before = variables["batch_stats"]
        assert jax.tree.structure(after) == jax.tree.structure(before)
        np.testing.assert_array_equal(after["spread"], before["spread"])
        norm = after["network"]["of_batch"]
        assert norm["mean"].shape == (6,)
        assert np.abs(norm["mean"] - before["network"]["of_batch"]["mean"]).min() > 0

    def test_every_layer_learns(self, toy):
        model, variables = toy

        def loss(params, inputs):
            out, _ = _step(model, {**variables, "params": params}, inputs)
            return jnp.square(out).sum()

        gradient = jax.jit(jax.grad(loss))(variables["params"], inputs_of(3))
        for name, layer in gradient["noise"].items():
            assert np.abs(layer).max() > 0, name


def test_what_lies_before_the_noise_is_computed_once():
    model = probabilistic(Decoding(), noise_in="decoder")
    variables = initial(model)
    assert list(variables["params"]["noise"]) == ["decoder_norm"]
    program = jax.make_jaxpr(lambda v, x: model.apply(v, x, 5, method="members"))(
        variables, inputs_of(3)
    )
    shapes = set(re.findall(r"f32\[([\d,]+)\]", str(program)))
    assert "3,2,4,4,7" in shapes and "5,3,2,4,4,7" not in shapes
    assert "5,3,2,4,4,5" in shapes


@pytest.mark.parametrize("time_first", [False, True])
def test_frames_that_share_an_axis_with_the_batch(time_first):
    """Each frame gets the scale and shift of its example."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=(2, 3, 4, 4, 5)).astype(np.float32)  # b t h w c
    change = tuple(rng.normal(size=(2, 2, 5)).astype(np.float32))
    scale, shift = (x[:, None, None, None] for x in change)
    wanted = y * (1 + scale) + shift
    np.testing.assert_allclose(modulated(y, change, False), wanted, rtol=1e-6)
    axes = (1, 0, 2, 3, 4) if time_first else (0, 1, 2, 3, 4)
    flat, wanted = (x.transpose(axes).reshape(6, 4, 4, 5) for x in (y, wanted))
    np.testing.assert_allclose(modulated(flat, change, time_first), wanted, rtol=1e-6)


def test_types_of_the_network_are_kept():
    y = jnp.ones((1, 2, 3), jnp.bfloat16)
    assert modulated(y, (jnp.zeros((1, 3)),) * 2, False).dtype == jnp.bfloat16


class TestZoo:
    def test_contract(self):
        model = create_model("unet", SHAPE, SHAPE, base="persistence", noise=32)
        assert isinstance(model, Probabilistic) and isinstance(model.network, Hybrid)
        assert contract.draws(model) and not contract.uses_targets(model)
        assert network_of(model) is model.network.network
        assert not contract.draws(model.network)
        assert not contract.draws(Ensemble(SHAPE, SHAPE, model.network, 2))

    def test_blocks_are_not_a_loop(self):
        """They differ in their noise; their parameters do not depend on it."""
        options = EARTHFORMER | dict(scan_blocks=True)
        model = create_model("earthformer", SHAPE, SHAPE, **options, noise=4)
        assert isinstance(model.network, Earthformer)
        assert model.network.scan_blocks is False

    @pytest.mark.parametrize("part", ["decoder", "all"])
    def test_norms_of_the_earthformer(self, part):
        shape = (2, 8, 8, 1)
        model = create_model(
            "earthformer", shape, shape, **EARTHFORMER, noise=4, noise_in=part
        )
        variables = jax.eval_shape(model.init, jax.random.key(0), inputs_of(1, shape))
        noise = variables["params"]["noise"]
        with_norm = {
            name for name, x in variables["params"]["network"].items() if _norms(x)
        }
        assert set(noise) == ({"decoder"} if part == "decoder" else with_norm)
        for name in noise:
            assert _norms(noise[name]) == _norms(variables["params"]["network"][name])

    def test_gradient_of_the_earthformer(self):
        """Its recomputed layers carry the noise of as many examples as there are."""
        shape = (2, 8, 8, 1)
        model = create_model("earthformer", shape, shape, **EARTHFORMER, noise=4)
        inputs = inputs_of(3, shape)
        variables = jax.eval_shape(model.init, jax.random.key(0), inputs)

        def loss(params, stats):
            out, _ = _step(model, {"params": params, "batch_stats": stats}, inputs)
            return out.sum()

        given = variables["params"], variables["batch_stats"]
        gradient = jax.eval_shape(jax.grad(loss), *given)
        assert jax.tree.structure(gradient) == jax.tree.structure(variables["params"])

    @pytest.mark.parametrize("name", ["conv_lstm", "predrnn", "fa_conv_lstm"])
    def test_convolutions_of_a_network_without_norms(self, name):
        shape = (2, 8, 8, 1)
        options = SMALL["test"][name]
        counts = {}
        for part in ("decoder", "all"):
            model = create_model(name, shape, shape, **options, noise=4, noise_in=part)
            inputs = inputs_of(1, shape)
            variables = jax.eval_shape(model.init, jax.random.key(0), inputs)
            counts[part] = len(jax.tree.leaves(variables["params"]["noise"]))
        assert counts["decoder"] == (counts["all"] + 1) // 2

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("name", "base"), [*((name, "") for name in NETWORKS), ("unet", "persistence")]
    )
    def test_every_network(self, name, base):
        """It begins as its network; members differ, and follow the inputs alone."""
        shape = (3, 8, 8, 1)
        options = SMALLEST[name] | dict(base=base)
        network = create_model(name, shape, shape, **options)
        model = create_model(
            name, shape, shape, **options, noise=4, noise_in="all", members=2
        )
        inputs = inputs_of(3, shape)
        variables = initial(model, shape)
        wanted = np.asarray(forecast(network, alone(variables), inputs))
        equal = members(model, variables, inputs, 2)
        np.testing.assert_allclose(equal, np.stack([wanted] * 2), atol=1e-5)
        variables = noisy(variables)
        drawn = members(model, variables, inputs, 2)
        assert drawn.std(axis=0).max() > 1e-3
        turned = members(model, variables, inputs[::-1], 2)
        np.testing.assert_allclose(turned[:, ::-1], drawn, atol=1e-4)
        out, _ = jax.eval_shape(functools.partial(_step, model), variables, inputs)
        assert out.shape == (2, 3, *shape) and out.dtype == np.float32

    @pytest.mark.slow
    @pytest.mark.parametrize("options", [dict(remat=2), dict(dtype="bfloat16")])
    def test_options_of_the_earthformer(self, options):
        """Recomputed blocks have the same noise; the output is float32."""
        shape = (2, 8, 8, 1)
        plain, other = (
            create_model(
                "earthformer", shape, shape, **ONE_BLOCK, **more, noise=4, members=2
            )
            for more in ({}, options)
        )
        variables, inputs = noisy(initial(plain, shape)), inputs_of(3, shape)
        wanted, found = (members(m, variables, inputs, 2) for m in (plain, other))
        assert found.dtype == np.float32
        tolerance = 0.1 if "dtype" in options else 1e-5
        np.testing.assert_allclose(found, wanted, atol=tolerance * wanted.std() + 1e-5)


def _norms(tree):
    """Names of the modules of a tree that are norms."""
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]
    return {
        tuple(str(key.key) for key in path if "norm" in str(key.key)) for path in paths
    } - {()}


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("persistence", dict(noise=4), "noise=4: .*nothing to learn; expected 0"),
        ("conv_autoencoder", dict(noise=4), "noise=4: .*makes no forecast"),
        ("vq_vae", dict(noise=4), "noise=4: .*makes no forecast"),
        ("earthformer_ar", dict(noise=4), "noise=4: .*probabilities of codes"),
        ("earthformer_ar", dict(members=4), "noise=0; expected members=16"),
        ("unet", dict(noise=-1), "noise=-1: expected a whole number"),
        ("unet", dict(noise=True), "noise=True: expected a whole number"),
        ("unet", dict(noise=4, noise_in="encoder"), "noise_in='encoder': expected"),
        ("unet", dict(noise=4, members=0), "members=0: expected"),
        ("unet", dict(noise=4, train_members=1), "train_members=1: expected .* 2"),
        ("unet", dict(noise=4, ensemble=3), "ensemble=3: .*noise=4.*ensemble=1"),
        ("unet", dict(members=50), "members=50 is .* expected noise=32"),
        ("unet", dict(noise_in="all"), "noise_in='all' is for a model with noise"),
    ],
)
def test_refusals(name, options, message):
    with pytest.raises(ValueError, match=message):
        create_model(name, SHAPE, SHAPE, **options)


def test_nothing_to_give_noise_to():
    class Plain(nn.Module):
        @nn.compact
        def __call__(self, inputs, *, train=False):
            return nn.Dense(1)(inputs)

    with pytest.raises(ValueError, match="norms or convolutions in the network"):
        initial(probabilistic(Plain()))


def test_no_members():
    model = probabilistic(Decoding())
    variables = jax.eval_shape(model.init, jax.random.key(0), inputs_of(1))
    with pytest.raises(ValueError, match="size=0: expected"):
        jax.eval_shape(
            lambda v: model.apply(v, inputs_of(1), 0, method="members"), variables
        )


class Activated(nn.Module):
    """A group norm and the leaky ReLU that is computed with it."""

    @nn.compact
    def __call__(self, x):
        return GroupNorm(2, name="norm")(x, slope=0.1)


def test_an_activation_comes_after_the_change():
    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(2, 3, 4, 6)), jnp.float32)
    change = tuple(jnp.asarray(random.normal(size=(2, 2, 6)), jnp.float32))
    layer = Activated()
    variables = layer.init(jax.random.key(0), x)
    with nn.intercept_methods(_modulation({("norm",): change}, False)):
        found = layer.apply(variables, x)
    params = {"params": variables["params"]["norm"]}
    wanted = nn.leaky_relu(modulated(GroupNorm(2).apply(params, x), change, False), 0.1)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
