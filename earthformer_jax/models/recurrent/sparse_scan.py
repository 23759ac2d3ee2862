"""A scan that also refines the state after every n-th step.

Argument conventions, the same in every function here: `step` is (state, x) -> (state,
y); `refine` is (state, y, x) -> (state, y), applied after step x; `sequence` is a tree
of arrays with a common first axis; steps are counted from `first`, so that a sequence
read in pieces is refined at the same steps as the whole one; `unroll` is whether to
unroll the loop, or how many steps of it. All return the last state and the stacked
outputs.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer


def scan(
    step: Callable,
    refine: Callable | None,
    state,
    sequence,
    *,
    every: int,
    first: int | jax.Array = 0,
    unroll: bool | int = False,
):
    """`lax.scan(step, ...)` with `refine` after every `every`-th step.

    Works in chunks, so that the program contains no conditional, unless `first` is
    traced. On a CPU a conditional costs less than the copies between nested loops.

    Args:
        step: see above.
        refine: see above.
        state: tree of arrays.
        sequence: see above.
        every: steps per refinement; 0 never refines, and then `refine` may be None.
        first: steps taken before the sequence.
        unroll: see above.
    """
    if not every or refine is None:
        return lax.scan(step, state, sequence, unroll=unroll)
    options: dict[str, Any] = dict(every=every, unroll=unroll)
    if isinstance(first, Tracer) or jax.default_backend() == "cpu":
        return scan_by_step(step, refine, state, sequence, first=first, **options)
    return scan_in_chunks(step, refine, state, sequence, first=int(first), **options)


def scan_in_chunks(
    step: Callable,
    refine: Callable,
    state,
    sequence,
    *,
    every: int,
    first: int = 0,
    unroll: bool | int = False,
):
    """`scan` over chunks of `every` steps that end with a refinement."""

    def plain(state, part):
        return lax.scan(step, state, part, unroll=unroll)

    def chunk(state, part):
        state, outputs = plain(state, part)
        state, y = refine(state, outputs[-1], jax.tree.map(lambda x: x[-1], part))
        return state, outputs.at[-1].set(y)

    length = len(jax.tree.leaves(sequence)[0])
    head = min(-first % every, length)
    chunks = (length - head) // every
    tail = length - head - chunks * every
    outputs = []

    if head:
        part = jax.tree.map(lambda x: x[:head], sequence)
        run = chunk if (first + head) % every == 0 else plain
        state, y = run(state, part)
        outputs.append(y)
    if chunks:
        part = jax.tree.map(lambda x: x[head : length - tail], sequence)
        part = jax.tree.map(lambda x: x.reshape(chunks, every, *x.shape[1:]), part)
        state, y = lax.scan(chunk, state, part, unroll=unroll)
        outputs.append(y.reshape(chunks * every, *y.shape[2:]))
    if tail:
        part = jax.tree.map(lambda x: x[length - tail :], sequence)
        state, y = plain(state, part)
        outputs.append(y)
    return state, outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs)


def scan_by_step(
    step: Callable,
    refine: Callable,
    state,
    sequence,
    *,
    every: int,
    first: int | jax.Array = 0,
    unroll: bool | int = False,
):
    """`scan` with a conditional after every step.

    Under `vmap` it stays a conditional, as long as `first` is the same for all.
    """
    length = len(jax.tree.leaves(sequence)[0])
    due = (first + 1 + jnp.arange(length)) % every == 0

    def decide(state, frame):
        x, now = frame
        state, y = step(state, x)
        return lax.cond(
            now,
            lambda state, y: refine(state, y, x),
            lambda state, y: (state, y),
            state,
            y,
        )

    return lax.scan(decide, state, (sequence, due), unroll=unroll)
