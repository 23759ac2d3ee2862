"""A seasonal linear system as a base: a linear inverse model, or an oscillator.

    state    = sum(field * projection) + memory * memory_gain
    state   <- transition[month] state, once for each month ahead
    forecast = sum(state * patterns)

with fields in physical units, field = model value * scale + offset. The month and the
memory are read from the last input frame: its channels are the field, the cosine and
the sine of the calendar month, and the standardised memory.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import ArrayLike

from earthformer_jax.models.shapes import check_inputs, check_shapes

STATES = 32  # components of the state; a smaller one is filled up with zeros
MONTHS = 12


class LinearBase(nn.Module):
    """Iterates the twelve transitions of a linear system.

    Its arrays, in the collection `batch_stats`, are `transition` [12, 32, 32] (month m
    to m + 1, January = 0), `projection` [H, W, 32], `patterns` [32, H, W],
    `memory_gain` [32], and the numbers `scale` and `offset`.

    Attributes:
        input_shape: (T, H, W, C_in): the field, cosine and sine of the month, and the
            memory if it is used.
        target_shape: (K, H, W, 1).
        uses_memory: read the memory from the fourth channel of the inputs.
    """

    input_shape: tuple[int, int, int, int]
    target_shape: tuple[int, int, int, int]
    uses_memory: bool = False

    def check(self) -> None:
        """Raises ValueError for shapes that lack what the system needs."""
        check_shapes(self.input_shape, self.target_shape)
        channels = self.input_shape[-1]
        if self.target_shape[-1] != 1:
            raise ValueError(
                f"forecasts one channel; the targets have {self.target_shape[-1]}"
            )
        if channels < 3:
            raise ValueError(
                "reads the month from the channels 1 and 2 of the inputs (cosine and "
                f"sine, data.calendar=True); the inputs have {channels} channels"
            )
        if self.uses_memory and channels < 4:
            raise ValueError(
                "reads the memory from channel 3 of the inputs (data.memory=index); "
                f"the inputs have {channels} channels"
            )

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Float32 forecast `[b, K, H, W, 1]` of inputs `[b, T, H, W, C_in]`."""
        check_inputs(inputs, self.input_shape)
        (_, h, w, _), n = self.input_shape, STATES

        def constant(name: str, *shape: int, init=jnp.zeros) -> jax.Array:
            return self.variable("batch_stats", name, init, shape, jnp.float32).value

        transition = constant("transition", MONTHS, n, n)
        projection = constant("projection", h, w, n)
        patterns = constant("patterns", n, h, w)
        memory_gain = constant("memory_gain", n)
        scale, offset = constant("scale", init=jnp.ones), constant("offset")

        last = inputs[:, -1].astype(jnp.float32)
        field = last[..., 0] * scale + offset
        state = jnp.einsum("bhw,hwn->bn", field, projection, precision="highest")
        if self.uses_memory:
            state += last[:, 0, 0, 3, None] * memory_gain
        month = month_of(last[:, 0, 0, 1], last[:, 0, 0, 2])

        def step(state, ahead):
            chosen = transition[(month + ahead) % MONTHS]
            state = jnp.einsum("bij,bj->bi", chosen, state, precision="highest")
            return state, state

        _, states = jax.lax.scan(step, state, jnp.arange(self.target_shape[0]))
        fields = jnp.einsum("kbn,nhw->bkhw", states, patterns, precision="highest")
        return ((fields - offset) / scale)[..., None]


def month_of(cosine: ArrayLike, sine: ArrayLike) -> jax.Array:
    """The calendar month, January = 0, whose angle is 2 pi month / 12; int32."""
    turns = jnp.atan2(sine, cosine) / (2 * jnp.pi)
    return jnp.round(turns * MONTHS).astype(jnp.int32) % MONTHS
