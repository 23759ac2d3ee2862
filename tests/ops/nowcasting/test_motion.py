"""The motion of patterns whose motion is known, and of what shows none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.ops.nowcasting.motion import motion

SIZE = (32, 40)


def blob(row, column, width=3.0):
    rows, columns = np.indices(SIZE)
    square = (rows - row) ** 2 + (columns - column) ** 2
    return np.exp(-0.5 * square / width**2).astype(np.float32)


def frames(velocity, number=4, start=(14, 16)):
    places = np.array(start) + np.arange(number)[:, None] * np.array(velocity)
    return np.stack([blob(*place) for place in places])[..., None]


@pytest.mark.parametrize("velocity", [(0, 0), (1, -2), (0.3, 0.4)])
def test_a_translation(velocity):
    flow = np.asarray(jax.jit(motion)(frames(velocity)))
    np.testing.assert_allclose(
        flow[14:20, 14:20], np.broadcast_to(velocity, (6, 6, 2)), atol=0.1
    )
    if any(velocity):  # it is that of what is nearest where nothing is seen
        np.testing.assert_allclose(flow[2, 2], velocity, rtol=0.35, atol=0.1)


def test_what_is_not_observed_does_not_count():
    """A bright, unmoving disk stops the motion around it, unless it is masked."""
    disk = 5 * (blob(18, 22, 4.0) > 0.3)[None, ..., None]
    moving = frames((1, 1))
    observed = np.broadcast_to(disk == 0, moving.shape)
    seen = np.where(observed, moving, disk).astype(np.float32)
    found = np.asarray(jax.jit(motion)(seen, observed))[12:18, 10:16]
    spoilt = np.asarray(jax.jit(motion)(seen, np.ones_like(observed)))[12:18, 10:16]
    assert np.abs(found - 1).max() < 0.25 < np.abs(spoilt - 1).max()
    missing = np.where(observed, moving, np.nan).astype(np.float32)
    again = np.asarray(jax.jit(motion)(missing, observed))[12:18, 10:16]
    np.testing.assert_array_equal(again, found)


@jax.jit
@jax.value_and_grad
def speed(x, observed):
    return jnp.abs(motion(x, observed)).sum()


@pytest.mark.parametrize("case", ["empty", "constant", "unobserved", "one cell wide"])
def test_nothing_to_see(case):
    """No motion, and finite gradients."""
    shape = (3, 9, 1, 2) if case == "one cell wide" else (3, 17, 9, 2)
    x = jnp.full(shape, 0.7 if case == "constant" else 0.0)
    observed = jnp.full(shape, case != "unobserved")
    value, slope = speed(x, observed)
    assert value == 0 and np.isfinite(slope).all()


def test_gradients_of_a_batch():
    x = jnp.stack([frames((1, 0), 3), frames((0, -1), 3)])[:, :, 8:24, 8:28]  # 2 planes

    def error(x):
        return jnp.mean(jax.vmap(motion)(x) ** 2)

    slope = jax.jit(jax.grad(error))(x)
    assert np.isfinite(slope).all() and (np.abs(slope).max(axis=(1, 2, 3, 4)) > 0).all()


def test_one_frame_is_refused():
    with pytest.raises(ValueError, match="one frame shows no motion; expected at lea"):
        motion(jnp.zeros((1, 8, 8, 1)))
