"""The base "advection": what it forecasts, its gradients and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.models import create_model
from earthformer_jax.models.bases import create_base
from earthformer_jax.ops.nowcasting.motion import motion
from earthformer_jax.ops.nowcasting.semi_lagrangian import extrapolate

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


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_nothing_moves_where_nothing_is_seen(value):
    """Also gradients are finite there."""
    base = create_base("advection", (3, 8, 5, 1), (2, 8, 5, 1))
    inputs = jnp.full((2, 3, 8, 5, 1), value)
    np.testing.assert_array_equal(jax.jit(base.apply)({}, inputs), value)
    slope = jax.jit(jax.grad(lambda x: base.apply({}, x).sum()))(inputs)
    assert np.isfinite(slope).all()


def test_one_frame_shows_no_motion():
    with pytest.raises(ValueError, match="base='advection': one input frame shows no"):
        create_model("unet", (1, 16, 16, 1), (2, 16, 16, 1), base="advection")
