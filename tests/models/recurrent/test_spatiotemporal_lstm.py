"""Spatiotemporal LSTM: the PyTorch code's numbers, dependencies, modes."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.interop import torch_predrnn
from earthformer_jax.models.recurrent.spatiotemporal_lstm import (
    SpatiotemporalLSTM,
    SpatiotemporalLSTMCell,
    decoupling_term,
)
from tests import golden_files
from tests.variables import drawn

CELLS = [f"v{v}_layernorm{n}" for v in (1, 2) for n in (0, 1)]
MODELS = ["v1_model_rss0", "v2_model_rss0", "v2_model_rss1"]


def largest(have, want):
    """Largest difference relative to the largest value."""
    chex.assert_trees_all_equal_shapes(have, want)
    have, want = jax.tree.leaves(have), jax.tree.leaves(want)
    scale = max(np.abs(w).max() for w in want)
    return max(np.abs(h - w).max() for h, w in zip(have, want, strict=True)) / scale


def draw(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize("name", CELLS)
def test_the_cell_of_the_pytorch_code(name, record_property):
    data = golden_files.load(f"baselines/predrnn_cell_{name}")
    args = data["config"]["args"]
    cell = SpatiotemporalLSTMCell(
        args["num_hidden"], args["filter_size"], layer_norm=bool(args["layer_norm"])
    )
    params = torch_predrnn.cell_params(golden_files.group(data, "param"))

    def planes(group, names):
        return [np.moveaxis(data[f"{group}/{name}"], 1, -1) for name in names]

    inputs = planes("input", ("x_t", "h_t", "c_t", "m_t"))
    names = ["h_new", "c_new", "m_new"]
    if "output/delta_c" in data:
        names += ["delta_c", "delta_m"]

    @jax.jit
    def compute(params, inputs, cotangents):
        def forward(params, inputs):
            h, c, m, increments = cell.apply({"params": params}, *inputs)
            return [h, c, m, *increments][: len(cotangents)]

        y, pull = jax.vjp(forward, params, inputs)
        return y, pull(cotangents)

    y, (grads, input_grads) = compute(params, inputs, planes("cotangent", names))
    error = largest(y, planes("output", names))
    record_property("golden PredRNN cell output error", float(error))
    assert error < 1e-5
    stored = golden_files.group(data, "grad")
    want = torch_predrnn.cell_params(golden_files.group(stored, "param"))
    error = max(
        largest(grads, want),
        largest(input_grads, planes("grad/input", ("x_t", "h_t", "c_t", "m_t"))),
    )
    record_property("golden PredRNN cell gradient error", float(error))
    assert error < 1e-4


def golden_stack(name):
    """(data, layer, parameters, frames but the last one, where they are read)."""
    data = golden_files.load(f"baselines/predrnn_{name}")
    c = data["config"]
    stack = SpatiotemporalLSTM(
        channels=data["output/next_frames"].shape[-1],
        num_layers=c["num_layers"],
        features=c["num_hidden"][0],
        kernel_size=c["configs"]["filter_size"],
        decoupling=name.startswith("v2"),
    )
    params = torch_predrnn.stack_params(golden_files.group(data, "param"))
    frames, mask = data["input/frames_patched"], data["input/mask_true"] > 0
    always = frames.shape[1] - 1 - mask.shape[1]
    true = np.pad(mask, ((0, 0), (always, 0), *[(0, 0)] * 3), constant_values=True)
    return data, stack, params, frames, true


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_the_network_of_the_pytorch_code(name, record_property):
    data, stack, params, frames, true = golden_stack(name)
    beta = data["config"]["configs"]["decouple_beta"]

    @jax.jit
    def compute(params, frames, cotangents):
        def forward(params, frames):
            forecasts, decoupling = stack.apply(
                {"params": params}, frames[:, :-1], true, train=True
            )
            loss = jnp.mean(jnp.square(forecasts - frames[:, 1:]))
            return forecasts, loss + beta * decoupling

        y, pull = jax.vjp(forward, params, frames)
        return y, pull(cotangents)

    keys = "next_frames", "loss"
    y, (grads, frames_grad) = compute(
        params, frames, tuple(data[f"cotangent/{key}"] for key in keys)
    )
    error = max(
        largest(a, data[f"output/{key}"]) for a, key in zip(y, keys, strict=True)
    )
    record_property("golden PredRNN network output error", float(error))
    assert error < 1e-5
    stored = golden_files.group(data, "grad")
    want = torch_predrnn.stack_params(golden_files.group(stored, "param"))
    error = max(
        largest(grads, want), largest(frames_grad, stored["input/frames_patched"])
    )
    record_property("golden PredRNN network gradient error", float(error))
    assert error < 1e-4


def test_the_decoupling_term_by_hand():
    """Two pixels, two channels: cosines 0 and -1, of which the mean size is one half.

    A constant adapter would mix the channels; the identity leaves them.
    """
    one = jnp.array([[[[1.0, 2.0], [1.0, 0.0]]]])
    other = jnp.array([[[[3.0, -5.0], [-3.0, 0.0]]]])
    term = decoupling_term(one, other, jnp.eye(2))
    np.testing.assert_allclose(term, 0.5, atol=1e-6)
    mixed = decoupling_term(one, other, jnp.ones((2, 1)))  # (3, 1) and (-2, -3)
    np.testing.assert_allclose(mixed, 9 / (10 * 13) ** 0.5, atol=1e-6)
    several = decoupling_term(jnp.stack([one, other]), jnp.stack([one] * 2), jnp.eye(2))
    np.testing.assert_allclose(several, [1, 0.5], atol=1e-6)


def test_the_decoupling_term_of_zeros_is_zero_and_learns_nothing():
    zeros, other = jnp.zeros((2, 3, 3, 4)), draw(2, 3, 3, 4)
    term, grads = jax.value_and_grad(decoupling_term, (0, 1, 2))(
        zeros, other, jnp.eye(4)
    )
    assert term == 0
    chex.assert_tree_all_finite(grads)
    chex.assert_trees_all_equal(grads[1:], jax.tree.map(jnp.zeros_like, grads[1:]))


SMALL = dict(channels=3, num_layers=2, features=4, kernel_size=3)


@functools.cache
def variables(**options):
    stack = SpatiotemporalLSTM(**SMALL | options)
    frames, true = draw(1, 4, 5, 6, 3), jnp.ones((1, 4, 1, 1, 1), bool)
    return drawn(stack.init, frames, true)


@functools.cache
def compiled(train, **options):
    return jax.jit(
        functools.partial(SpatiotemporalLSTM(**SMALL | options).apply, train=train)
    )


def run(frames, true, *, train=False, beside=None, v=None, **options):
    true = jnp.asarray(true, bool)[:, :, None, None, None]
    v = variables(**options) if v is None else v
    return compiled(train, **options)(v, frames, true, beside)


@pytest.mark.slow
def test_a_forecast_depends_on_the_frames_before_it_that_are_read():
    frames, true = draw(2, 4, 5, 6, 3), np.array([[1, 1, 0, 1], [0, 0, 1, 0]])
    y, decoupling = run(frames, true)
    chex.assert_shape(y, (2, 4, 5, 6, 3))
    assert decoupling == 0
    for changed in range(4):
        other, _ = run(frames + (np.arange(4) == changed)[:, None, None, None], true)
        np.testing.assert_array_equal(other[:, :changed], y[:, :changed])
        for example in range(2):
            reads = true[example, changed] or changed == 0
            same = np.array_equal(other[example, changed:], y[example, changed:])
            assert same != reads


def test_its_own_forecasts_can_be_given_as_true_frames():
    frames = draw(2, 4, 5, 6, 3)
    own, _ = run(frames, [[1, 0, 0, 0]] * 2)
    given = jnp.concatenate([frames[:, :1], own[:, :-1]], axis=1)
    y, _ = run(given, np.ones((2, 4)))
    np.testing.assert_allclose(y, own, atol=1e-6)


def test_what_is_beside_is_read_behind_the_frame():
    frames, true = draw(2, 4, 5, 6, 5), np.ones((2, 4))
    beside = draw(2, 4, 5, 6, 2, seed=1)
    known = true[..., None, None, None] > 0
    v = drawn(SpatiotemporalLSTM(**SMALL).init, frames[..., :3], known, beside)
    assert v["params"]["step"]["cell_0"]["input_kernel"].shape == (3, 3, 5, 28)
    y, _ = run(frames[..., :3], true, beside=beside, v=v)
    wide = dict(SMALL, channels=5)
    joined = jnp.concatenate([frames[..., :3], beside], axis=-1)
    params = {**v["params"]["step"]}
    params["head_kernel"] = jnp.pad(params["head_kernel"], ((0, 0), (0, 2)))
    want, _ = run(joined, true, v={"params": {"step": params}}, **wide)
    np.testing.assert_allclose(want[..., :3], y, atol=1e-6)


def test_without_signal_nothing_happens():
    """No biases: zeros stay zeros, and the gradients are finite there."""

    @jax.jit
    @jax.value_and_grad
    def compute(v):
        frames, true = jnp.zeros((2, 3, 5, 6, 3)), np.ones((2, 3))
        y, decoupling = run(frames, true, train=True, decoupling=True, v=v)
        return jnp.sum(y**2) + decoupling

    value, grads = compute(variables(decoupling=True))
    assert value == 0
    chex.assert_tree_all_finite(grads)


def test_the_program_does_not_grow_with_the_sequence():
    stack = SpatiotemporalLSTM(**SMALL, decoupling=True)

    def lines(steps):
        frames = jax.ShapeDtypeStruct((2, steps, 5, 6, 3), jnp.float32)
        true = jax.ShapeDtypeStruct((2, steps, 1, 1, 1), bool)

        def loss(v, frames, true):
            y, decoupling = stack.apply(v, frames, true, train=True)
            return jnp.sum(y) + decoupling

        jaxpr = jax.make_jaxpr(jax.grad(loss))(variables(decoupling=True), frames, true)
        return len(str(jaxpr).splitlines())

    assert lines(20) == lines(10)


@pytest.mark.slow
def test_recomputation_changes_no_gradient():
    frames, true = draw(2, 3, 5, 6, 3), np.array([[1, 1, 0]] * 2)

    def gradient(**options):
        loss = jax.grad(
            lambda v, x: jnp.sum(run(x, true, v=v, **options)[0] ** 2), (0, 1)
        )
        return jax.jit(loss)(variables(), frames)

    chex.assert_trees_all_close(gradient(remat=True), gradient(), rtol=1e-4, atol=1e-6)


def test_low_precision():
    frames, true = draw(2, 3, 5, 6, 3), np.array([[1, 1, 0]] * 2)
    y, decoupling = run(frames, true, train=True, decoupling=True, dtype=jnp.bfloat16)
    assert (y.dtype, decoupling.dtype) == (jnp.bfloat16, jnp.float32)
    types = {a.dtype for a in jax.tree.leaves(variables(dtype=jnp.bfloat16))}
    assert types == {jnp.dtype("float32")}
    want, other = run(frames, true, train=True, decoupling=True)
    assert largest(y.astype(jnp.float32), want) < 0.05
    assert abs(decoupling - other) < 0.05


def test_layer_norm_fits_the_plane_and_any_frame_size_without():
    norm = variables(layer_norm=True)["params"]["step"]["cell_1"]["hidden_norm"]
    assert norm["scale"].shape == norm["bias"].shape == (5, 6, 16)
    y, _ = run(draw(1, 2, 3, 8, 3), np.ones((1, 2)))
    chex.assert_shape(y, (1, 2, 3, 8, 3))
