"""Refinements at every n-th step, in chunks and by decisions, against a Python loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.models.recurrent import sparse_scan


def step(state, x):
    state = 0.5 * state + x["a"]
    return state, 2 * state


def refine(state, y, x):
    return state + 100 * x["b"], -y


def by_loop(state, sequence, every, first):
    outputs = []
    for t, (a, b) in enumerate(zip(sequence["a"], sequence["b"], strict=True)):
        state, y = step(state, dict(a=a))
        if every and (first + t + 1) % every == 0:
            state, y = refine(state, y, dict(b=b))
        outputs.append(y)
    return state, np.stack(outputs)


@pytest.mark.parametrize("length", [1, 2, 5, 9])
@pytest.mark.parametrize("first", [0, 1, 2, 7])
@pytest.mark.parametrize("every", [1, 2, 3, 8])
def test_against_a_loop(every, first, length):
    sequence = {k: np.arange(length) + i for i, k in enumerate("ab")}
    want = by_loop(1.0, sequence, every, first)
    sequence = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), sequence)
    for run in (sparse_scan.scan_in_chunks, sparse_scan.scan_by_step, sparse_scan.scan):
        state, outputs = run(
            step, refine, jnp.float32(1), sequence, every=every, first=first
        )
        np.testing.assert_allclose(outputs, want[1], rtol=1e-6)
        assert float(state) == pytest.approx(want[0])


def test_never():
    sequence = {k: jnp.arange(4.0) for k in "ab"}
    state, outputs = sparse_scan.scan(step, None, jnp.float32(1), sequence, every=0)
    want = by_loop(1.0, {k: np.arange(4.0) for k in "ab"}, 0, 0)
    np.testing.assert_allclose(outputs, want[1])


def test_a_step_number_known_only_at_run_time():
    sequence = {k: jnp.arange(7.0) for k in "ab"}

    @jax.jit
    def run(first):
        return sparse_scan.scan(
            step, refine, jnp.float32(1), sequence, every=3, first=first
        )

    for first in (0, 1, 5):
        want = by_loop(1.0, {k: np.arange(7.0) for k in "ab"}, 3, first)
        np.testing.assert_allclose(run(first)[1], want[1])
