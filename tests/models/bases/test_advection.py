"""Advection: closed forms of motion and of what moves on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.models import create_model
from earthformer_jax.models.bases import create_base
from earthformer_jax.models.bases.advection import extrapolate, motion, shifted

SIZE = (32, 40)


def blobs(steps, velocity, start=(12, 14), width=3.0):
    """A Gaussian that moves by `velocity` cells per frame, `[steps, h, w, 1]`."""
    rows, columns = np.indices(SIZE)
    frames = [
        np.exp(
            -0.5
            * (
                (rows - start[0] - velocity[0] * t) ** 2
                + (columns - start[1] - velocity[1] * t) ** 2
            )
            / width**2
        )
        for t in range(steps)
    ]
    return np.stack(frames)[..., None].astype(np.float32)


@pytest.mark.parametrize("velocity", [(1, 0), (0, -1), (-0.7, 1.3), (0, 0), (2, 2)])
def test_a_moving_blob(velocity):
    """Forecast with a fifth of the error of persistence, or less."""
    frames = blobs(10, velocity)
    base = create_base("advection", (6, *SIZE, 1), (4, *SIZE, 1))
    forecast = jax.jit(base.apply)({}, frames[None, :6])[0]
    assert forecast.shape == (4, *SIZE, 1) and forecast.dtype == np.float32
    error = np.abs(forecast - frames[6:]).max()
    unmoved = np.abs(frames[5] - frames[6:]).max()
    assert error <= max(0.2 * unmoved, 1e-6)
    flow = np.asarray(jax.jit(motion)(frames[:6]))
    row, column = np.round(np.array([12, 14]) + 3 * np.array(velocity)).astype(int)
    np.testing.assert_allclose(flow[row, column], velocity, atol=0.1)


def test_two_blobs_that_part():
    """Each has a motion of its own; and channels move together."""
    left, right = blobs(9, (0, -0.8), (16, 12), 2), blobs(9, (0, 0.8), (16, 28), 2)
    frames = np.concatenate([left + right, np.zeros_like(left)], axis=-1)
    flow = np.asarray(jax.jit(motion)(frames[:6]))
    np.testing.assert_allclose(flow[16, 9], (0, -0.8), atol=0.15)
    np.testing.assert_allclose(flow[16, 31], (0, 0.8), atol=0.15)
    forecast = extrapolate(jnp.asarray(frames[5]), jnp.asarray(flow), 3)
    assert np.abs(forecast - frames[6:]).max() < 0.25


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


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_nothing_moves_where_nothing_is_seen(value):
    """Also gradients are finite there."""
    base = create_base("advection", (3, 8, 5, 1), (2, 8, 5, 1))
    inputs = jnp.full((2, 3, 8, 5, 1), value)
    np.testing.assert_array_equal(jax.jit(base.apply)({}, inputs), value)
    slope = jax.jit(jax.grad(lambda x: base.apply({}, x).sum()))(inputs)
    assert np.isfinite(slope).all()


def test_shifts_between_cells():
    field = jnp.arange(5.0)[None, :, None] * jnp.ones((4, 1, 1))
    moved = shifted(field, jnp.full((4, 5, 2), 0.25))[..., 0]
    np.testing.assert_allclose(moved[0], [0.25, 1.25, 2.25, 3.25, 4.0], rtol=1e-6)


def test_one_frame_shows_no_motion():
    with pytest.raises(ValueError, match="base='advection': one input frame shows no"):
        create_model("unet", (1, 16, 16, 1), (2, 16, 16, 1), base="advection")
