"""What the recurrent layers share: Keras's options and the LSTM update.

Internally, sequences are `[t, b, h, w, c]`, time first; callers pass
`[b, t, h, w, c]`, or `[b, t, c, h, w]` with `data_format="channels_first"`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import einops
import jax
import jax.numpy as jnp
from flax import linen as nn

from earthformer_jax.checks import check_fields, check_value
from earthformer_jax.models import remat as remat_lib
from earthformer_jax.ops import convolution
from earthformer_jax.ops.convolution import Pair
from earthformer_jax.settings import at_least, setting

ACTIVATIONS = {
    "linear": lambda x: x,
    "tanh": jnp.tanh,
    "sigmoid": nn.sigmoid,
    "hard_sigmoid": nn.hard_sigmoid,
    "relu": nn.relu,
    "leaky_relu": lambda x: nn.leaky_relu(x, 0.2),
    "elu": nn.elu,
    "selu": nn.selu,
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "silu": nn.silu,
    "swish": nn.silu,
    "softplus": nn.softplus,
    "softsign": nn.soft_sign,
}
INITIALIZERS = {
    "zeros": nn.initializers.zeros,
    "ones": nn.initializers.ones,
    "glorot_uniform": nn.initializers.glorot_uniform(),
    "glorot_normal": nn.initializers.glorot_normal(),
    "he_uniform": nn.initializers.he_uniform(),
    "he_normal": nn.initializers.he_normal(),
    "lecun_uniform": nn.initializers.lecun_uniform(),
    "lecun_normal": nn.initializers.lecun_normal(),
    "orthogonal": nn.initializers.orthogonal(),
}
DATA_FORMATS = ("channels_last", "channels_first")
PAD_MODES = ("zeros", "circular_lon")
PEEPHOLES = ("none", "channel", "full")

_ELSEWHERE = {
    "kernel_regularizer": "add the penalty to the loss",
    "recurrent_regularizer": "add the penalty to the loss",
    "bias_regularizer": "add the penalty to the loss",
    "activity_regularizer": "add the penalty to the loss",
    "kernel_constraint": "project the parameters after the optimiser's step",
    "recurrent_constraint": "project the parameters after the optimiser's step",
    "bias_constraint": "project the parameters after the optimiser's step",
    "seed": "pass rngs={'dropout': key} to apply",
    "stateful": "use return_state=True and pass the state back as initial_state",
}


def lookup(table: dict[str, Callable], option: str, value) -> Callable:
    """The function with that name in a table; a function is returned as it is.

    Raises:
        ValueError: if the name is not in the table.
    """
    if callable(value):
        return value
    if value is None and table is ACTIVATIONS:
        return ACTIVATIONS["linear"]
    if value not in table:
        raise ValueError(
            f"{option} must be a function or one of {', '.join(table)}; got {value!r}"
        )
    return table[value]


def pair(option: str, value: int | Sequence[int]) -> Pair:
    """Two positive integers; a single one is repeated.

    Raises:
        ValueError: for anything else.
    """
    numbers = (value, value) if isinstance(value, int) else tuple(value)
    if len(numbers) != 2 or not all(isinstance(n, int) and n > 0 for n in numbers):
        raise ValueError(
            f"{option} must be one or two positive integers; got {value!r}"
        )
    return numbers


def lstm_update(
    gates: Sequence[jax.Array],
    cell: jax.Array,
    peephole: jax.Array | None,
    activation: Callable,
    recurrent_activation: Callable,
) -> tuple[jax.Array, jax.Array]:
    """(hidden, cell) after one step.

    Args:
        gates: i, f, c, o, each `[..., c]`, before their activations.
        cell: `[..., c]`.
        peephole: `[3, ..., c]` for i, f, o, or None. The first two see the old cell,
            the last one sees the new one.
        activation: of candidate and cell, usually tanh.
        recurrent_activation: of the gates, usually the sigmoid.

    Reference:
        Shi et al. 2015, equation 3. https://arxiv.org/abs/1506.04214
    """
    i, f, z, o = (gate.astype(cell.dtype) for gate in gates)
    weights = None if peephole is None else peephole.astype(cell.dtype)
    if weights is not None:
        i, f = i + weights[0] * cell, f + weights[1] * cell
    cell = recurrent_activation(f) * cell + recurrent_activation(i) * activation(z)
    if weights is not None:
        o = o + weights[2] * cell
    return recurrent_activation(o) * activation(cell), cell


def hold(keep: jax.Array | None, new, old):
    """`new` where the frame counts, `old` where it is masked.

    Args:
        keep: float `[b]`, 0 where the frame is masked; None: no frame is masked.
        new: array or tree of `[b, ...]`.
        old: a tree of the same structure and shapes.
    """
    if keep is None:
        return new

    def choose(n, o):
        return jnp.where(keep.reshape(-1, *[1] * (n.ndim - 1)) > 0, n, o)

    return jax.tree.map(choose, new, old)


class Recurrence(nn.Module):
    """Options of Keras's ConvLSTM2D, and everything around the steps.

    Attributes:
        filters: channels of state and output.
        kernel_size: (h, w) of the windows, or one number for both.
        strides: of the convolution of the input; that of the state has stride 1.
        padding: "valid" or "same", of the convolution of the input; that of the state
            is always "same".
        data_format: "channels_last" (also None) or "channels_first".
        dilation_rate: of the convolution of the input; cannot be combined with strides.
        activation: of candidate and cell: a name or a function; None means linear.
        recurrent_activation: of the gates.
        use_bias: whether the gates have a bias.
        kernel_initializer: of the weights on the input: a name or a function.
        recurrent_initializer: of the weights on the state.
        bias_initializer: of the gates' bias.
        unit_forget_bias: start the forget gate's bias at one.
        dropout: fraction of the input's entries dropped, the same ones at all steps.
        recurrent_dropout: fraction of the state's entries dropped before they reach
            the gates, the same ones at all steps.
        return_sequences: return every output, not only the last.
        return_state: also return the last state, for `initial_state` of a later call.
        go_backwards: read the sequence from its end; outputs come in that order.
        unroll: whether to unroll the loop, or how many steps of it.
        pad_mode: "zeros", or "circular_lon" if the width is a circle of longitude.
        peephole: how gates see the cell: "none", "channel" (one weight per channel) or
            "full" (one per channel and position, which fixes the size of the plane).
        remat: what is computed again in the backward pass; see `models.remat`.
        dtype: computation type; None follows the input. The cell is float32 at least.
        param_dtype: parameter type.

    The regularisers, constraints, `seed` and `stateful` of Keras are rejected with a
    message that says what to do instead.
    """

    filters: int
    kernel_size: int | Sequence[int]
    strides: int | Sequence[int] = 1
    padding: str = "valid"
    data_format: str | None = None
    dilation_rate: int | Sequence[int] = 1
    activation: str | Callable | None = "tanh"
    recurrent_activation: str | Callable | None = "sigmoid"
    use_bias: bool = True
    kernel_initializer: str | Callable = "glorot_uniform"
    recurrent_initializer: str | Callable = "orthogonal"
    bias_initializer: str | Callable = "zeros"
    unit_forget_bias: bool = True
    kernel_regularizer: None = None
    recurrent_regularizer: None = None
    bias_regularizer: None = None
    activity_regularizer: None = None
    kernel_constraint: None = None
    recurrent_constraint: None = None
    bias_constraint: None = None
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    seed: None = None
    return_sequences: bool = False
    return_state: bool = False
    go_backwards: bool = False
    stateful: bool = False
    unroll: bool | int = False
    pad_mode: str = "zeros"
    peephole: str = "none"
    remat: remat_lib.Remat = setting("none", remat_lib.ACCEPTED)
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def check(self) -> None:
        """Raises ValueError for unknown or inconsistent options."""
        for option, instead in _ELSEWHERE.items():
            if value := getattr(self, option):
                raise ValueError(f"{option}={value!r} is not an option here; {instead}")
        check_fields(self)
        check_value("filters", self.filters, at_least(1))
        pair("kernel_size", self.kernel_size)
        strides = pair("strides", self.strides)
        dilation = pair("dilation_rate", self.dilation_rate)
        if max(strides) > 1 and max(dilation) > 1:
            raise ValueError(
                f"strides={strides} and dilation_rate={dilation} cannot be combined; "
                "use one of them"
            )
        for option, known in (
            ("data_format", (None, *DATA_FORMATS)),
            ("pad_mode", PAD_MODES),
            ("peephole", PEEPHOLES),
        ):
            if (value := getattr(self, option)) not in known:
                raise ValueError(f"{option} must be one of {known}; got {value!r}")
        if self._padding not in convolution.PADDINGS:
            raise ValueError(
                f"padding must be one of {convolution.PADDINGS}; got {self.padding!r}"
            )
        if self.wrap and self._padding != "same":
            raise ValueError(
                "pad_mode='circular_lon' needs padding='same'; "
                f"got padding={self.padding!r}"
            )
        for option in ("dropout", "recurrent_dropout"):
            if not 0 <= (rate := getattr(self, option)) < 1:
                raise ValueError(f"{option} must be in [0, 1); got {rate}")

    @property
    def wrap(self) -> bool:
        """Whether the width wraps around."""
        return self.pad_mode == "circular_lon"

    @property
    def _padding(self) -> str:
        return str(self.padding).lower()

    def _function(self, option: str) -> Callable:
        """The activation or initialiser named by an option."""
        table = INITIALIZERS if option.endswith("initializer") else ACTIVATIONS
        return lookup(table, option, getattr(self, option))

    def _arithmetic(self, inputs):
        """The type of the arithmetic."""
        if self.dtype is not None:
            return jnp.dtype(self.dtype)
        floats = inputs is not None and jnp.issubdtype(inputs.dtype, jnp.floating)
        return jnp.result_type(inputs) if floats else jnp.dtype(jnp.float32)

    def _input(self, inputs, mask, steps, dtype):
        """Frames `[b, t, h, w, c]` or None, and the mask as float `[t, b]` or None."""
        if inputs is not None:
            if inputs.ndim != 5 or 0 in inputs.shape[1:]:
                raise ValueError(
                    "inputs need five axes (batch, time, height, width, channel), none "
                    f"of them empty; got shape {tuple(inputs.shape)}"
                )
            if steps is not None:
                raise ValueError(f"steps={steps} is only for inputs=None")
            inputs = jnp.asarray(inputs)
            if self._channels_first:
                inputs = einops.rearrange(inputs, "b t c h w -> b t h w c")
            inputs = inputs.astype(dtype)
        elif steps is None or steps < 1:
            raise ValueError(f"inputs=None needs steps, 1 or more; got {steps}")
        if mask is not None:
            if inputs is None or mask.shape != inputs.shape[:2]:
                raise ValueError(
                    "mask needs shape (batch, time) of the inputs; got "
                    f"{tuple(mask.shape)} for inputs "
                    f"{None if inputs is None else inputs.shape[:2]}"
                )
            mask = jnp.asarray(mask).astype(jnp.float32)
        if self.go_backwards:
            inputs, mask = jax.tree.map(lambda x: jnp.flip(x, axis=1), (inputs, mask))
        return inputs, None if mask is None else mask.T

    def _geometry(self, height: int, width: int):
        """(padding of the input's window, output plane)."""
        kernel, strides = pair("", self.kernel_size), pair("", self.strides)
        if self.wrap and width % strides[1]:
            raise ValueError(
                f"pad_mode='circular_lon' needs a width that strides divide; got "
                f"width {width} and strides {strides}"
            )
        plane, dilation = (height, width), pair("", self.dilation_rate)
        pads = convolution.plane_padding(
            plane, kernel, self._padding, strides, dilation
        )
        return pads, convolution.output_plane(plane, kernel, pads, strides, dilation)

    def _first_state(self, initial_state, batch, plane, dtype):
        """(hidden, cell) `[b, h, w, c]`: as given, or zeros."""
        shape = (batch, *plane, self.filters)
        types = (dtype, jnp.promote_types(dtype, jnp.float32))
        if initial_state is None:
            return tuple(jnp.zeros(shape, t) for t in types)
        state = tuple(jnp.asarray(x) for x in initial_state)
        if self._channels_first:
            state = tuple(einops.rearrange(x, "b c h w -> b h w c") for x in state)
        if len(state) != 2 or any(x.shape != shape for x in state):
            raise ValueError(
                f"initial_state needs h and c of shape {shape} (channels last); got "
                f"{[tuple(x.shape) for x in state]}"
            )
        return tuple(x.astype(t) for x, t in zip(state, types, strict=True))

    def _no_input_state(self, initial_state):
        """Batch and plane of a layer without inputs, from its initial state."""
        if initial_state is None:
            raise ValueError("inputs=None needs an initial_state")
        shape = jnp.shape(initial_state[0])
        if len(shape) != 4:
            raise ValueError(f"initial_state needs four axes; got shape {shape}")
        return shape[0], shape[2:] if self._channels_first else shape[1:3]

    @property
    def _channels_first(self) -> bool:
        return self.data_format == "channels_first"

    def _drop(self, rate, shape, dtype, train):
        """Factors that drop entries and keep the mean, or None."""
        if not train or not rate:
            return None
        kept = jax.random.bernoulli(self.make_rng("dropout"), 1 - rate, shape)
        return kept.astype(dtype) / (1 - rate)

    def _check_given(self, name: str, used: bool, advice: str) -> None:
        """Refuses weights without a parameter of this layer, or with one it lacks."""
        if self.is_initializing() or self.has_variable("params", name) == used:
            return
        if used:
            raise ValueError(
                f"this layer has a parameter {name!r}, and its weights have none: "
                f"set {advice}, or use weights with it"
            )
        raise ValueError(
            f"the weights have a {name!r}, and this layer has none: set {advice}, or "
            "use weights without it"
        )

    def _bias(self):
        self._check_given("bias", self.use_bias, f"use_bias={not self.use_bias}")
        if not self.use_bias:
            return None
        init = self._function("bias_initializer")

        def create(key, shape, dtype):
            bias = init(key, shape, dtype)
            if self.unit_forget_bias:
                bias = bias.at[self.filters : 2 * self.filters].set(1)
            return bias

        return self.param("bias", create, (4 * self.filters,), self.param_dtype)

    def _peephole(self, plane):
        used = self.peephole != "none"
        advice = "peephole='none'" if used else "peephole='channel' or 'full'"
        self._check_given("peephole", used, advice)
        if not used:
            return None
        where = () if self.peephole == "channel" else plane
        return self.param(
            "peephole",
            nn.initializers.zeros,
            (3, *where, self.filters),
            self.param_dtype,
        )

    def _output(self, hidden: jax.Array, state, *more):
        """What Keras returns for the same options, followed by `more`."""
        y = hidden if self.return_sequences else hidden[-1]
        if self.return_sequences:
            y = einops.rearrange(y, "t b h w c -> b t h w c")
        result = (y, *state) if self.return_state else (y,)
        if self._channels_first:
            result = tuple(
                einops.rearrange(x, "... h w c -> ... c h w") for x in result
            )
        result = (*result, *more)
        return result[0] if len(result) == 1 else result
