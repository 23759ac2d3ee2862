"""Captured attention: its weights make the layer's output, on the cells they name."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax import models
from earthformer_jax.models import earthformer
from earthformer_jax.models.earthformer import cuboid_attention as lib
from earthformer_jax.models.earthformer import projections
from earthformer_jax.models.earthformer.captured import Captured
from earthformer_jax.models.earthformer.options import AttentionOptions
from earthformer_jax.ops.cuboid import CuboidSpec
from earthformer_jax.ops.patterns import CrossSpec

GRID, HEADS, WIDTH = (3, 4, 5), 2, 8
CUTS = {
    "local": CuboidSpec((2, 2, 3)),
    "dilated": CuboidSpec((2, 2, 2), "ddd"),
    "mixed": CuboidSpec((3, 2, 2), "ldl", shift=(0, 0, 1)),
    "shifted": CuboidSpec((2, 2, 2), shift=(1, 1, 1)),
}
WINDOWS = {
    "local": CrossSpec((2, 2), n_temporal=2),
    "dilated": CrossSpec((2, 2), "ddd"),
    "shifted": CrossSpec((2, 2), shift=(1, 1)),
}
QUERIES = ((0, 0, 0), (1, 2, 4), (2, 3, 1))
PADDINGS = ("zeros", "ignore", "nearest")
INPUT, TARGET = (3, 8, 8, 2), (2, 8, 8, 1)
SMALL = dict(
    base_units=16,
    block_units=(16, 16),
    num_heads=HEADS,
    enc_depth=(2, 1),
    dec_depth=(1, 2),
    enc_pattern="axial,full",
    dec_self_pattern="full",
    stem_conv_layers=1,
    num_global_vectors=3,
)


def numbers(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def variables_of(layer, *arguments):
    """Random ones, of which none is zero or one: uneven weights, made in no time."""
    shapes = jax.eval_shape(layer.init, jax.random.key(0), *arguments)
    random = np.random.default_rng(0)
    return jax.tree.map(lambda x: 0.5 * random.normal(size=x.shape).astype("f"), shapes)


def run(layer, *arguments, compiled=True):
    """Parameters, output and what a layer shows of itself."""
    variables = variables_of(layer, *arguments)
    apply = functools.partial(layer.apply, mutable="intermediates")
    out, found = (jax.jit(apply) if compiled else apply)(variables, *arguments)
    (weights,) = found["intermediates"]["attention"]
    return variables["params"], out, Captured(None, {"layer": weights}, (), ())


def seen(captured, query, values):
    """`[c]`: what the heads add up for a cell, from values `[t, h, w, c]`."""
    maps = [
        earthformer.attention_map(captured, "layer", query, head=a)
        for a in range(HEADS)
    ]
    parts = np.split(np.asarray(values), HEADS, axis=-1)
    pairs = zip(maps, parts, strict=True)
    return np.concatenate([np.einsum("thw,thwd->d", m, v) for m, v in pairs])


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("cut", CUTS)
def test_maps_of_self_attention_make_its_output(cut, padding):
    options = AttentionOptions(HEADS, padding=padding, use_final_proj=False)
    layer = lib.CuboidSelfAttention(options, CUTS[cut])
    x = numbers(1, *GRID, WIDTH)
    params, (out, _), captured = run(layer, x)
    normed = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)
    normed = normed * params["norm"]["scale"] + params["norm"]["bias"]
    values = normed[0] @ params["qkv"]["kernel"][:, 2 * WIDTH :]
    for query in QUERIES:
        have = seen(captured, query, values)
        np.testing.assert_allclose(have, out[0][query], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("windows", WINDOWS)
def test_maps_of_cross_attention_make_its_output(windows, padding):
    options = AttentionOptions(HEADS, padding=padding)
    layer = lib.CuboidCrossAttention(options, WINDOWS[windows], 20, last_n_frames=3)
    memory = numbers(1, 5, *GRID[1:], WIDTH, seed=1)
    params, out, captured = run(layer, numbers(1, *GRID, WIDTH), memory)
    values = memory[0, -3:] @ params["kv_proj"]["kernel"][:, WIDTH:]
    for query in QUERIES:
        have = seen(captured, query, values) @ params["proj"]["kernel"]
        have += params["proj"]["bias"]
        np.testing.assert_allclose(have, out[0][query], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("without_native")  # functions of JAX are watched
@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("kind", ["self", "cross"])
def test_weights_with_global_vectors(monkeypatch, kind, separate):
    """They sum to 1, are 0 where masked, and with the values make the output."""
    calls = {}

    def watched(module, name):
        function = getattr(module, name)

        def call(**arguments):
            calls[name] = arguments, function(**arguments)
            return calls[name][1]

        monkeypatch.setattr(module, name, call)

    watched(lib.attention, "attend")
    watched(lib.global_attention, "attend_global")
    options = AttentionOptions(
        HEADS, padding="ignore", separate_global_qkv=separate, qkv_bias=True
    )
    x, g = numbers(2, *GRID, WIDTH), numbers(2, 3, WIDTH, seed=2)
    if kind == "self":
        layer = lib.CuboidSelfAttention(options, CUTS["shifted"])
        _, _, captured = run(layer, x, g, compiled=False)
    else:
        layer = lib.CuboidCrossAttention(options, WINDOWS["shifted"], 20)
        memory = numbers(2, *GRID, WIDTH, seed=1)
        _, _, captured = run(layer, x, memory, g, compiled=False)
    found = captured.attention["layer"]
    arguments, out = calls["attend"]
    total = found.weights.sum(-1) + found.to_global.sum(-1)
    np.testing.assert_allclose(total, 1, rtol=1e-5)
    forbidden = np.broadcast_to(~arguments["mask"][:, None], found.weights.shape)
    assert np.all(np.asarray(found.weights)[forbidden] == 0)
    have = jnp.einsum("bnaqs,bnsad->bnqad", found.weights, arguments["value"])
    have += jnp.einsum("bnaqg,bgad->bnqad", found.to_global, arguments["global_value"])
    np.testing.assert_allclose(have, out, rtol=1e-4, atol=1e-5)
    if kind == "cross":
        assert found.of_global is None
        return
    arguments, out = calls["attend_global"]
    total = found.of_global.sum((-1, -2)) + found.among_global.sum(-1)
    np.testing.assert_allclose(total, 1, rtol=1e-5)
    have = jnp.einsum("bagns,bnsad->bgad", found.of_global, arguments["value"])
    own = arguments["global_value"]
    have += jnp.einsum("bagm,bmad->bgad", found.among_global, own)
    np.testing.assert_allclose(have, out, rtol=1e-4, atol=1e-5)
    shown = earthformer.global_map(captured, "layer", 1, example=1, head=0)
    want = found.of_global[1, 0, 1].sum()
    np.testing.assert_allclose(shown.sum(), want, rtol=1e-5)


def make(**options):
    return models.create_model("earthformer", INPUT, TARGET, **SMALL | options)


@pytest.fixture(scope="module")
def inputs():
    return numbers(2, *INPUT)


@pytest.fixture(scope="module")
def variables(inputs):
    return variables_of(make(), inputs)


@pytest.fixture(scope="module")
def captured(variables, inputs):
    return earthformer.inspect(make(scan_blocks=True, remat=2), variables, inputs)


def test_inspecting_a_model(captured, variables, inputs):
    want = jax.jit(make().apply)(variables, inputs)
    np.testing.assert_allclose(captured.forecast, want, rtol=1e-4, atol=1e-5)
    encoder = [f"encoder/block_0_{k}/attention_{i}" for k in (0, 1) for i in range(3)]
    decoder = ("cross_1_0", "self_1_0", "cross_1_1", "self_0_0", "cross_0_0")
    assert list(captured.attention) == [
        *encoder,
        "encoder/block_1_0/attention_0",
        *(f"decoder/{name}/attention_0" for name in decoder),
    ]
    grids = make().memory_grids
    assert [x.shape for x in captured.memories] == [(2, *grid, 16) for grid in grids]
    assert [g.shape for g in captured.global_vectors] == [(2, 3, 16), (2, 3, 16)]
    cross = captured.attention["decoder/cross_1_0/attention_0"]
    assert (cross.queries.grid, cross.keys.grid) == ((2, 2, 2), grids[1])


def test_map_through_several_layers(captured):
    """An axial block reaches every cell; its map is the product of the matrices."""
    layers = [f"encoder/block_0_0/attention_{i}" for i in range(3)]
    query = (2, 1, 3)
    have = earthformer.attention_map(captured, layers, query, example=1)
    t, h, w = (captured.attention[name].weights[1].mean(1) for name in layers)
    want = np.zeros((3, 4, 4))
    # Cuboids of one axis are numbered by the other two, in raster order.
    for k in range(4):
        for j in range(4):
            along_w = w[2 * 4 + 1, 3, k]
            along_h = h[2 * 4 + k, 1, j]
            want[:, j, k] += along_w * along_h * t[j * 4 + k, 2]
    np.testing.assert_allclose(have, want, rtol=1e-4)


def test_refusals(captured):
    layers = list(captured.attention)
    with pytest.raises(ValueError, match="there are encoder/block_0_0/attention_0"):
        earthformer.attention_map(captured, "encoder", (0, 0, 0))
    with pytest.raises(ValueError, match=r"outside the grid \(3, 4, 4\)"):
        earthformer.attention_map(captured, layers[0], (0, 4, 0))
    pair = "encoder/block_0_0/attention_0", "encoder/block_1_0/attention_0"
    with pytest.raises(ValueError, match="the layer after it on"):
        earthformer.attention_map(captured, pair, (0, 0, 0))
    with pytest.raises(ValueError, match="does not update global vectors"):
        earthformer.global_map(captured, layers[-1], 0)


def test_nothing_is_computed_unless_asked_for(monkeypatch, variables, inputs):
    def program(**options):
        return str(
            jax.make_jaxpr(lambda x: model.apply(variables, x, **options))(inputs)
        )

    def refuse(*_):
        raise AssertionError("weights were computed")

    model = make()
    before, asked = program(), program(mutable="intermediates")
    assert asked.count("= exp") > before.count("= exp")
    monkeypatch.setattr(projections, "record", refuse)
    assert program() == before
    with pytest.raises(AssertionError, match="weights were computed"):
        program(mutable="intermediates")
    monkeypatch.setattr(projections.Projections, "_sow_weights", lambda *_: None)
    assert program() == before
