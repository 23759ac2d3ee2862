"""FACL: closed forms, which of its parts is drawn, fields without anything in them."""

import jax
import numpy as np
import pytest

from earthformer_jax import losses

ONES = np.ones((1, 1, 1, 1), np.float32)
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(2, 3, 2, 6, 5, 1)).astype(np.float32)


def loss_of(amplitude):
    """The amplitudes alone (1.0), or from the beginning the correlation."""
    return losses.create_loss("facl", amplitude=amplitude)


def test_amplitudes_by_numpy():
    f, g = (np.abs(np.fft.fft2(z, axes=(2, 3), norm="ortho")) for z in (X, Y))
    want = np.mean((f - g) ** 2)
    np.testing.assert_allclose(loss_of(1.0)(X, Y, ONES), want, rtol=1e-5)


def test_correlation_by_numpy():
    """Sums over modes, which the loss takes over cells."""
    f, g = (np.fft.fft2(z, axes=(2, 3), norm="ortho") for z in (X, Y))
    axes = (1, 2, 3, 4)
    power = np.sum(np.abs(f) ** 2, axes) * np.sum(np.abs(g) ** 2, axes)
    want = np.mean(1 - np.sum(f * np.conj(g), axes).real / np.sqrt(power))
    np.testing.assert_allclose(loss_of(0.1)(X, Y, ONES), want, rtol=1e-4)


def test_amplitudes_do_not_see_where_a_field_is():
    moved = np.roll(Y, (2, 1), axis=(2, 3))
    assert loss_of(1.0)(moved, Y, ONES) < 1e-10
    assert loss_of(0.1)(moved, Y, ONES) > 0.5


def test_correlation_does_not_see_the_amplitude():
    np.testing.assert_allclose(loss_of(0.1)(3 * Y, Y, ONES), 0, atol=1e-5)
    np.testing.assert_allclose(loss_of(0.1)(-Y, Y, ONES), 2, rtol=1e-5)
    np.testing.assert_allclose(
        loss_of(1.0)(3 * Y, Y, ONES), 4 * np.mean(Y**2), rtol=1e-5
    )


def test_amplitudes_are_not_more_than_the_squared_error():
    weights = RNG.uniform(size=X.shape[1:]).astype(np.float32)
    observed = RNG.random(X.shape) < 0.5
    mse = losses.create_loss("mse")(X, Y, weights, observed)
    assert loss_of(1.0)(X, Y, weights, observed) < mse


def test_weights_of_one_mode_are_those_of_the_squared_error():
    """A single cell is its own transform, up to the sign."""
    weights = np.zeros(X.shape[1:], np.float32)
    weights[0, 2, 3] = 0.7
    x, y = np.abs(X), np.abs(Y)
    mse = losses.create_loss("mse")(x, y, weights)
    np.testing.assert_allclose(loss_of(1.0)(x, y, weights), mse, rtol=1e-4)


@pytest.mark.parametrize(
    "progress, want", [(None, 1), (0, 1), (0.45, 0.5), (0.9, 0), (0.95, 0), (1, 0)]
)
def test_probability_of_the_correlation(progress, want):
    got = loss_of(0.1).correlation_probability(progress)
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert loss_of(1.0).correlation_probability(progress) == 0


def test_one_part_is_drawn_with_a_key():
    loss = jax.jit(lambda **at: loss_of(0.1)(X, Y, ONES, **at))
    correlation, amplitude = loss(progress=0.0), loss(progress=1.0)
    drawn = [loss(key=jax.random.key(i), progress=0.45) for i in range(200)]
    is_correlation = np.isclose(drawn, correlation)
    assert (is_correlation | np.isclose(drawn, amplitude)).all()
    assert 70 < is_correlation.sum() < 130
    without = loss(progress=0.45)
    np.testing.assert_allclose(without, (correlation + amplitude) / 2, rtol=1e-5)


@pytest.mark.parametrize("amplitude", [0.1, 1.0])
def test_fields_with_nothing_in_them(amplitude):
    value = jax.value_and_grad(loss_of(amplitude))
    nothing = np.zeros_like(Y)
    for x, y in ((nothing, Y), (X, nothing), (nothing, nothing)):
        loss, gradient = value(x, y, ONES)
        assert np.isfinite(gradient).all()
        assert (loss > 0.1) == (x is not y)
    wrong = value(X, nothing, ONES)[1]  # less rain is a better forecast of none
    assert np.sum(wrong * X) > 0
