"""Functions in bfloat16 with exact derivatives."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.models.gradient_norms import strictly_compiled
from tests.models.rounded_fields import with_exact_gradient

X = jnp.linspace(-1.0, 1.0, 1024)


def narrow(x):
    return x.astype(jnp.bfloat16)


def layers(weights, x, choice):
    """A product, a scan, a branch, a function with its own gradient, and a ReLU."""

    @jax.custom_vjp
    def square(x):
        return x * x

    square.defvjp(lambda x: (x * x, x), lambda x, y: (2 * x * y,))

    def step(carry, row):
        carry = jnp.tanh(carry * narrow(weights) + row)
        return carry, carry

    rows = jnp.outer(narrow(weights), narrow(x[:8])).T
    carry, kept = jax.lax.scan(step, rows[0], rows)
    branches = [square, jnp.sin]
    carry = jax.lax.cond(choice, *branches, jax.nn.relu(carry))
    return jnp.float32(carry).sum() + jnp.square(jnp.float32(kept)).sum()


def test_same_result_and_the_derivative_of_float32():
    weights = jnp.array([0.5, -0.25, 0.0, 1.0])
    for choice in (True, False):
        arguments = weights, X, choice
        exact = with_exact_gradient(layers, "bfloat16")
        have, gradient = strictly_compiled(jax.value_and_grad(exact))(*arguments)
        want, rough = strictly_compiled(jax.value_and_grad(layers))(*arguments)
        np.testing.assert_array_equal(have, want)
        np.testing.assert_allclose(gradient, rough, rtol=0.03, atol=0.01)


def test_what_a_sum_loses():
    """The gradient of a bias that a loop adds 1024 times; 256 + 1 is 256."""

    def loss(bias):
        low = narrow(bias)
        _, rows = jax.lax.scan(lambda carry, x: (carry, low + x), None, narrow(X))
        return jnp.sum(jnp.float32(rows))

    bias = jnp.float32(0.5)
    assert (
        strictly_compiled(jax.grad(with_exact_gradient(loss, "bfloat16")))(bias) == 1024
    )
    assert strictly_compiled(jax.grad(loss))(bias) == 256
