"""Programs for each device, and parts of the state, give what one device gives."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from earthformer_jax.layers.batch_norm import BatchNorm
from earthformer_jax.layers.dropout import Dropout
from earthformer_jax.models.recurrent import scheduled_sampling
from earthformer_jax.training import loop
from earthformer_jax.training import mesh as mesh_lib
from earthformer_jax.training import state as state_lib
from earthformer_jax.training.checkpoint import Checkpoints, Progress
from earthformer_jax.training.settings import ParallelSettings
from tests.training import toy
from tests.training.devices.steps import assert_close, batch_of, program_of


class NormModel(nn.Module):
    """Dense layers around our batch norm."""

    @nn.compact
    def __call__(self, inputs, *, train=False):
        x = nn.Dense(32, name="first")(inputs)
        x = BatchNorm(0.9, name="batch_norm")(x, train=train)
        return nn.Dense(1, name="last")(nn.gelu(x))


class TaughtModel(nn.Module):
    """Reads some of the targets, as scheduled sampling draws them."""

    uses_targets = True

    @nn.compact
    def __call__(self, inputs, *, train=False, targets=None, step=None, **_):
        level = self.param("level", nn.initializers.ones, ())
        if not train:
            return level * inputs
        key, (b, t) = self.make_rng("sampling"), inputs.shape[:2]
        true = scheduled_sampling.draw(key, 0.5, b, t)
        return level * jnp.where(true[..., None, None, None], targets, inputs)


MODELS = {
    "plain": toy.ToyModel(features=32, dropout=0.0),
    "batch_norm": NormModel(),
    "targets": TaughtModel(),
}
TAKE = dict(batch_size=16, micro_batch=8, steps=2)


@functools.cache
def alone(name):
    mesh = mesh_lib.data_mesh(jax.devices()[:1])
    return program_of(MODELS[name], mesh, **TAKE)(batch_of(16))


def assert_same(found, expected):
    for state in ("params", "ema_params", "batch_stats"):
        assert_close(getattr(found[0], state), getattr(expected[0], state))
    assert_close(found[1], expected[1])


@pytest.mark.parametrize("backend", ["shard_map", "pmap"])
@pytest.mark.parametrize("name", MODELS)
def test_a_program_for_each_device(name, backend):
    take = program_of(MODELS[name], mesh_lib.data_mesh(), backend=backend, **TAKE)
    assert_same(take(batch_of(16)), alone(name))


def test_parts_of_the_state():
    mesh = mesh_lib.make_mesh(ParallelSettings(model=4))
    found = program_of(MODELS["plain"], mesh, model=4, **TAKE)(batch_of(16))
    for tree in (found[0].params, found[0].ema_params):
        kernel = tree["first"]["kernel"]
        assert kernel.addressable_shards[0].data.size == kernel.size / 4
    assert_same(found, alone("plain"))


class MaskModel(nn.Module):
    """Forecasts which elements dropout keeps."""

    @nn.compact
    def __call__(self, inputs, *, train=False):
        level = self.param("level", nn.initializers.ones, ())
        return level * Dropout(0.5, train)(jnp.ones_like(inputs))


@pytest.mark.parametrize("backend", ["jit", "shard_map", "pmap"])
def test_each_device_has_masks_of_its_own(backend):
    """The loss counts the kept elements among the few that are observed."""
    batch = batch_of(4)
    take = program_of(
        MaskModel(),
        mesh_lib.data_mesh(),
        batch_size=4,
        micro_batch=4,
        backend=backend,
    )

    def kept(device, place):
        observed = np.zeros((4, 12, 4), bool)
        observed[device, place] = True
        observed = observed.reshape(batch["observed"].shape)
        zeros = np.zeros_like(batch["targets"])
        return take(batch | {"targets": zeros, "observed": observed})[1]["loss"]

    rows = {tuple(float(kept(d, place)) for place in range(12)) for d in range(4)}
    assert len(rows) == 4


def test_a_checkpoint_continues_on_other_devices(tmp_path):
    """The state in parts, and whole again on fewer devices: the same values."""
    make = functools.partial(
        state_lib.create_state,
        model=MODELS["plain"],
        tx=optax.adam(0.1),
        input_shape=toy.SHAPE,
        ema=True,
    )
    shapes = jax.eval_shape(make, jax.random.key(0))

    def layout(mesh):
        return mesh_lib.state_sharding(shapes, mesh)

    four = mesh_lib.make_mesh(ParallelSettings(model=4))
    state = jax.jit(make, out_shardings=layout(four))(jax.random.key(0))
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(state, Progress(step=0))
    for devices, model in (1, 1), (2, 2), (4, 4):
        mesh = mesh_lib.make_mesh(
            ParallelSettings(model=model), jax.devices()[:devices]
        )
        like = mesh_lib.abstract(shapes, layout(mesh))
        found, _ = Checkpoints(tmp_path / "checkpoints").restore_latest(like)
        kernel = found.opt_state[0].mu["first"]["kernel"]
        assert kernel.addressable_shards[0].data.size == kernel.size / model
        for name in "params", "opt_state", "ema_params":
            jax.tree.map(
                np.testing.assert_array_equal,
                jax.device_get(getattr(found, name)),
                jax.device_get(getattr(state, name)),
            )


def train(workdir, steps, **parallel):
    config = toy.config(
        train__steps=steps,
        train__validate_every=2,
        train__simulated_steps=0,
        train__simulated_fraction=0.0,
    )
    with config.unlocked():
        config.parallel = parallel
    assert loop.train(
        config,
        workdir,
        dataset=toy.dataset(),
        model=toy.ToyModel(features=64, dropout=0.0),
    )


@pytest.mark.slow
def test_each_part_of_a_training_is_divided_in_its_own_way(tmp_path):
    train(tmp_path / "alike", 2)
    train(tmp_path / "alike", 4)
    train(tmp_path / "changing", 2, backend="pmap")
    train(tmp_path / "changing", 4, space=2, model=2)
    states = []
    for folder in ("alike", "changing"):
        checkpoints = Checkpoints(tmp_path / folder / "checkpoints")
        states.append(checkpoints.restore_variables("last", averaged=False)[0])
        assert checkpoints.steps()[-1] == 4
    for found, expected in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
