"""PhyCell and ConvLSTM cell: limits of the gate, the published numbers, stacks."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.interop import torch_phydnet
from earthformer_jax.models.recurrent.phy_cell import CellStack, ConvLSTMCell, PhyCell
from tests import golden_files


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def channels_last(array):
    return np.moveaxis(array, 1, -1)


def largest(have, want):
    """Largest difference relative to the largest value."""
    have, want = jax.tree.leaves(have), jax.tree.leaves(want)
    scale = max(np.abs(w).max() for w in want)
    return max(np.abs(h - w).max() for h, w in zip(have, want, strict=True)) / scale


def init(layer, method, *args):
    return jax.jit(functools.partial(layer.init, method=method))(
        jax.random.key(0), *args
    )


def advance(cell, state, frame):
    return cell.step(state, cell.push(frame, in_loop=True))


def compare(name, forward, to_params, inputs, outputs, record_property):
    """Outputs, and gradients by parameters and inputs, against a file."""
    data = golden_files.load(f"baselines/{name}")
    args = [channels_last(data[f"input/{k}"]) for k in inputs]
    cotangents = [channels_last(data[f"cotangent/{k}"]) for k in outputs]

    @jax.jit
    def compute(params, args):
        y, pull = jax.vjp(forward, params, args)
        return y, pull(cotangents)

    y, grads = compute(to_params(dict(golden_files.group(data, "param"))), args)
    error = largest(y, [channels_last(data[f"output/{k}"]) for k in outputs])
    record_property("golden PhyDNet cells output error", float(error))
    assert error < 1e-5
    want = (
        to_params(dict(golden_files.group(data, "grad/param"))),
        [channels_last(data[f"grad/input/{k}"]) for k in inputs],
    )
    for have, stored in zip(grads, want, strict=True):
        error = largest(have, stored)
        record_property("golden PhyDNet cells gradient error", float(error))
        assert error < 1e-4


def test_the_published_phycell(record_property):
    def forward(params, inputs):
        x, hidden = inputs
        cell = PhyCell(6, derivatives=49, kernel_size=7)
        return [cell.apply({"params": params}, hidden, x, method=advance)[0]]

    compare(
        "phydnet_phycell_cell",
        forward,
        torch_phydnet.phycell_cell_params,
        ["x", "hidden"],
        ["next_hidden"],
        record_property,
    )


def test_the_published_conv_lstm_cell(record_property):
    def forward(params, inputs):
        x, *state = inputs
        cell = ConvLSTMCell(4, inputs=3)
        return list(cell.apply({"params": params}, state, x, method=advance)[0])

    compare(
        "phydnet_convlstm_cell",
        forward,
        torch_phydnet.convcell_cell_params,
        ["x", "h", "c"],
        ["h_next", "c_next"],
        record_property,
    )


def phycells(remat=False):
    sizes = (14, 7)
    return CellStack([PhyCell(4, n, kernel_size=3) for n in sizes], remat)


def convcells(remat=False):
    return CellStack([ConvLSTMCell(5, inputs=4), ConvLSTMCell(3, inputs=5)], remat)


def run(stack, frames):
    start = stack.zeros(frames.shape[1], frames.shape[2:4], frames.dtype)
    return stack.sequence(start, frames)


@pytest.mark.parametrize("remat", [False, True])
def test_the_published_stack_of_phycells(remat, record_property):
    def forward(params, inputs):
        frames = jnp.stack(inputs)
        states, top = phycells(remat).apply({"params": params}, frames, method=run)
        return [states[0], top[-1]]

    compare(
        "phydnet_phycell_2layer_3steps",
        forward,
        torch_phydnet.phycell_params,
        ["x0", "x1", "x2"],
        ["H0", "H1"],
        record_property,
    )


@pytest.mark.parametrize("make", [phycells, convcells])
def test_a_sequence_is_its_steps(make):
    stack, frames = make(), draw(4, 2, 5, 6, 4)
    v = init(stack, run, frames)
    want_states, want = jax.jit(functools.partial(stack.apply, method=run))(v, frames)
    step = jax.jit(functools.partial(stack.apply, method=CellStack.step))
    states = stack.zeros(2, (5, 6), jnp.float32)
    for frame, top in zip(frames, want, strict=True):
        states, y = step(v, states, frame)
        np.testing.assert_allclose(y, top, atol=1e-5)
    chex.assert_trees_all_close(states, want_states, atol=1e-5)


@pytest.mark.parametrize(("bias", "gain"), [(-50.0, 0.0), (50.0, 1.0)])
def test_the_gate_weighs_prediction_against_frame(bias, gain):
    cell, state, frame = PhyCell(4, 9, 3, 3), draw(1, 5, 6, 4), draw(1, 5, 6, 4, seed=1)
    v = init(cell, advance, state, frame)
    v["params"]["gate_input"]["bias"] = jnp.full(4, bias)
    physics = jax.jit(functools.partial(cell.apply, method=PhyCell.physics))(v, state)
    assert jnp.abs(physics).max() > 0.1
    want = frame if gain else state + physics
    got, _ = jax.jit(functools.partial(cell.apply, method=advance))(v, state, frame)
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_the_derivative_filters_can_be_read():
    cell, state = PhyCell(4, 9, 3, 3), draw(1, 5, 6, 4)
    v = init(cell, advance, state, state)
    kernel = cell.apply(v, method=PhyCell.derivative_kernel)
    np.testing.assert_array_equal(kernel, v["params"]["derivative"]["kernel"])
    chex.assert_shape(kernel, (3, 3, 4, 9))


def test_half_precision_keeps_the_state_in_single():
    cell = PhyCell(4, 9, 3, 3, dtype=jnp.bfloat16)
    state, frame = draw(1, 5, 6, 4), draw(1, 5, 6, 4, seed=1).astype(jnp.bfloat16)
    v = init(cell, advance, state, frame)
    new, _ = cell.apply(v, state, frame, method=advance)
    assert new.dtype == jnp.float32
    assert {a.dtype for a in jax.tree.leaves(v)} == {jnp.dtype("float32")}
    want, _ = cell.clone(dtype=None).apply(
        v, state, frame.astype(jnp.float32), method=advance
    )
    np.testing.assert_allclose(new, want, atol=0.1)
