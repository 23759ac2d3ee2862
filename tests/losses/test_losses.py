"""What all losses have in common: names, options, weights, masks and examples."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax import losses
from earthformer_jax.settings import ConfigError

SIZES = (2, 3, 4, 5, 1)  # b, k, h, w, c
OPTIONS = {"b_mse": dict(thresholds=(0.3, 0.6)), "huber": dict(delta=0.3)}
NAMES = [name for name in losses.names() if name != "none"]
RNG = np.random.default_rng(0)
WEIGHTS = RNG.uniform(0.5, 1, SIZES[1:]).astype(np.float32)
WEIGHTS[:, 0] = 0


def make(name):
    """A loss; in the middle of the training, where facl is both of its parts."""
    loss = losses.create_loss(name, **OPTIONS.get(name, {}))
    return functools.partial(loss, progress=0.5)


def takes_members(name):
    return losses.loss_class(name).takes_members


def fields(name, sizes=SIZES):
    """A forecast, or three members of one, and targets."""
    shape = (3, *sizes) if takes_members(name) else sizes
    rng = np.random.default_rng(1)
    return (rng.uniform(size=x).astype(np.float32) for x in (shape, sizes))


@pytest.mark.parametrize("name", NAMES)
class TestEveryLoss:
    def test_values_without_weight_have_no_effect(self, name):
        forecast, targets = fields(name)
        unknown = targets.copy()
        unknown[:, :, 0] = np.nan
        value = jax.value_and_grad(make(name))
        a, b = value(forecast, targets, WEIGHTS), value(forecast, unknown, WEIGHTS)
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])
        assert np.isfinite(a[0]) and np.any(a[1])

    def test_unknown_values_have_no_effect(self, name):
        forecast, targets = fields(name)
        observed = np.random.default_rng(2).random(SIZES) < 0.5
        unknown = np.where(observed, targets, np.nan)
        value = jax.value_and_grad(make(name))
        a = value(forecast, targets, WEIGHTS, observed)
        b = value(forecast, unknown, WEIGHTS, observed)
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])
        assert np.isfinite(a[0]) and np.any(a[1])

    def test_nothing_known_is_no_error(self, name):
        forecast, targets = fields(name)
        nothing = np.zeros(SIZES, bool)
        value = jax.value_and_grad(make(name))
        loss, gradient = value(forecast, targets * np.nan, WEIGHTS, nothing)
        assert loss == 0 and not np.any(gradient)

    def test_a_batch_is_the_mean_of_its_examples(self, name):
        forecast, targets = fields(name)
        loss = make(name)
        members = takes_members(name)
        parts = [
            loss(forecast[:, i : i + 1] if members else forecast[i : i + 1], y, WEIGHTS)
            for i, y in enumerate(targets[:, None])
        ]
        whole = loss(forecast, targets, WEIGHTS)
        np.testing.assert_allclose(np.mean(parts), whole, rtol=1e-5)

    def test_the_gradient_of_an_exact_forecast_is_finite(self, name):
        loss = make(name)
        _, targets = fields(name)
        exact = np.stack([targets] * 3) if takes_members(name) else targets
        value, gradient = jax.value_and_grad(loss)(exact, targets, WEIGHTS)
        np.testing.assert_allclose(value, 0, atol=1e-6)
        assert np.isfinite(gradient).all()

    def test_bfloat16_forecasts(self, name):
        forecast, targets = fields(name)
        value = make(name)(jnp.asarray(forecast, jnp.bfloat16), targets, WEIGHTS)
        want = make(name)(forecast, targets, WEIGHTS)
        assert value.dtype == jnp.float32
        np.testing.assert_allclose(value, want, rtol=0.02)

    def test_weights_of_a_row_hold_for_every_lead(self, name):
        forecast, targets = fields(name)
        once = WEIGHTS[:1]
        every = np.repeat(once, SIZES[1], axis=0)
        a, b = make(name)(forecast, targets, once), make(name)(forecast, targets, every)
        np.testing.assert_allclose(a, b, rtol=1e-6)

    def test_other_shapes_are_refused(self, name):
        forecast, targets = fields(name)
        with pytest.raises(ValueError, match="forecast has shape"):
            make(name)(forecast[..., :2, :], targets, WEIGHTS)
        with pytest.raises(ValueError, match="observed has shape"):
            make(name)(forecast, targets, WEIGHTS, np.ones(1, bool))


def test_own_terms_are_all():
    loss = losses.create_loss("none")
    assert loss(jnp.ones((1, 2)), jnp.ones(SIZES), WEIGHTS) == 0


class TestCreate:
    def test_unknown_name(self):
        with pytest.raises(ValueError, match="loss='msee': expected one of mse, mae"):
            losses.create_loss("msee")

    def test_unknown_option(self):
        with pytest.raises(ValueError, match=r"no option 'alfa'; did you mean `alpha`"):
            losses.create_loss("afcrps", alfa=1.0)
        with pytest.raises(ValueError, match="it has none"):
            losses.create_loss("mse", alpha=1.0)

    def test_value_that_is_not_accepted(self):
        with pytest.raises(ValueError, match="alpha=1.5: expected a number between"):
            losses.create_loss("afcrps", alpha=1.5)


class TestChoose:
    @pytest.mark.parametrize(
        "own_loss, takes_members, want",
        [
            (False, False, "mse"),
            (False, True, "afcrps"),
            (True, False, "none"),
            (True, True, "none"),
        ],
    )
    def test_default(self, own_loss, takes_members, want):
        name = losses.choose("", own_loss=own_loss, takes_members=takes_members)
        assert name == want
        assert want == losses.choose(
            want, own_loss=own_loss, takes_members=takes_members
        )

    @pytest.mark.parametrize(
        "name, own_loss, takes_members, message",
        [
            ("mse", False, True, "trained with several members; expected afcrps"),
            ("afcrps", False, False, "with one forecast, .*; expected mse, mae"),
            ("mse", True, False, "of its own alone; expected 'none'"),
            ("none", False, False, "has none; expected another"),
            ("none", False, True, "has none; expected another"),
            ("l2", False, False, "loss='l2': expected one of mse"),
        ],
    )
    def test_what_cannot_work(self, name, own_loss, takes_members, message):
        with pytest.raises(ConfigError, match=message):
            losses.choose(name, own_loss=own_loss, takes_members=takes_members)
