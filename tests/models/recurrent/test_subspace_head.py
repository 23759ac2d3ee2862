"""Days of the year, their code, and embeddings of steps."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.models.recurrent import SubspaceHead
from earthformer_jax.models.recurrent.subspace_head import (
    YEAR,
    day_of_year,
    seasonal_encoding,
)

SMALL = dict(features=16, heads=2, hidden=8)


def minutes(*dates):
    return np.array(dates, "datetime64[m]").astype(np.int64).astype(np.int32)


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@functools.cache
def states():
    return draw(2, 6, 3, 4, 5)


@functools.cache
def variables(**options):
    layer = SubspaceHead(**SMALL | options)
    v = jax.eval_shape(layer.init, jax.random.key(0), states())["params"]
    leaves, tree = jax.tree.flatten(v)
    leaves = [0.4 * draw(*a.shape, seed=i) for i, a in enumerate(leaves)]
    return {"params": tree.unflatten(leaves)}


def run(x=None, time=None, call=None, **options):
    layer = SubspaceHead(**SMALL | options)
    return layer.apply(
        variables(**options), states() if x is None else x, time, **call or {}
    )


def test_days_of_a_common_year():
    dates = np.arange("2021-01-01", "2022-01-01", dtype="datetime64[D]")
    np.testing.assert_array_equal(day_of_year(dates), np.arange(365))
    np.testing.assert_array_equal(day_of_year(minutes(*dates)), np.arange(365))


@pytest.mark.parametrize("year", [1900, 1948, 1970, 2000, 2016, 2100])
def test_a_date_is_the_same_day_in_every_year(year):
    """Also around leap days, centuries included, before 1970 and after."""
    common = np.arange("2021-01-01", "2022-01-01", dtype="datetime64[D]")
    dates = [f"{year}{str(d)[4:]}T18:00" for d in common]
    want = np.arange(365) + 0.75
    np.testing.assert_array_equal(day_of_year(np.array(dates, "datetime64[m]")), want)
    np.testing.assert_array_equal(jax.jit(day_of_year)(minutes(*dates)), want)


def test_the_leap_day_lies_between_its_neighbours():
    dates = minutes("2020-02-28", "2020-02-29", "2020-02-29T12:00", "2020-03-01")
    np.testing.assert_array_equal(day_of_year(dates), [58, 58.5, 58.75, 59])


def test_days_need_whole_minutes():
    with pytest.raises(ValueError, match="integers .* got float32"):
        day_of_year(np.zeros(3, np.float32))


def test_seasonal_code():
    day = jnp.array([0.0, YEAR / 4, 100.0])
    code = seasonal_encoding(day, features=7, harmonics=2)
    np.testing.assert_allclose(code[0], [0, 1, 0, 1, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(code[1], [1, 0, 0, -1, 0, 0, 0], atol=1e-5)
    angle = 2 * np.pi * 100 / YEAR * np.array([1, 2])
    np.testing.assert_allclose(code[2, :4:2], np.sin(angle), atol=1e-5)
    np.testing.assert_allclose(code[2, 1:4:2], np.cos(angle), atol=1e-5)
    again = seasonal_encoding(day + 4000 * YEAR, features=7, harmonics=2)
    np.testing.assert_allclose(again, code, atol=2e-2)
    with pytest.raises(ValueError, match="4 harmonics need 8 features; got 7"):
        seasonal_encoding(day, features=7)


def test_equal_days_of_different_years_get_equal_embeddings():
    days = ("02-26", "02-27", "02-28", "03-01", "03-02", "03-03")
    z = [run(time=minutes(*(f"{year}-{d}" for d in days))) for year in (1948, 2015)]
    np.testing.assert_array_equal(*z)
    other = run(time=minutes(*(f"2015-0{int(d[1]) + 6}{d[2:]}" for d in days)))
    assert not np.allclose(z[0], other, atol=1e-3)


def test_time_may_differ_between_examples():
    time = np.stack([np.arange(6), np.arange(100, 106)]).astype(np.int32) * 1440
    z = run(time=time)
    for i in range(2):
        one = run(states()[i : i + 1], time[i])
        np.testing.assert_allclose(z[i], one[0], rtol=1e-5, atol=1e-5)


def test_a_shifted_window_shifts_what_goes_into_attention():
    def pooled(x, start):
        _, inside = SubspaceHead(**SMALL).apply(
            variables(), x, start=start, mutable="intermediates"
        )
        (query,) = inside["intermediates"]["pooled"]
        day = start + jnp.arange(x.shape[1])
        return query + seasonal_encoding(day, SMALL["features"])

    np.testing.assert_allclose(
        pooled(states(), 10)[:, 2:], pooled(states()[:, 2:], 12), atol=1e-6
    )
    whole = run(call=dict(start=10), causal=True)
    np.testing.assert_allclose(
        whole[:, :4], run(states()[:, :4], call=dict(start=10), causal=True), atol=1e-5
    )
    dates = run(time=np.arange(10, 16, dtype=np.int32) * 1440)
    np.testing.assert_allclose(run(call=dict(start=10)), dates, atol=1e-5)


def test_days_may_be_given_instead_of_times():
    time = minutes(*np.arange("2015-03-01", "2015-03-07", dtype="datetime64[D]"))
    by_day = run(call={"day": day_of_year(time)})
    np.testing.assert_array_equal(by_day, run(time=time))


def test_the_mean_and_maximum_forget_places_and_the_plane_does_not():
    turned = jnp.flip(states(), axis=3)
    chex.assert_trees_all_close(run(turned), run(), atol=1e-5)
    difference = run(turned, plane_features=2) - run(plane_features=2)
    assert jnp.abs(difference).max() > 0.01


def test_without_heads_steps_do_not_see_each_other():
    changed = states().at[:, 2].add(1.0)
    apart = jnp.abs(run(changed, heads=0) - run(heads=0)).max(axis=(0, 2))
    assert apart[2] > 0.01 and jnp.delete(apart, 2).max() == 0


def test_order_does_not_matter_without_a_season():
    """Attention over steps knows them by their code alone."""
    order = np.array([3, 0, 5, 1, 4, 2])
    z = run(harmonics=0)
    np.testing.assert_allclose(
        run(states()[:, order], harmonics=0), z[:, order], atol=1e-5
    )


def test_causal_attention_sees_no_later_step():
    later = states().at[:, 4:].add(1)
    z, other = run(causal=True), run(later, causal=True)
    np.testing.assert_array_equal(z[:, :4], other[:, :4])
    assert not np.allclose(run()[:, :4], run(later)[:, :4], atol=1e-3)


def test_masked_steps_are_not_seen():
    mask = np.array([[1, 0, 1, 1, 1, 1]] * 2, bool)
    other = states().at[:, 1].add(1)
    z, changed = (run(x, call=dict(mask=mask)) for x in (states(), other))
    seen = np.array([0, 2, 3, 4, 5])
    np.testing.assert_array_equal(z[:, seen], changed[:, seen])


def test_unit_length():
    z = run(normalise=True)
    chex.assert_shape(z, (2, 6, 16))
    np.testing.assert_allclose(jnp.linalg.norm(z, axis=-1), 1, atol=1e-5)


@pytest.mark.slow
def test_gradients_are_finite_where_nothing_varies():
    layer = SubspaceHead(**SMALL, normalise=True)
    grads = jax.grad(lambda v: jnp.sum(layer.apply(v, 0 * states()) ** 3))(variables())
    chex.assert_tree_all_finite(grads)


@pytest.mark.parametrize(
    ("options", "call", "message"),
    [
        (dict(heads=3), {}, "3 heads for 16 features"),
        (dict(harmonics=9), {}, "9 harmonics need 18 features"),
        ({}, dict(time=np.zeros(5, np.int32)), r"shape \(6,\) or \(2, 6\); got \(5,\)"),
        ({}, dict(states=jnp.zeros((2, 6, 5))), "states need five axes"),
    ],
)
def test_refusals(options, call, message):
    layer = SubspaceHead(**SMALL | options)
    with pytest.raises(ValueError, match=message):
        layer.init(jax.random.key(0), **dict(states=states()) | call)
