"""Rainformer: the PyTorch original's numbers, the paper's counts, sizes, refusals."""

import functools
import re

import chex
import einops
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.interop import torch_rainformer
from earthformer_jax.models.rainformer.model import Rainformer
from tests import golden_files

SMALL = dict(features=4, factors=(2,), heads=(2,), head_dim=3, window=2)
DEEPER = dict(factors=(1, 2), heads=(1, 2))
ENSO = dict(factors=(1, 2, 2, 2), window=3)
SEVIR = dict(features=64, heads=(3, 6, 12, 24), head_dim=8, window=12)
NET = dict(features=4, heads=(1, 1, 2, 2), head_dim=4, window=2)


@functools.cache
def make(input_shape=(3, 8, 12, 2), target_shape=(2, 8, 12, 1), **options):
    """A model, variables of which none is zero, and inputs."""
    model = Rainformer(input_shape, target_shape, **SMALL | options)
    draw = np.random.default_rng(0).normal
    x = jnp.asarray(draw(size=(2, *input_shape)), "float32")
    template = jax.eval_shape(model.init, jax.random.key(0), x)

    def fill(path, leaf):
        fan_in = np.prod(leaf.shape[:-1]) if leaf.ndim in (2, 4) else 16
        around = str(path[-1].key) in ("scale", "var")
        return jnp.asarray(around + draw(size=leaf.shape) / np.sqrt(fan_in), leaf.dtype)

    return model, jax.tree_util.tree_map_with_path(fill, template), x


forecaster = functools.cache(lambda model: jax.jit(model.apply))


def sizes(model):
    x = jax.ShapeDtypeStruct((1, *model.input_shape), jnp.float32)
    v = jax.eval_shape(model.init, jax.random.key(0), x)
    return {
        k: sum(np.prod(a.shape, dtype=int) for a in jax.tree.leaves(v[k])) for k in v
    }


def largest(have, want):
    """Largest difference where both are known, relative to the largest value."""
    have, want = ([np.asarray(a) for a in jax.tree.leaves(t)] for t in (have, want))
    pairs = [(h, w, np.isfinite(w)) for h, w in zip(have, want, strict=True)]
    scale = max(np.abs(np.where(known, w, 0)).max() for _, w, known in pairs)
    return max(np.abs(np.where(k, h - w, 0)).max() for h, w, k in pairs) / scale


def original(dtype):
    """The original's model and variables, inputs, outputs and the stored arrays."""
    data = golden_files.load("baselines/rainformer_net_eval")
    x, want = (data[k][..., None] for k in ("input/x", "output/y"))
    model = Rainformer(x.shape[1:], want.shape[1:], **NET, param_dtype=dtype)
    v = torch_rainformer.rainformer_variables(golden_files.group(data, "param"), model)
    return model, v, jnp.asarray(x, dtype), want, data


@pytest.mark.slow
def test_the_original(record_property):
    """All but a few pixels: the next test compares all of them in float64.

    The head has two channels here, and a norm over two values makes +-1 of almost any
    difference: where that is small, float32 does not give five digits.
    """
    model, v, x, want, _ = original("float32")
    errors = np.abs(forecaster(model)(v, x) - want) / np.abs(want).max()
    share = np.mean(errors < 1e-5)
    record_property("share of Rainformer outputs within 1e-5", float(share))
    assert share > 0.98
    assert errors.max() < 1e-2


@pytest.mark.slow
def test_the_original_in_float64(record_property):
    """The stored gradients are those of small arrays."""
    with jax.enable_x64(True):
        model, v, x, want, data = original("float64")
        cotangent = jnp.asarray(data["cotangent/y"][..., None], "float64")

        @jax.jit
        def compute(params, x):
            y, pull = jax.vjp(
                lambda p, x: model.apply({**v, "params": p}, x), params, x
            )
            return y, pull(cotangent)

        y, (grads, at_inputs) = compute(v["params"], x)
        error = largest(y, want)
        record_property("golden Rainformer float64 output error", float(error))
        assert error < 1e-5
        stored = golden_files.gradients(
            lambda x: torch_rainformer.rainformer_variables(x, model)["params"],
            golden_files.group(data, "param"),
            golden_files.group(data, "grad/param"),
        )
        error = largest((grads, at_inputs), (stored, data["grad/input/x"][..., None]))
        record_property("golden Rainformer float64 gradient error", float(error))
        assert error < 1e-4


@pytest.mark.parametrize(
    ("options", "frames", "plane", "learned", "stored"),
    [
        ({}, (10, 10), (64, 64), 19_189_008, 19_193_104),
        (ENSO, (12, 14), (24, 48), 19_177_396, 19_178_692),
        (SEVIR, (13, 12), (384, 384), 183_620_992, 183_952_768),
    ],
)
def test_parameters_of_the_paper(options, frames, plane, learned, stored):
    """The reference stores two attention masks per stage among its parameters."""
    shapes = [(f, *plane, 1) for f in frames]
    model = Rainformer(*shapes, **options)
    assert sizes(model)["params"] == learned
    assert learned + 8 * 2 * model.window**4 == stored


def test_parameters_of_the_original_work():
    """KNMI radar, 9 frames to 9: 187.66 M with the masks."""
    shape = (9, 288, 288, 1)
    options = dict(features=96, factors=(4, 2, 2, 2), heads=(3, 6, 12, 24))
    model = Rainformer(shape, shape, **options, head_dim=32, window=9)
    assert sizes(model)["params"] + 16 * 9**4 == 187_661_990
    fewer = model.clone(upstream_dead_params=False)
    assert 0.5 < sizes(fewer)["params"] / sizes(model)["params"] < 0.75


def test_forecast():
    model, v, x = make()
    forecast = forecaster(model)(v, x)
    chex.assert_shape(forecast, (2, 2, 8, 12, 1))
    assert forecast.dtype == jnp.float32
    other_way = forecaster(model)(v, x[::-1])
    np.testing.assert_allclose(other_way[::-1], forecast, rtol=1e-4, atol=1e-5)


def test_training_keeps_statistics():
    """A batch normalises itself; its statistics are then used for forecasts."""
    model, v, x = make()
    run = jax.jit(functools.partial(model.apply, train=True, mutable="batch_stats"))
    first, after = run(v, x)
    again, _ = run({**v, **after}, x)
    np.testing.assert_array_equal(first, again)
    moved = jax.tree.map(
        lambda a, b: bool(jnp.any(a != b)), v["batch_stats"], after["batch_stats"]
    )
    assert all(jax.tree.leaves(moved))
    plain = forecaster(model)
    assert not np.allclose(plain(v, x), plain({**v, **after}, x))


@pytest.mark.slow
def test_every_parameter_learns_but_the_dead_ones():
    """In training; a convolution's bias in front of batch normalisation cancels."""
    model, v, x = make(target_shape=(4, 8, 12, 1), **DEEPER)

    @jax.jit
    def gradient(params):
        y, pull = jax.vjp(
            lambda params: model.apply(
                {**v, "params": params}, x, train=True, mutable="batch_stats"
            )[0],
            params,
        )
        return pull(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))[0]

    def awake(path, leaf):
        """No hidden unit of the few in a channel attention is off."""
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return leaf + 4 * name.endswith("_hidden/bias")

    params = jax.tree_util.tree_map_with_path(awake, v["params"])
    still = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, g in jax.tree_util.tree_leaves_with_path(gradient(params))
        if not jnp.abs(g).max() > 1e-5
    }
    cancels = {s for s in still if re.search(r"/convs/conv_[12]/bias$", s)}
    assert still - cancels == {
        f"{unit}/fusion/dead_{i}/{leaf}"
        for unit in ("encoder_0", "encoder_1", "decoder_0", "head")
        for i in (1, 2)
        for leaf in ("conv/kernel", "conv/bias", "norm/scale", "norm/bias")
    }


def test_any_size():
    """Where patches and windows do not fit, zeros are added behind and cut off."""
    h, w = 7, 9
    model, v, x = make((3, h, w, 1), (2, h, w, 3))
    forecast = forecaster(model)(v, x)
    chex.assert_shape(forecast, (2, 2, h, w, 3))
    larger = Rainformer((3, 8, 12, 1), (2, 8, 12, 3), **SMALL)
    grown = jnp.pad(x, ((0, 0), (0, 0), (0, 8 - h), (0, 12 - w), (0, 0)))
    want = forecaster(larger)(v, grown)[:, :, :h, :w]
    np.testing.assert_allclose(forecast, want, atol=1e-5)


def test_frames_and_channels_are_one_axis():
    """Two channels of three frames are six frames of one channel; so are forecasts."""
    model, v, x = make((3, 8, 12, 2), (2, 8, 12, 2))
    flat = Rainformer((6, 8, 12, 1), (4, 8, 12, 1), **SMALL)
    y = forecaster(flat)(v, einops.rearrange(x, "b t h w c -> b (t c) h w 1"))
    np.testing.assert_allclose(
        einops.rearrange(y, "b (t c) h w 1 -> b t h w c", c=2),
        forecaster(model)(v, x),
        rtol=1e-5,
        atol=1e-5,
    )


def test_export_for_any_batch():
    model, v, x = make()
    (b,) = jax.export.symbolic_shape("b")
    shape = jax.ShapeDtypeStruct((b, *x.shape[1:]), x.dtype)
    artifact = jax.export.export(jax.jit(lambda x: model.apply(v, x)))(shape)
    np.testing.assert_allclose(artifact.call(x), forecaster(model)(v, x), atol=1e-5)


@pytest.mark.slow
def test_bfloat16_keeps_float32_parameters_and_forecasts():
    model, v, x = make()
    low = model.clone(dtype=jnp.bfloat16)
    train = dict(train=True, mutable="batch_stats")
    forecast, after = jax.jit(functools.partial(low.apply, **train))(v, x)
    assert forecast.dtype == jnp.float32
    assert {a.dtype for a in jax.tree.leaves(after)} == {jnp.dtype("float32")}
    want, _ = jax.jit(functools.partial(model.apply, **train))(v, x)
    assert np.abs(forecast - want).mean() < 0.03 * np.abs(want).max()


@pytest.mark.usefixtures("without_native")
def test_more_frames_make_no_longer_program():
    """Frames are channels: 10 to 10 and 20 to 20 are the same operations, but for a
    few where the head has less than 16 channels."""

    def lines(frames):
        shape = (frames, 8, 8, 1)
        model = Rainformer(shape, shape, **SMALL)
        x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        v = jax.eval_shape(model.init, jax.random.key(0), x)
        return forecaster(model).lower(v, x).as_text().count("\n")

    assert lines(16) == lines(20)
    assert lines(20) <= 1.01 * lines(10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(target_shape=(2, 8, 8, 1)), "the same height and width"),
        (dict(input_shape=(3, 8, 12)), "input_shape=.*: expected four whole numbers"),
        (dict(factors=()), r"factors=\(\): expected"),
        (dict(factors=(0,)), r"factors=.*: expected"),
        (dict(heads=(1, 2, 3)), r"heads needs one .* like factors \(2,\); got"),
        (dict(heads=(0,)), r"heads=.*: expected"),
        (dict(window=1), "window=1: expected"),
        (dict(head_dim=0), "head_dim=0: expected"),
        (dict(features=3), r"factors\[0\]=2: the decoder expands 3 channels"),
        (
            DEEPER | dict(factors=(3, 2)),
            r"factors\[0\]=3: the decoder expands 8 channels",
        ),
    ],
)
def test_refused_options(options, message):
    shapes = dict(input_shape=(3, 8, 12, 1), target_shape=(2, 8, 12, 1))
    with pytest.raises(ValueError, match=message):
        Rainformer(**shapes | SMALL | options).check()


def test_refused_inputs():
    model, v, x = make()
    with pytest.raises(ValueError, match=r"got \(2, 3, 8, 12, 1\)"):
        model.apply(v, x[..., :1])
