"""Numbers that follow from the values of a window."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.models.drawing import draw, fingerprints

SHAPE = (2, 4, 4, 1)
NORMAL, UNIFORM = jax.random.normal, jax.random.uniform
KNOWN = [[1.0338697, 0.3351660], [-0.2051422, 0.2785189]]


def inputs_of(examples, shape=SHAPE):
    rng = np.random.default_rng(0)
    return rng.normal(size=(examples, *shape)).astype(np.float32)


def test_fingerprints():
    """Every bit, its place and the seed count; the batch and -0.0 do not."""
    inputs = inputs_of(3)
    words = np.asarray(fingerprints(inputs, 0))
    assert words.shape == (3, 2) and words.dtype == np.uint32
    assert len(np.unique(words)) == 6
    np.testing.assert_array_equal(fingerprints(inputs[1:2], 0), words[1:2])
    assert np.all(words != fingerprints(inputs, 1))
    changed = inputs.copy()
    changed[0, 1, 2, 3, 0] = np.nextafter(inputs[0, 1, 2, 3, 0], np.float32(9))
    changed[1, 0, [0, 1]] = inputs[1, 0, [1, 0]]
    after = np.asarray(fingerprints(changed, 0))
    assert np.all(after[:2] != words[:2]) and np.all(after[2] == words[2])
    zeros = np.zeros((1, *SHAPE), np.float32)
    compiled = jax.jit(functools.partial(fingerprints, seed=0))
    np.testing.assert_array_equal(compiled(zeros), compiled(-zeros))


def test_known_numbers():
    """The noise of a window never changes, so that forecasts can be repeated."""
    z = draw(NORMAL, jnp.arange(6, dtype=jnp.float32).reshape(1, 6), 2, (2,), 7)
    np.testing.assert_allclose(z[:, 0], KNOWN, rtol=1e-5)


def test_standard_normal():
    z = np.asarray(draw(NORMAL, inputs_of(50), 20, (32,), 0))
    assert z.shape == (20, 50, 32)
    assert abs(z.mean()) < 0.02 and abs(z.std() - 1) < 0.02
    pairs = np.corrcoef(z.reshape(20, -1))
    assert np.abs(pairs - np.eye(20)).max() < 0.11


def test_numbers_of_a_member_are_those_of_its_window():
    inputs = inputs_of(3)
    many = draw(UNIFORM, inputs, 3, (5, 2), seed=7)
    assert many.shape == (3, 3, 5, 2) and len(np.unique(many)) == many.size
    one = draw(UNIFORM, inputs[2:], 1, (5, 2), seed=7)
    np.testing.assert_array_equal(one[0, 0], many[0, 2])
    assert np.all(draw(UNIFORM, inputs, 3, (5, 2), seed=8) != many)
    np.testing.assert_array_equal(
        draw(UNIFORM, inputs, 1, (5, 2), 7, first=2), many[2:]
    )
