"""S-PROG: what is kept, what fades, and what is never made."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.ops.nowcasting.sprog import keep_mean, s_prog
from tests.ops.nowcasting.test_cascade import smooth_noise

SIZE = (20, 26)
STILL = jnp.zeros((*SIZE, 2))
STEPS = 6


def rain(steps, seed=0):
    """Patches of rain in a dry field, `[steps, h, w, 1]`."""
    fields = np.maximum(smooth_noise(SIZE, steps, seed), 0)[..., None]
    assert 0.2 < np.mean(fields > 0) < 0.8
    return jnp.asarray(fields)


run = jax.jit(s_prog, static_argnums=2)


def forecast(frames, flow):
    """All with one number of steps, so that they share few compiled programs."""
    return run(frames, flow, STEPS)


def test_the_mean_stays_and_no_rain_is_negative():
    frames = rain(3)
    found = forecast(frames, STILL)
    assert found.shape == (STEPS, *SIZE, 1) and found.dtype == np.float32
    assert found.min() == 0
    np.testing.assert_allclose(found.mean((1, 2, 3)), frames[-1].mean(), rtol=1e-5)


def test_what_changes_fast_fades():
    """The variance falls with the lead, and more of it on small scales."""
    found = np.concatenate([rain(3)[-1:], forecast(rain(3), STILL)])[..., 0]
    assert np.all(np.diff(found.var(axis=(1, 2))) < 0)
    rough = np.var(np.diff(found, axis=1), axis=(1, 2)) / found.var(axis=(1, 2))
    assert rough[-1] < 0.5 * rough[0]


def test_what_does_not_change_is_carried_along():
    """Three frames of one moving pattern: the fourth and fifth."""
    rows, columns = np.indices(SIZE)

    def frame(t):
        square = (rows - 8 - t) ** 2 + (columns - 18 + 2 * t) ** 2
        return np.exp(-square / 18)[..., None].astype(np.float32)

    flow = jnp.broadcast_to(jnp.array([1.0, -2.0]), (*SIZE, 2))
    found = forecast(jnp.asarray(np.stack([frame(t) for t in range(3)])), flow)
    np.testing.assert_allclose(found[:2], np.stack([frame(3), frame(4)]), atol=0.02)


def test_smaller_errors_than_the_last_frame():
    """On a process that S-PROG describes, with the frames that really follow."""
    errors = np.zeros((2, 3))
    for seed in range(8):
        fields = jnp.asarray(smooth_noise((32, 32), 6, seed))[..., None]
        found = run(fields[:3], jnp.zeros((32, 32, 2)), 3)
        for i, other in enumerate((found, fields[2])):
            errors[i] += np.mean((other - fields[3:]) ** 2, axis=(1, 2, 3))
    assert np.all(errors[0] < 0.85 * errors[1])


@pytest.mark.parametrize("scale, offset", [(255.0, 0.0), (47.54, -33.44)])
def test_units_make_no_difference(scale, offset):
    frames, flow = rain(3), STILL + 0.4
    found = forecast(frames, flow)
    other = forecast(scale * frames + offset, flow)
    np.testing.assert_allclose((other - offset) / scale, found, atol=2e-5)


def test_a_constant_field_stays():
    """With finite gradients, where all is dry and where all is rain."""
    frames = jnp.full((3, *SIZE, 2), jnp.array([0.0, 0.4]))
    found = forecast(frames, STILL)
    np.testing.assert_allclose(found, [frames[0]] * STEPS, atol=1e-6)
    slope = jax.jit(jax.grad(lambda x: (s_prog(x, STILL, 2) ** 2).sum()))(frames)
    assert np.isfinite(slope).all()


def test_rain_that_ends_leaves_nothing():
    """Rain only in earlier frames: none is forecast."""
    frames = rain(3).at[-1].set(0)
    np.testing.assert_array_equal(forecast(frames, STILL), 0)


def test_batches_and_channels_are_independent():
    frames = jnp.stack([rain(3, seed) for seed in range(2)])
    flow = jnp.stack([STILL, STILL + 0.7])
    found = jax.vmap(lambda x, v: forecast(x, v))(frames, flow)
    for i in range(2):
        alone = forecast(frames[i], flow[i])
        np.testing.assert_allclose(found[i], alone, atol=1e-5)
    both = forecast(jnp.concatenate([frames[0], frames[1]], -1), STILL)
    alone = forecast(frames[1], STILL)
    np.testing.assert_allclose(both[..., 1:], alone, atol=1e-5)


def test_the_field_with_the_mean_is_the_nearest():
    """Against its conditions of optimality, and a gradient against differences."""
    rng = np.random.default_rng(3)
    field = jnp.asarray(rng.normal(1, 1, size=(9, 7)), jnp.float32)
    last = jnp.asarray(np.maximum(field, 0.0)) + 0.5
    last = last + field.mean() - last.mean()
    found = jax.jit(keep_mean)(field, last)
    np.testing.assert_allclose(found.mean(), last.mean(), rtol=1e-6)
    wet = np.asarray(found > last.min())
    less = np.asarray(field - found)
    np.testing.assert_allclose(less[wet], less[wet][0], atol=1e-6)
    assert np.all(less[~wet] <= less[wet][0] + 1e-6)
    weights = jnp.asarray(rng.normal(size=(9, 7)), jnp.float32)

    @jax.jit
    def total(field):
        return (keep_mean(field, last) * weights).sum()

    slope, step = jax.grad(total)(field), 1e-2
    for place in ((0, 0), (4, 3), (8, 6)):
        ends = [total(field.at[place].add(sign * step)) for sign in (1, -1)]
        np.testing.assert_allclose(
            slope[place], (ends[0] - ends[1]) / (2 * step), atol=2e-3
        )


def test_two_frames_are_too_few():
    with pytest.raises(ValueError, match="2 frames do not show how rain changes"):
        s_prog(rain(2), STILL, 1)
