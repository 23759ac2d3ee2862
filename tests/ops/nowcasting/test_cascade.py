"""Bands of wave numbers: a partition, and the process of each, against NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.ops.nowcasting import cascade as lib
from earthformer_jax.ops.nowcasting.cascade import bands

decompose = jax.jit(lib.decompose, static_argnums=1)
expected = jax.jit(lib.expected, static_argnums=(1, 2))


def smooth_noise(size, steps, seed=0):
    """Frames that change slowly on large scales and fast on small ones."""
    rng = np.random.default_rng(seed)
    h, w = size
    rows, columns = np.fft.fftfreq(h)[:, None] * h, np.fft.rfftfreq(w) * w
    waves = np.hypot(rows, columns)
    memory, frames = np.exp(-0.05 * waves), []
    state = np.fft.rfft2(rng.normal(size=size))
    for _ in range(steps):
        shock = np.fft.rfft2(rng.normal(size=size))
        state = memory * state + np.sqrt(1 - memory**2) * shock
        frames.append(np.fft.irfft2(state / (1 + waves), size))
    return np.stack(frames).astype(np.float32)


@pytest.mark.parametrize(
    "size", [(16, 16), (15, 22), (48, 7), (1, 9), (2, 1), (30, 96)]
)
@pytest.mark.parametrize("number", [1, 2, 6])
def test_bands_are_a_partition(size, number):
    weights = bands(size, number)
    assert weights.shape == (number, size[0], size[1] // 2 + 1)
    assert weights.dtype == np.float32 and weights.min() >= 0 and weights.max() <= 1
    np.testing.assert_array_equal(weights.sum(axis=0), 1)
    assert weights[0, 0, 0] == 1  # the mean belongs to the longest waves


def test_a_wave_is_in_the_band_of_its_length():
    """Centres are geometric: 64 cells across, 32 waves at most, 6 bands, factor 2."""
    weights = bands((64, 64), 6)
    for number in range(6):
        waves = 2**number
        np.testing.assert_allclose(weights[:, waves, 0], np.eye(6)[number], atol=1e-6)
        np.testing.assert_allclose(weights[:, 0, waves], np.eye(6)[number], atol=1e-6)


@pytest.mark.parametrize("size", [(24, 24), (18, 25)])
def test_the_process_is_that_of_yule_and_walker(size):
    """In NumPy with fields of bands: correlations, equations, forecasts."""
    frames, number, steps = smooth_noise(size, 3).astype(np.float64) + 2, 4, 3
    weights = bands(size, number).astype(np.float64)
    departures = frames - frames.mean(axis=(1, 2), keepdims=True)
    forecast = np.full((steps, *size), frames[-1].mean())
    cascade = decompose(jnp.asarray(frames, jnp.float32), number)
    for i, weight in enumerate(weights):
        parts = np.fft.irfft2(np.fft.rfft2(departures) * weight, size)
        scale = parts.std(axis=(1, 2))
        one, two = (
            np.mean(parts[2] * part) / (scale[2] * scale[j])
            for j, part in ((1, parts[1]), (0, parts[0]))
        )
        assert 0 < one < 1
        first, second = np.linalg.solve([[1, one], [one, 1]], [one, two])
        np.testing.assert_allclose(cascade.first[i], first, rtol=2e-4, atol=1e-5)
        np.testing.assert_allclose(cascade.second[i], second, rtol=2e-4, atol=1e-5)
        variance = 1 - first * one - second * two
        np.testing.assert_allclose(cascade.shock[i] ** 2, variance, rtol=2e-4)
        now, before = parts[2], parts[1] * scale[2] / scale[1]
        for step in range(steps):
            now, before = first * now + second * before, now
            forecast[step] += now
    found = expected(cascade, size, steps)
    np.testing.assert_allclose(found, forecast, atol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_every_process_is_stationary(seed):
    """Also for frames that have nothing to do with each other, or turn around."""
    frames = np.random.default_rng(seed).normal(size=(3, 12, 10))
    frames[2] = -frames[1] if seed == 3 else frames[0] if seed == 4 else frames[2]
    cascade = decompose(jnp.asarray(frames, jnp.float32), 4)
    for first, second in zip(cascade.first, cascade.second, strict=True):
        roots = np.roots([1, -first, -second])
        assert np.abs(roots).max() < 1
    far = expected(cascade, (12, 10), 200_000 if seed == 4 else 2000)[-1]
    assert np.abs(far - frames[-1].mean()).max() < np.abs(frames[-1]).max()


@jax.jit
@functools.partial(jax.value_and_grad, has_aux=True)
def total(frames):
    found = expected(decompose(frames, 6), (9, 8), 2)
    return found.sum(), found


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_a_constant_field_stays_as_it_is(value):
    """Without NaN, also in the gradient."""
    (_, found), slope = total(jnp.full((3, 9, 8), value))
    np.testing.assert_allclose(found, value, atol=1e-6)
    assert np.isfinite(slope).all()
