"""One optimiser step: loss, accumulation, devices, randomness, averages."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from earthformer_jax import losses
from earthformer_jax.training import mesh as mesh_lib
from earthformer_jax.training import optimizer
from earthformer_jax.training import state as state_lib
from earthformer_jax.training import step as step_lib
from tests.training import toy

WEIGHTS = np.ones((1, 1, 1, 1), np.float32)
RATE = 0.1


def make(model, *, ema=False, learning_rate=RATE):
    """A step function, and the state before the first step."""
    schedule = optax.constant_schedule(learning_rate)
    tx = optax.sgd(schedule)  # Adam would hide wrong factors of the gradient
    state = state_lib.create_state(
        jax.random.key(0), model=model, tx=tx, input_shape=toy.SHAPE, ema=ema
    )
    step = functools.partial(
        step_lib.update,
        model=model,
        tx=tx,
        learning_rate=schedule,
        loss_weights=WEIGHTS,
    )
    return step, state


@pytest.fixture(scope="module")
def batch():
    source = toy.ToySource(8)
    examples = [source[i] for i in range(8)]
    return {k: np.stack([e[k] for e in examples]) for k in ("inputs", "targets")}


class TestUpdate:
    @pytest.mark.parametrize("micro_batches", [2, 4])
    def test_accumulated_gradient_is_that_of_the_batch(self, batch, micro_batches):
        step, state = make(toy.ToyModel(dropout=0.0))
        whole, scalars = jax.jit(step)(state, batch)
        parts = functools.partial(step, micro_batches=micro_batches)
        parts, scalars_of_parts = jax.jit(parts)(state, batch)
        assert_close(parts.params, whole.params)
        assert_close(scalars_of_parts, scalars)

    @pytest.mark.parametrize("micro_batches", [1, 2])
    def test_targets_and_step_for_models_that_use_them(self, batch, micro_batches):
        step, state = make(toy.PupilModel())
        state = state.replace(step=jnp.int32(3))
        step = jax.jit(functools.partial(step, micro_batches=micro_batches))
        _, scalars = step(state, batch)
        want = np.mean((1 + 3 * batch["targets"] - batch["targets"]) ** 2)
        np.testing.assert_allclose(scalars["loss"], want, rtol=1e-5)

    def test_gradient_by_hand(self, batch):
        model = toy.ToyModel(dropout=0.0)
        step, state = make(model)

        def loss_fn(params):
            forecast = model.apply({"params": params}, batch["inputs"])
            return jnp.mean((forecast - batch["targets"]) ** 2)

        loss, grads = jax.value_and_grad(loss_fn)(state.params)
        expected = jax.tree.map(lambda p, g: p - RATE * g, state.params, grads)
        after, scalars = jax.jit(step)(state, batch)
        assert_close(after.params, expected)
        np.testing.assert_allclose(scalars["loss"], loss, rtol=1e-6)
        np.testing.assert_allclose(
            scalars["grad_norm"], optax.tree.norm(grads), rtol=1e-5
        )
        np.testing.assert_allclose(scalars["lr"], RATE)
        assert int(after.step) == 1

    def test_loss_of_members_with_sown_terms(self, batch):
        step, state = make(toy.MembersModel())
        members = np.stack([batch["inputs"], batch["inputs"] + 2])
        loss = losses.create_loss("afcrps", alpha=0.5)
        want = loss(members, batch["targets"], WEIGHTS) + 5
        for micro_batches in (1, 2):
            now = functools.partial(step, loss=loss, micro_batches=micro_batches)
            scalars = jax.jit(now)(state, batch)[1]
            np.testing.assert_allclose(scalars["loss"], want, rtol=1e-5)

    def test_own_terms_are_all_of_the_loss(self, batch):
        step, state = make(toy.ToyModel(dropout=0.0, sown_loss=3.0))
        step = functools.partial(step, loss=losses.create_loss("none"), micro_batches=2)
        after, scalars = jax.jit(step)(state, batch)
        assert scalars["loss"] == 3 and scalars["grad_norm"] == 0
        assert_close(after.params, state.params)

    def test_loss_is_given_a_key_of_its_own_and_the_share_of_the_training(self, batch):
        def loss(forecast, targets, weights, observed=None, *, key, progress):
            return jax.random.uniform(key) + 10 * progress

        step, state = make(toy.ToyModel(dropout=0.0))
        later, drawn = state.replace(step=jnp.int32(3)), []
        for parts in (1, 2):
            now = functools.partial(step, loss=loss, total_steps=4, micro_batches=parts)
            first, last = (
                float(jax.jit(now)(x, batch)[1]["loss"]) for x in (state, later)
            )
            drawn.append((first, last - 7.5))
        assert 0 <= min(drawn[0]) and max(drawn[0]) < 1 and len(set(drawn[0])) == 2
        np.testing.assert_allclose(drawn[0], drawn[1], rtol=1e-5)  # once for all parts

    def test_sown_losses_are_added(self, batch):
        plain, state = make(toy.ToyModel(dropout=0.0))
        sown, _ = make(toy.ToyModel(dropout=0.0, sown_loss=3.0))
        sown = functools.partial(sown, micro_batches=2)
        before = jax.jit(plain)(state, batch)[1]["loss"]
        with_sown = jax.jit(sown)(state, batch)[1]["loss"]
        np.testing.assert_allclose(with_sown - before, 3.0, rtol=1e-5)

    def test_batch_statistics_follow_the_batch(self, batch):
        step, state = make(toy.ToyModel(batch_norm=True))
        after, _ = jax.jit(functools.partial(step, micro_batches=2))(state, batch)
        mean = after.batch_stats["batch_norm"]["mean"]
        assert np.all(mean != state.batch_stats["batch_norm"]["mean"])

    def test_random_numbers_depend_on_the_step_and_nothing_else(self, batch):
        step, state = make(toy.ToyModel(dropout=0.5), learning_rate=0.0)
        step = jax.jit(functools.partial(step, micro_batches=2))
        once, again = step(state, batch)[1]["loss"], step(state, batch)[1]["loss"]
        later, scalars = step(state.replace(step=jnp.int32(1)), batch)
        assert once == again
        assert once != scalars["loss"]
        np.testing.assert_array_equal(
            jax.random.key_data(later.rng), jax.random.key_data(state.rng)
        )

    def test_micro_batches_draw_different_dropout(self, batch):
        step, state = make(toy.ToyModel(dropout=0.5), learning_rate=0.0)
        same = {k: np.repeat(v[:1], 8, axis=0) for k, v in batch.items()}
        one = {k: v[:1] for k, v in same.items()}
        single = jax.jit(step)(state, one)[1]["loss"]
        eight = jax.jit(functools.partial(step, micro_batches=8))(state, same)
        assert abs(eight[1]["loss"] - single) > 1e-4

    def test_moving_average(self, batch):
        step, state = make(toy.ToyModel(dropout=0.0), ema=True)
        step = jax.jit(functools.partial(step, ema_decay=0.15))
        first, _ = step(state, batch)
        second, _ = step(first, batch)
        # Young averages forget faster: 1/10 after the first step, then 0.15 < 2/11.
        once = jax.tree.map(lambda a, b: 0.1 * a + 0.9 * b, state.params, first.params)
        twice = jax.tree.map(lambda a, b: 0.15 * a + 0.85 * b, once, second.params)
        assert_close(first.ema_params, once)
        assert_close(second.ema_params, twice)
        pair = second.variables, second.ema_params
        assert all(x is y for x, y in zip(*map(jax.tree.leaves, pair), strict=True))

    def test_unused_parameter_stays(self, batch):
        model = toy.ToyModel(has_unused=True)
        tx = optimizer.adamw(0.1, weight_decay=0.5, clip_norm=1.0)
        state = state_lib.create_state(
            jax.random.key(0), model=model, tx=tx, input_shape=toy.SHAPE
        )
        after, _ = jax.jit(
            functools.partial(
                step_lib.update,
                model=model,
                tx=tx,
                learning_rate=optax.constant_schedule(0.1),
                loss_weights=WEIGHTS,
                micro_batches=2,
            )
        )(state, batch)
        np.testing.assert_array_equal(after.params["global_vectors"], np.ones((2, 3)))


class TestDevices:
    @pytest.mark.parametrize("batch_norm", [False, True])
    def test_four_devices_take_the_step_of_one(self, batch, batch_norm):
        step, state = make(toy.ToyModel(batch_norm=batch_norm))
        step = functools.partial(step, micro_batches=2)
        alone, _ = jax.jit(step)(state, batch)
        mesh = mesh_lib.data_mesh()
        assert mesh.size == 4
        everywhere = mesh_lib.replicated(mesh)
        sharded = jax.jit(step, out_shardings=everywhere)(
            jax.device_put(state, everywhere), mesh_lib.put_batch(mesh, batch)
        )[0]
        assert_close(sharded.params, alone.params)
        assert_close(sharded.batch_stats, alone.batch_stats)
        assert sharded.step.sharding == everywhere

    @pytest.mark.usefixtures("optimised")
    def test_examples_stay_on_their_device(self, batch):
        step, state = make(toy.ToyModel())
        mesh = mesh_lib.data_mesh()
        everywhere = mesh_lib.replicated(mesh)
        program = (
            jax.jit(functools.partial(step, micro_batches=2), out_shardings=everywhere)
            .lower(jax.device_put(state, everywhere), mesh_lib.put_batch(mesh, batch))
            .compile()
            .as_text()
        )
        assert "all-reduce" in program  # of the gradients
        for movement in ("all-to-all", "all-gather", "collective-permute"):
            assert movement not in program

    def test_under_pmap(self, batch):
        """The same function, for loops made by hand."""
        step, state = make(toy.ToyModel(dropout=0.0))
        alone, scalars = jax.jit(step)(state, batch)
        per_device = {k: v.reshape(4, 2, *v.shape[1:]) for k, v in batch.items()}
        mapped = jax.pmap(
            functools.partial(step, axis_name="devices", micro_batches=2),
            axis_name="devices",
            in_axes=(None, 0),
            out_axes=None,
        )
        after, scalars_of_all = mapped(state, per_device)
        assert_close(after.params, alone.params)
        np.testing.assert_allclose(scalars_of_all["loss"], scalars["loss"], rtol=1e-6)


def test_batch_is_laid_out_by_example(batch):
    mesh = mesh_lib.data_mesh()
    inputs = mesh_lib.put_batch(mesh, batch)["inputs"]
    assert inputs.shape == (8, *toy.SHAPE)
    for i, shard in enumerate(inputs.addressable_shards):
        np.testing.assert_array_equal(shard.data, batch["inputs"][2 * i : 2 * i + 2])


def assert_close(found, expected):
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=2e-6),
        found,
        expected,
    )
