"""Group norms in C++ equal those of JAX, and are used in their place."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.layers.norm import GroupNorm
from earthformer_jax.ops import forward_mode
from earthformer_jax.ops import norm as plain
from earthformer_jax.ops.tuned.native import calls, library
from earthformer_jax.ops.tuned.native import group_norm as native
from tests.ops.tuned.native.comparing import (
    NEEDS_COMPILER,
    WAYS,
    check_on_two_devices,
    value_and_gradients,
)

pytestmark = NEEDS_COMPILER

# Shape and groups: of one channel, across vectors, of all channels.
SIZES = {
    "groups of one channel": ((2, 3, 5, 16), 16),
    "groups across vectors": ((2, 4, 3, 48), 2),
    "one group": ((1, 1, 2, 32), 1),
    "several pieces": ((3, 20, 31, 16), 4),
    "more channels than a piece holds": ((1, 2, 2, 4112), 2),
}


def arguments(shape):
    """Without values that rounding could take across the kink of the ReLU."""
    random = np.random.default_rng(0)
    x = 3 + 2 * random.normal(size=shape)
    scale, offset = 1 + 0.1 * random.normal(size=(2, shape[-1]))
    return [jnp.asarray(y, jnp.float32) for y in (x, scale, offset - 1)]


@pytest.mark.parametrize("slope", [1.0, 0.1])
@pytest.mark.parametrize("size", SIZES)
def test_as_in_jax(size, slope):
    shape, groups = SIZES[size]
    given = arguments(shape)
    assert native.suits(*given)
    how = dict(groups=groups, epsilon=1e-5, slope=slope)
    found, wanted = (
        value_and_gradients(functools.partial(each.group_norm, **how), *given)
        for each in (native, plain)
    )
    chex.assert_trees_all_close(found, wanted, rtol=1e-5, atol=2e-5)


def test_far_from_zero():
    """The variance does not drown in the square of the mean."""
    x, scale, offset = arguments((1, 40, 40, 16))
    x = x.at[:, :20].add(3e3) + 1e4
    how = dict(groups=4, epsilon=1e-5)
    found = native.group_norm(x, scale, offset, **how)
    with jax.enable_x64(True):
        wide = [jnp.asarray(y, jnp.float64) for y in (x, scale, offset)]
        wanted = plain.group_norm(*wide, **how)
    np.testing.assert_allclose(found, wanted, atol=2e-6)


def test_used_by_the_layer():
    layer, x = GroupNorm(4), arguments((2, 3, 4, 16))[0]
    params = layer.init(jax.random.key(0), x)

    def run(params, x):
        return layer.apply(params, x, slope=0.2)

    found = value_and_gradients(run, params, x)
    assert library.target("group_norm") in jax.jit(run).lower(params, x).as_text()
    for context in (library.without, forward_mode):
        with context():
            text = jax.jit(run).lower(params, x).as_text()
            assert library.target("group_norm") not in text
    with library.without():
        wanted = value_and_gradients(run, params, x)
    chex.assert_trees_all_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((1, 4, 4, 24), jnp.float32),
        ((4, 4, 16), jnp.float32),
        ((0, 4, 4, 16), jnp.float32),
        ((1, 4, 4, 16), jnp.bfloat16),
    ],
)
def test_what_does_not_suit(shape, dtype):
    assert not native.suits(*(y.astype(dtype) for y in arguments(shape)))


def test_other_arrays_are_refused():
    x, scale, offset = arguments((1, 2, 2, 16))
    how = dict(groups=4, epsilon=1e-5)
    with pytest.raises(ValueError, match="scale has shape"):
        native.group_norm(x, scale[:8], offset, **how)
    with pytest.raises(ValueError, match="offset"):
        native.group_norm(x, scale, offset.astype(jnp.bfloat16), **how)
    for groups in (3, 0, -4, 32):
        with pytest.raises(ValueError, match=f"{groups} groups .* the 16 channels"):
            native.group_norm(x, scale, offset, groups=groups, epsilon=1e-5)


def test_what_is_not_finite_stays_so():
    x, scale, offset = arguments((2, 3, 3, 32))
    how = dict(groups=2, epsilon=1e-5, slope=0.1)
    found = native.group_norm(x.at[0, 1, 1, 3].set(jnp.nan), scale, offset, **how)
    assert np.isnan(found[0, ..., :16]).all()
    assert np.isfinite(found[0, ..., 16:]).all() and np.isfinite(found[1]).all()


def test_second_derivatives():
    given = arguments((2, 3, 4, 16))
    how = dict(groups=4, epsilon=1e-5, slope=0.1)

    def second(function):
        def norm_of_gradient(x, scale, offset):
            found = jax.grad(lambda *y: jnp.sum(jnp.sin(function(*y, **how))), (0, 1))
            return sum(jnp.sum(jnp.square(y)) for y in found(x, scale, offset))

        return jax.jit(jax.grad(norm_of_gradient))(*given)

    found, wanted = second(native.group_norm), second(plain.group_norm)
    chex.assert_trees_all_close(found, wanted, rtol=1e-4, atol=1e-4 * abs(wanted).max())


@pytest.mark.parametrize("how", WAYS)
def test_on_two_devices(how):
    x, *weights = arguments((2, 3, 4, 16))

    def function(weights, x):
        return native.group_norm(x, *weights, groups=4, epsilon=1e-5, slope=0.1)

    check_on_two_devices(how, function, weights, x)


def test_on_several_cores(monkeypatch):
    given = arguments((5, 3, 4, 16))
    function = functools.partial(native.group_norm, groups=4, epsilon=1e-5)
    wanted = value_and_gradients(function, *given)
    monkeypatch.setattr(calls, "threads", lambda: 3)
    found = value_and_gradients(function, *given)
    chex.assert_trees_all_close(found, wanted, rtol=1e-5, atol=1e-5)
