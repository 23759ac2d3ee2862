"""STEPS: noise with the variance that each band lacks, and the mean of members."""

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.ops.nowcasting.cascade import bands
from earthformer_jax.ops.nowcasting.steps import noise, steps_mean, steps_members
from tests.ops.nowcasting.test_cascade import decompose, expected, smooth_noise
from tests.ops.nowcasting.test_sprog import SIZE, STILL, forecast, rain

KEY = jax.random.key(4)
members = jax.jit(steps_members, static_argnums=(2, 4))
mean = jax.jit(steps_mean, static_argnums=(2, 4))


def patches():
    """Two channels of rain, `[3, h, w, 2]`."""
    return jnp.concatenate([rain(3), rain(3, 1)], axis=-1)


def test_each_band_keeps_its_variance():
    """A process with the drawn shocks has, after many steps, that of the last field."""
    cascade = decompose(jnp.asarray(smooth_noise((32, 32), 3)), 4)
    draw = jax.jit(jax.vmap(lambda key: noise(cascade, (32, 32), 60, key)))
    drawn = draw(jax.random.split(KEY, 40))
    assert np.abs(drawn.mean(axis=(2, 3))).max() < 1e-5
    parts = np.fft.rfft2(drawn[:, -1])[:, None] * bands((32, 32), 4)
    variance = np.fft.irfft2(parts).var(axis=(2, 3)).mean(axis=0)
    np.testing.assert_allclose(variance, cascade.scale[0] ** 2, rtol=0.25)


def test_noise_follows_the_process():
    """The equation that defines it; shocks are independent of the past."""
    cascade = decompose(jnp.asarray(smooth_noise((24, 20), 3)), 1)
    drawn = np.asarray(jax.jit(noise, static_argnums=(1, 2))(cascade, (24, 20), 9, KEY))
    before, now, after = drawn[:-2], drawn[1:-1], drawn[2:]
    first, second = float(cascade.first[0]), float(cascade.second[0])
    shocks = np.concatenate([drawn[:1], after - first * now - second * before])
    scale = float(cascade.shock[0] * cascade.scale[0, 0])
    np.testing.assert_allclose(shocks.std(axis=(1, 2)), scale, rtol=0.3)
    for past in (now, before):
        assert abs(np.mean(shocks[1:] * past)) < 0.15 * scale * past.std()


def test_members_differ_and_each_keeps_the_mean():
    frames = patches()
    found = members(frames, STILL, 3, KEY, 3)
    assert found.shape == (3, 3, *SIZE, 2) and found.min() == 0
    kept = np.broadcast_to(frames[-1].mean((0, 1)), (3, 3, 2))
    np.testing.assert_allclose(found.mean((2, 3)), kept, rtol=1e-5)
    spread = found.std(axis=0).mean(axis=(1, 2, 3))
    assert np.all(np.diff(spread) > 0)
    rough = np.var(np.diff(found, axis=2), axis=(0, 2, 3, 4))
    smooth = np.var(np.diff(forecast(frames, STILL)[:3], axis=1), axis=(1, 2, 3))
    assert rough[-1] > 2 * smooth[-1]


def test_channels_have_noise_of_their_own():
    frames = patches().at[..., 1].set(patches()[..., 0])
    drawn = members(frames, STILL, 3, KEY, 3) - forecast(frames, STILL)[:3]
    assert abs(np.corrcoef(np.reshape(drawn[0, 0], (-1, 2)).T)[0, 1]) < 0.5


def test_the_mean_is_that_of_the_first_members():
    """Which a key determines."""
    frames, flow = patches(), STILL + 0.3
    found = members(frames, flow, 3, KEY, 3)
    first = mean(frames, flow, 3, KEY, 2)
    np.testing.assert_allclose(first, found[:2].mean(axis=0), atol=1e-5)
    other = members(frames, flow, 3, jax.random.key(5), 3)
    assert np.abs(other - found).max() > 0.01


def test_no_noise_where_nothing_varies():
    """With finite gradients; and none after rain has ended."""
    level = jnp.array([0.0, 0.4])
    frames = jnp.broadcast_to(level, (3, *SIZE, 2))
    np.testing.assert_allclose(mean(frames, STILL, 3, KEY, 2), frames, atol=1e-6)
    slope = jax.jit(jax.grad(lambda x: (steps_mean(x, STILL, 3, KEY, 2) ** 2).sum()))(
        frames
    )
    assert np.isfinite(slope).all()
    ended = mean(patches().at[-1].set(level), STILL, 3, KEY, 2)
    np.testing.assert_allclose(ended, frames, atol=1e-6)


def test_the_expected_field_is_the_mean_without_bounds():
    """Shocks have means of 0, so that many draws leave what S-PROG expects."""
    fields = jnp.asarray(smooth_noise((16, 16), 3))
    cascade = decompose(fields, 3)
    draw = jax.jit(jax.vmap(lambda key: noise(cascade, (16, 16), 3, key)))
    drawn = draw(jax.random.split(KEY, 2000))
    following = expected(cascade, (16, 16), 3)
    off = np.abs(drawn.mean(axis=0)).max() / np.asarray(following).std()
    assert off < 0.15
