"""Closed forms of what moves on."""

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.ops.nowcasting import semi_lagrangian as lib
from earthformer_jax.ops.nowcasting.semi_lagrangian import is_known

extrapolate = jax.jit(lib.extrapolate, static_argnums=2)
extrapolate_observed = jax.jit(lib.extrapolate_observed, static_argnums=3)
shifted = jax.jit(lib.shifted)
trajectories = jax.jit(lib.trajectories, static_argnums=1)


def test_a_known_motion_is_followed_exactly():
    """Whole cells, a steady flow: values are moved, and those of the edge stay."""
    frame = np.random.default_rng(0).normal(size=(6, 7, 2)).astype(np.float32)
    flow = np.broadcast_to(np.array([1, -2], np.float32), (6, 7, 2))
    found = extrapolate(jnp.asarray(frame), jnp.asarray(flow), 2)
    for k in (1, 2):
        rows = np.clip(np.arange(6) - k, 0, 5)
        columns = np.clip(np.arange(7) + 2 * k, 0, 6)
        np.testing.assert_allclose(found[k - 1], frame[rows][:, columns], atol=1e-6)


def test_a_rotation_is_followed_around_its_centre():
    """A blob on a steady rotation is a quarter turn further after 10 steps."""
    rows, columns = np.indices((41, 41)) - 20.0
    rate = np.pi / 2 / 10
    flow = np.stack([rate * columns, -rate * rows], -1).astype(np.float32)

    def blob(row, column):
        square = (rows - row) ** 2 + (columns - column) ** 2
        return np.exp(-0.5 * square / 9)[..., None].astype(np.float32)

    found = extrapolate(jnp.asarray(blob(0, 12)), jnp.asarray(flow), 10)[-1]
    assert np.abs(found - blob(12, 0)).max() < 0.05


def test_shifts_between_cells():
    field = jnp.arange(5.0)[None, :, None] * jnp.ones((4, 1, 1))
    moved = shifted(field, jnp.full((4, 5, 2), 0.25))[..., 0]
    np.testing.assert_allclose(moved[0], [0.25, 1.25, 2.25, 3.25, 4.0], rtol=1e-6)


def test_what_comes_from_outside_is_named():
    flow = jnp.broadcast_to(jnp.array([1.0, -2.0]), (6, 7, 2))
    known = np.asarray(is_known(trajectories(flow, 2)))
    for k in (1, 2):
        want = np.zeros((6, 7), bool)
        want[k:, : 7 - 2 * k] = True
        np.testing.assert_array_equal(known[k - 1], want)


def test_observed_values_alone_are_carried():
    """Half a cell: a forecast is made of the observed neighbour, or of the filling."""
    frame = jnp.asarray([[1.0, 2.0, 50.0, 60.0, 5.0, 6.0]])[..., None]
    observed = jnp.asarray([[1, 1, 0, 0, 1, 1]], bool)[..., None]
    flow = jnp.broadcast_to(jnp.array([0.0, 0.5]), (1, 6, 2))
    found, known = extrapolate_observed(frame, observed, flow, 1)
    np.testing.assert_allclose(found[0, 0, :, 0], [1, 1.5, 2, 55, 5, 5.5])
    np.testing.assert_array_equal(known[0, 0, :, 0], [0, 1, 0, 0, 0, 1])
    everything = jnp.ones_like(observed)
    found, known = extrapolate_observed(frame, everything, flow, 3)
    np.testing.assert_allclose(found, extrapolate(frame, flow, 3), rtol=1e-6)
    np.testing.assert_array_equal(known[..., 0], is_known(trajectories(flow, 3)))


def test_gradients_are_finite():
    """Also where nothing is observed, and with respect to the motion."""
    rng = np.random.default_rng(0)
    frame = jnp.asarray(rng.normal(size=(5, 6, 1)), jnp.float32)
    flow = jnp.asarray(rng.normal(size=(5, 6, 2)), jnp.float32)

    def total(frame, flow, observed):
        return extrapolate_observed(frame, observed, flow, 3)[0].sum()

    slopes = jax.jit(jax.grad(total, argnums=(0, 1)))
    for share in (0.0, 0.5, 1.0):
        observed = jnp.asarray(rng.random(frame.shape) < share)
        for slope in slopes(frame, flow, observed):
            assert np.isfinite(slope).all() and np.abs(slope).max() > 0
