"""The loss scale: halved by overflow, doubled by patience, and otherwise unseen."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from earthformer_jax.training import state as state_lib
from earthformer_jax.training import step as step_lib
from earthformer_jax.training.precision import loss_scale as lib
from tests.training import toy

WEIGHTS = np.ones((1, 1, 1, 1), np.float32)


def test_halved_and_doubled():
    now = lib.first(8.0)
    seen = []
    for is_finite in (False, True, True, True, True, True, False):
        now = lib.following(now, jnp.bool_(is_finite), window=2)
        seen.append((float(now.scale), int(now.clean_steps), int(now.skipped)))
    assert seen == [
        (4.0, 0, 1),
        (4.0, 1, 1),
        (8.0, 0, 1),
        (8.0, 1, 1),
        (16.0, 0, 1),
        (16.0, 1, 1),
        (8.0, 0, 2),
    ]


def test_limits():
    most = lib.following(lib.first(lib.MOST), jnp.bool_(True), window=1)
    assert most.scale == lib.MOST
    least = lib.first(lib.LEAST)
    assert lib.following(least, jnp.bool_(False), window=1).scale == lib.LEAST
    assert lib.cannot_shrink(least) and not lib.cannot_shrink(lib.first(2.0))


@pytest.fixture(scope="module")
def batch():
    source = toy.ToySource(4)
    examples = [source[i] for i in range(4)]
    return {k: np.stack([e[k] for e in examples]) for k in ("inputs", "targets")}


@functools.cache
def made(scale=None):
    """A compiled step of a model with batch norm and averages, and its first state."""
    schedule = optax.linear_schedule(0.1, 0.0, 10)
    tx = optax.adam(schedule)
    model = toy.ToyModel(batch_norm=True, dropout=0.0)
    state = state_lib.create_state(
        jax.random.key(0),
        model=model,
        tx=tx,
        input_shape=toy.SHAPE,
        ema=True,
        loss_scale=scale,
    )
    step = functools.partial(
        step_lib.update,
        model=model,
        tx=tx,
        learning_rate=schedule,
        loss_weights=WEIGHTS,
        ema_decay=0.9,
        loss_scale_window=2,
    )
    return jax.jit(step), state


def arrays(state):
    parts = dataclasses.replace(state, rng=None, loss_scale=None, step=None)
    return jax.tree.leaves(parts)


def test_a_power_of_two_changes_no_number(batch):
    plain, scaled = (step(state, batch) for step, state in (made(), made(1024.0)))
    for want, got in zip(arrays(plain[0]), arrays(scaled[0]), strict=True):
        np.testing.assert_array_equal(got, want)
    assert plain[1].items() <= scaled[1].items()
    assert not scaled[1]["skipped"] and scaled[1]["loss_scale"] == 1024


def test_a_step_that_overflows_changes_nothing_but_the_scale(batch):
    step, state = made(1024.0)
    state = step(state, batch)[0]
    too_large = {**batch, "targets": batch["targets"] + 1e38}
    after, scalars = step(state, too_large)
    assert scalars["skipped"] and scalars["is_finite"]
    for before, now in zip(arrays(state), arrays(after), strict=True):
        np.testing.assert_array_equal(now, before)
    assert after.step == 2 and after.loss_scale.scale == 512
    assert after.loss_scale.skipped == 1 and after.loss_scale.clean_steps == 0
    # The schedule goes on where it was.
    again, scalars = step(after, batch)
    np.testing.assert_allclose(scalars["lr"], 0.09, rtol=1e-6)
    assert again.loss_scale.clean_steps == 1


def test_where_the_scale_is_not_at_fault(batch):
    step, state = made(1024.0)
    bad = {**batch, "inputs": np.full_like(batch["inputs"], np.nan)}
    state = dataclasses.replace(state, loss_scale=lib.first(2.0))
    state, scalars = step(state, bad)
    assert scalars["is_finite"]
    _, scalars = step(state, bad)
    assert not scalars["is_finite"]


def test_every_number_has_to_be_finite():
    names = [f"{kind}_{k}" for kind in "ab" for k in range(40)]
    tree = {name: np.ones((2, 3) if "a" in name else 5, np.float32) for name in names}
    check = jax.jit(lib.all_finite)
    assert check(tree) and lib.all_finite({}) and lib.all_finite([np.int32(7)])
    for name in names:
        for bad in (np.nan, -np.inf):
            leaf = np.array(tree[name])
            leaf.flat[-1] = bad
            assert not check(tree | {name: leaf}), name


def test_leaves_of_one_shape_are_reduced_together():
    def reductions(number):
        leaves = [jax.ShapeDtypeStruct((4, 4), np.float32)] * number
        return (
            jax.jit(lib.all_finite).lower(leaves).as_text().count("stablehlo.reduce(")
        )

    assert reductions(8) == 1 and reductions(100) == 4
