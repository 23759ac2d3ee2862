"""Layers computed part by part are what they are as a whole, and exchange as much."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.ops import forward_mode
from earthformer_jax.ops.dropout import dropout
from earthformer_jax.ops.tuned import in_parts as tuned
from earthformer_jax.ops.tuned.hashed_key import hashed_key, starting_at
from earthformer_jax.profiling.communication import collectives
from earthformer_jax.training import mesh as mesh_lib

EXAMPLES, SIZE, CHANNELS = 4, 6, 5
RNG = np.random.default_rng(0)
FIELDS = tuple(
    RNG.normal(size=(EXAMPLES, t, SIZE, CHANNELS)).astype(np.float32) for t in (1, 2)
)
WEIGHTS = RNG.normal(size=(CHANNELS, CHANNELS)).astype(np.float32)
OF_EXAMPLES = RNG.normal(size=(EXAMPLES, CHANNELS)).astype(np.float32)


def layer(weights, examples, fields):
    """What is dropped is ordered by example, then along the axis of parts."""
    (kernel, key), (own, own_key) = weights, examples
    x = fields[0] + fields[1].sum(1, keepdims=True)
    y = jnp.tanh(x @ kernel) * own[:, None, None]
    if own_key.ndim:
        more = jax.vmap(lambda x, k: dropout(x, 0.5, k))(y, own_key)
    else:
        more = dropout(y, 0.5, own_key)
    return dropout(y, 0.5, key), jnp.square(more).sum(axis=(1, 2))


def loss(weights, examples, fields, bytes_of_part):
    keys = hashed_key(jax.random.key(1)), hashed_key(jax.random.key(2))
    of_example = starting_at(keys[1], np.arange(EXAMPLES) * SIZE * CHANNELS)
    call = functools.partial(tuned.in_parts, axis=2, pieces=SIZE)
    if bytes_of_part is None:
        call = functools.partial(tuned._whole, axis=2, pieces=SIZE)
    y, more = call(layer, (weights, keys[0]), (examples, of_example), fields)
    more = more.sum(1)
    return jnp.square(y).sum() + (more * more).sum(), (y, more)


def results(bytes_of_part, fields=FIELDS):
    function = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)
    function = jax.jit(functools.partial(function, bytes_of_part=bytes_of_part))
    return function, function(WEIGHTS, OF_EXAMPLES, fields)


def check_near(found, want):
    """Each array to rounding; a small number may be a difference of large ones."""
    least = 5e-7 * np.abs(want).max()
    np.testing.assert_allclose(found, want, rtol=2e-5, atol=least)


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of two columns."""
    monkeypatch.setattr(tuned, "PART_BYTES", 2 * CHANNELS * 4)


def test_equals_the_whole(small_parts):
    """Values, numbers dropped, and gradients of weights, examples and both fields."""
    assert tuned.parts(FIELDS, SIZE) == 3
    found, want = (results(size)[1] for size in (1, None))
    jax.tree.map(check_near, found, want)
    y = np.asarray(want[0][1][0])
    assert 0.3 < np.mean(y == 0) < 0.7


def test_sums_are_wide(monkeypatch):
    """A thousand parts add to gradients in bfloat16 without being rounded away."""
    monkeypatch.setattr(tuned, "PART_BYTES", 2)
    fields = (jnp.ones((1, 1000, 1), jnp.bfloat16),)
    one = jnp.ones((1, 1), jnp.bfloat16)

    def loss(weights, examples):
        def layer(weights, examples, fields):
            return fields[0] * weights + examples, ()

        return tuned.in_parts(layer, weights, examples, fields, 1, 1000)[0].sum()

    found = jax.grad(loss, (0, 1))(one, one)
    assert [x.item() for x in found] == [1000, 1000]


def test_on_several_devices(small_parts):
    """Examples stay on their devices; the weights' gradient is exchanged once."""
    mesh = mesh_lib.data_mesh()
    fields = jax.device_put(FIELDS, mesh_lib.by_example(mesh))
    examples = jax.device_put(OF_EXAMPLES, mesh_lib.by_example(mesh))
    weights = jax.device_put(WEIGHTS, mesh_lib.replicated(mesh))
    function, want = results(1)
    program = function.lower(weights, examples, fields).compile()
    found = program(weights, examples, fields)
    jax.tree.map(check_near, found, want)
    exchanged = collectives(program.as_text() or "", mesh.size)
    assert {one.kind for one in exchanged} == {"all-reduce"}
    assert sum(one.bytes * one.times for one in exchanged) <= WEIGHTS.nbytes + 16


def test_number_of_parts(small_parts):
    """The least that suffices; one in forward mode, and where it is asked for."""
    assert tuned.parts(FIELDS, 2) == 2
    assert tuned.parts((FIELDS[0][:, :, :2],), 1) == 1
    with forward_mode():
        assert tuned.parts(FIELDS, SIZE) == 1
    with tuned.as_a_whole():
        assert tuned.parts(FIELDS, SIZE) == 1
