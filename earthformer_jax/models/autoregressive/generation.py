"""Generating codes one after the other, at the same cost for each.

A frame is generated row by row, and a row cell by cell. When the rows that make a row
of a coarser level are complete, that row is computed once, all of its cells together.
All layers keep keys and values in arrays of fixed size (`autoregressive.attention`).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from earthformer_jax.models.autoregressive.decoder import CausalDecoder
from earthformer_jax.ops.devices.varying import vary_like


class State(NamedTuple):
    """What is known before a code is generated.

    Attributes:
        cache: the collection "cache" of the decoder.
        above: for each level but the coarsest `[b, factor, w, c]`, what comes up from
            the last complete row of the next level.
        before: `[b, c]`, the embedded code before, or the learned first vector.
    """

    cache: Any
    above: tuple[jax.Array, ...]
    before: jax.Array


class Generator(NamedTuple):
    """Generates frames of codes.

    Attributes:
        decoder: without variables.
        variables: collections "params" and "memory" of the decoder.
        table: `[Q, c]`, the embedding of the codes.
        positions: `[K * h * w, c]`, from `CausalDecoder.positions`.
        batch: number of examples, b.
        plane: (h, w) of the codes; the decoder's grid may be larger, with codes 0.
        temperature: divides the logits before a code is drawn.
        top_k: only the k most probable codes are drawn; 0: all.
    """

    decoder: CausalDecoder
    variables: Any
    table: jax.Array
    positions: jax.Array
    batch: int
    plane: tuple[int, ...]
    temperature: float
    top_k: int

    def __call__(self, noise: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """All frames of codes.

        Args:
            noise: uniform in [0, 1), `[b, K, h, w]`: the codes are drawn with it. None:
                the most probable code is taken each time.

        Returns:
            int32 codes `[b, K, h, w]` and the float32 logits that they were chosen by,
            `[b, K, h, w, Q]`.
        """
        frames, *plane = self.decoder.grids[0]
        if noise is not None:
            noise = jnp.moveaxis(noise, 0, -1)
            grow = [(0, p - n) for p, n in zip(plane, self.plane, strict=True)]
            noise = jnp.pad(noise, ((0, 0), *grow, (0, 0)))

        def frame(state, numbered):
            return self.frame(state, *numbered)

        numbered = jnp.arange(frames), noise
        state = vary_like(self.start(), self.variables, noise)
        _, out = jax.lax.scan(frame, state, numbered)
        h, w = self.plane
        codes, logits = (jnp.moveaxis(x, 0, 1)[:, :, :h, :w] for x in out)
        return codes, logits

    def start(self) -> State:
        """The state before the first code."""
        decoder, dtype = self.decoder, self.positions.dtype
        sides = [grid[2] for grid in decoder.grids]
        above = tuple(
            jnp.zeros((self.batch, decoder.factor, side, features), dtype)
            for side, features in zip(sides[:-1], decoder.features, strict=False)
        )
        first = self.variables["params"]["first"].astype(dtype)
        state = State({}, above, jnp.broadcast_to(first, (self.batch, *first.shape)))

        def caches():
            """The collection as one call of each kind leaves it."""
            zero, up = jnp.zeros((), jnp.int32), [x[:, 0] for x in above] + [None]
            one = up[0] if up[0] is None else up[0][:, 0]
            _, kept = self._apply(state, "cell", state.before, zero, one)
            for level in range(1, len(sides)):
                rows = above[level - 1]
                _, more = self._apply(state, "row", rows, level, zero, up[level])
                kept = {**kept, **more}
            return kept

        cache = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(caches)
        )
        return state._replace(cache=cache)

    def frame(
        self, state: State, number: jax.Array, noise: jax.Array | None
    ) -> tuple[State, tuple[jax.Array, jax.Array]]:
        """The next frame.

        Args:
            state: before it.
            number: int32 `()`, of the frame.
            noise: `[h, w, b]`, uniform in [0, 1), or None for the most probable codes.

        Returns:
            the state after it, and int32 codes `[b, h, w]` with their float32 logits
            `[b, h, w, Q]`.
        """
        top = len(self.decoder.features) - 1
        _, h, w = self.decoder.grids[0]
        rows = self.decoder.grids[top][1]
        if noise is not None:
            noise = noise.reshape(h * w, self.batch)

        def row(state, i):
            state, out, _ = self._run(top, state, number * rows + i, i, noise)
            return state, out

        state, (codes, logits) = jax.lax.scan(row, state, jnp.arange(rows))
        # The loops over rows of all levels make several axes of h.
        codes = codes.reshape(h, w, self.batch)
        logits = logits.reshape(*codes.shape, logits.shape[-1])
        return state, (jnp.moveaxis(codes, 2, 0), jnp.moveaxis(logits, 2, 0))

    def _run(self, level, state, row, part, noise):
        """Generates all that a row of a level is made of, then computes the row.

        Args:
            level: 0 is that of the codes.
            state: before it.
            row: number of the row, counted through all frames.
            part: number of the row among those that make one of the next level.
            noise: `[h * w, b]` of this frame, or None.

        Returns:
            the state after it, (codes, logits) with axes for rows, column, b, and what
            goes down to the next level.
        """
        if level == 0:
            return self._fine_row(state, row, part, noise)

        def finer(state, part):
            below = self.decoder.factor * row + part
            state, out, down = self._run(level - 1, state, below, part, noise)
            return state, (out, down)

        parts = jnp.arange(self.decoder.factor)
        state, (out, down) = jax.lax.scan(finer, state, parts)
        above = None
        if level < len(state.above):
            above = state.above[level][:, part]
        rows = jnp.moveaxis(down, 0, 1)
        (up, down), cache = self._apply(state, "row", rows, level, row, above)
        changed = list(state.above)
        changed[level - 1] = up
        return state._replace(cache=cache, above=tuple(changed)), out, down

    def _fine_row(self, state, row, part, noise):
        _, h, width = self.decoder.grids[0]
        above = None
        if state.above:
            above = state.above[0][:, part]

        def cell(state, column):
            index = row * width + column
            inside = (row % h < self.plane[0]) & (column < self.plane[1])
            x = state.before + self.positions[index]
            up = None if above is None else above[:, column]
            (logits, down), cache = self._apply(state, "cell", x, index, up)
            u = None if noise is None else noise[index % (h * width)]
            codes = choose(logits, u, self.temperature, self.top_k)
            codes = jnp.where(inside, codes, 0)
            before = self.table[codes].astype(state.before.dtype)
            state = state._replace(cache=cache, before=before)
            return state, (codes, logits, down)

        state, (*out, down) = jax.lax.scan(cell, state, jnp.arange(width))
        return state, tuple(out), None if down is None else jnp.moveaxis(down, 0, 1)

    def _apply(self, state, method, *args):
        variables = dict(self.variables, cache=state.cache)
        out, changed = self.decoder.apply(
            variables, *args, mutable=["cache"], method=method
        )
        return out, changed["cache"]


def choose(
    logits: jax.Array,
    noise: jax.Array | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
) -> jax.Array:
    """Codes from their logits.

    Args:
        logits: float32 `[..., Q]`.
        noise: `[...]`, uniform in [0, 1); None: the most probable code is taken, the
            first of equals.
        temperature: divides the logits.
        top_k: only the k most probable codes (and those as probable) are drawn; 0: all.

    Returns:
        int32 `[...]`.
    """
    if noise is None:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    if 0 < top_k < logits.shape[-1]:
        least = jax.lax.top_k(logits, top_k)[0][..., -1:]
        logits = jnp.where(logits >= least, logits, -jnp.inf)
    below = jnp.cumsum(jax.nn.softmax(logits / temperature), axis=-1)
    # Codes without probability are never chosen: noise < 1, and the sums are compared
    # with their own last one.
    chosen = below <= noise[..., None] * below[..., -1:]
    return jnp.sum(chosen, axis=-1, dtype=jnp.int32)
