"""The two recurrences of PhyDNet, and stacks of them.

PhyCell moves its state as a partial differential equation would, by a learned sum of
derivatives, and corrects the result with the frame it reads. The ConvLSTM cell holds
what no equation describes. Both are a `Cell`, the interface that `CellStack` runs.

Reference:
    Le Guen and Thome 2020, Disentangling Physical Dynamics from Unknown Factors for
    Unsupervised Video Prediction. https://arxiv.org/abs/2003.01460
"""

from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import linen as nn

from earthformer_jax.layers.frames import each_frame
from earthformer_jax.layers.loop_conv import SAVED, LoopConv
from earthformer_jax.layers.norm import make_group_norm
from earthformer_jax.models import remat as remat_lib
from earthformer_jax.models.recurrent.recurrence import lstm_update
from earthformer_jax.ops.convolution import Pair
from earthformer_jax.settings import setting


class Cell(Protocol):
    """A recurrence over frames."""

    def zeros(self, batch: int, plane: Pair, dtype: Any) -> Any:
        """The state before the first frame."""

    def push(self, frames: jax.Array, *, in_loop: bool = False) -> Any:
        """The part of a step that depends on frames `[n, h, w, c]` only."""

    def step(self, state: Any, pushed: Any) -> tuple[Any, jax.Array]:
        """(next state, output `[b, h, w, c]`)."""
        ...


class PhyCell(nn.Module):
    """A state under a learned differential equation, corrected by every frame.

    The physical model adds to the state h the sum `F(h)` of `derivatives` filters,
    group-normalised; there is no nonlinearity. With the gate K, the gain of a Kalman
    filter,

        predicted = h + F(h)
        K = sigmoid(W_x * x + W_h * h + b)
        h' = predicted + K (x - predicted).

    As in the published code, the gate is computed from the state before its prediction.

    Attributes:
        features: channels of frames, state and output.
        derivatives: filters of the physical model, a multiple of `groups`.
        kernel_size: odd side of these filters.
        groups: of the normalisation.
        dtype: computation type; None follows inputs and parameters. The state is
            float32 at least.
        param_dtype: parameter type.
    """

    features: int
    derivatives: int = 49
    kernel_size: int = 7
    groups: int = 7
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def setup(self):
        types: dict[str, Any]
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        self.derivative = LoopConv(self.derivatives, self.kernel_size, **types)
        self.norm = make_group_norm(self.groups, name=None, **types)
        self.combination = LoopConv(self.features, 1, **types)
        gate: dict[str, Any] = dict(fan_in=9 * 2 * self.features, **types)
        self.gate_input = LoopConv(self.features, **gate)
        self.gate_state = LoopConv(self.features, use_bias=False, **gate)

    def zeros(self, batch: int, plane: Pair, dtype: Any) -> jax.Array:
        """The first state `[b, h, w, features]`."""
        dtype = jnp.promote_types(dtype, jnp.float32)
        return jnp.zeros((batch, *plane, self.features), dtype)

    def push(
        self, frames: jax.Array, *, in_loop: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        """(frames, their share of the gate), both `[n, h, w, features]`."""
        return frames, self.gate_input(frames, in_loop=in_loop)

    def step(self, state: jax.Array, pushed) -> tuple[jax.Array, jax.Array]:
        """(next state, output equal to it) from the state and `push` of a frame."""
        frame, gate = pushed
        predicted = state + self.physics(state).astype(state.dtype)
        gate = (gate + self.gate_state(state, in_loop=True)).astype(state.dtype)
        correction = frame.astype(state.dtype) - predicted
        state = predicted + nn.sigmoid(gate) * correction
        return state, state

    def physics(self, state: jax.Array) -> jax.Array:
        """F: the change of a state in one step, `[b, h, w, features]`."""
        derivatives = self.norm(self.derivative(state, in_loop=True))
        return self.combination(derivatives, in_loop=True)

    def derivative_kernel(self) -> jax.Array:
        """The filters `[k, k, features, derivatives]`."""
        return self.derivative.variables["params"]["kernel"]


class ConvLSTMCell(nn.Module):
    """ConvLSTM with a bias, gates ordered i, f, o, g, and no peepholes.

    Attributes:
        features: channels of state and output.
        inputs: channels of the frames; they bound the initial weights.
        kernel_size: odd side of the kernels.
        dtype: computation type; None follows inputs and parameters. The cell is
            float32 at least.
        param_dtype: parameter type.

    Reference:
        Shi et al. 2015. https://arxiv.org/abs/1506.04214
    """

    features: int
    inputs: int
    kernel_size: int = 3
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def setup(self):
        options: dict[str, Any] = dict(
            features=4 * self.features,
            kernel_size=self.kernel_size,
            fan_in=self.kernel_size**2 * (self.inputs + self.features),
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )
        self.gates_input = LoopConv(**options)
        self.gates_state = LoopConv(use_bias=False, **options)

    def zeros(self, batch: int, plane: Pair, dtype: Any) -> tuple[jax.Array, jax.Array]:
        """The first (hidden, cell), `[b, h, w, features]`."""
        shape = (batch, *plane, self.features)
        wide = jnp.promote_types(dtype, jnp.float32)
        return jnp.zeros(shape, dtype), jnp.zeros(shape, wide)

    def push(self, frames: jax.Array, *, in_loop: bool = False) -> jax.Array:
        """The frames' share of the gates, `[n, h, w, 4 features]`."""
        return self.gates_input(frames, in_loop=in_loop)

    def step(self, state, pushed: jax.Array):
        """((hidden, cell), hidden) from the state and `push` of a frame."""
        hidden, cell = state
        gates = pushed + self.gates_state(hidden, in_loop=True)
        i, f, o, g = jnp.split(gates, 4, axis=-1)
        new, cell = lstm_update((i, f, g, o), cell, None, jnp.tanh, nn.sigmoid)
        hidden = new.astype(hidden.dtype)
        return (hidden, cell), hidden


class CellStack(nn.Module):
    """Cells on top of each other; each reads the new output of the one below.

    Attributes:
        cells: `PhyCell`s or `ConvLSTMCell`s, from the lowest.
        remat: what is computed again in the backward pass; see `models.remat`.
    """

    cells: Sequence[Cell]
    remat: remat_lib.Remat = setting("none", remat_lib.ACCEPTED)

    def zeros(self, batch: int, plane: Pair, dtype: Any) -> tuple:
        """The first state of every cell."""
        return tuple(cell.zeros(batch, plane, dtype) for cell in self.cells)

    def sequence(self, states: Sequence, frames: jax.Array) -> tuple[tuple, jax.Array]:
        """Runs over frames that are all known.

        Cell after cell, not frame after frame: all inputs of a cell are then known
        before its loop, and what depends only on them stays outside.

        Args:
            states: of every cell.
            frames: `[t, b, h, w, c]`.

        Returns:
            The last states, and the outputs of the uppermost cell `[t, b, h, w, c']`.
        """
        last = []
        for cell, state in zip(self.cells, states, strict=True):
            pushed = each_frame(cell.push, frames, time_first=True)
            policy = remat_lib.policy_of(self.remat, SAVED)
            step = nn.remat(type(cell).step, prevent_cse=False, policy=policy)
            scan = nn.scan(
                step, variable_broadcast="params", split_rngs={"params": False}
            )
            state, frames = scan(cell, state, pushed)
            last.append(state)
        return tuple(last), frames

    def step(self, states: Sequence, frame: jax.Array) -> tuple[tuple, jax.Array]:
        """One frame `[b, h, w, c]`: (states, output `[b, h, w, c']`), inside a loop."""
        new = []
        for cell, state in zip(self.cells, states, strict=True):
            state, frame = cell.step(state, cell.push(frame, in_loop=True))
            new.append(state)
        return tuple(new), frame
