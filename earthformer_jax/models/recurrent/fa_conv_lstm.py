"""FAConvLSTM: a ConvLSTM with factorised kernels and occasional attention.

    layer = FAConvLSTM(filters=64, kernel_size=3, padding="same", return_state=True)
    variables = layer.init(jax.random.key(0), x)        # x [b, t, h, w, c]
    y, h, c = layer.apply(variables, x)

Implemented from the published abstract. A 1x1 bottleneck reduces input and state to R
channels; depthwise kernels of several dilations, shared by both paths and all gates,
mix them in space; squeeze-and-excitation weights the channels; a 1x1 expansion makes
the gates, which see the cell through peepholes. After every fourth step the state
attends along its rows and columns. Per position and step this takes R (c + f) + 2 m k^2
R + 4 f R multiply-adds where a ConvLSTM takes 4 f k^2 (c + f); in exchange the gates of
one position span at most R dimensions.

Reference:
    Nji and Wang 2026, Factorized-Attention ConvLSTM for Efficient Feature Extraction in
    Multivariate Climate Data. https://arxiv.org/abs/2601.10914
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import einops
import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from jax.ad_checkpoint import checkpoint_name
from jax.core import Tracer

from earthformer_jax.layers.axial_attention import (
    AxialAttention,
    attend_plane,
    layer_norm,
)
from earthformer_jax.models import remat as remat_lib
from earthformer_jax.models.recurrent import sparse_scan
from earthformer_jax.models.recurrent.recurrence import (
    ACTIVATIONS,
    Recurrence,
    hold,
    lookup,
    lstm_update,
    pair,
)
from earthformer_jax.models.recurrent.subspace_head import SubspaceHead
from earthformer_jax.ops import convolution, stencil
from earthformer_jax.ops.dense import add, dense, multiply
from earthformer_jax.ops.devices.shared import shared_by_examples
from earthformer_jax.ops.devices.varying import vary_like
from earthformer_jax.ops.tuned.stencil import apply_stencil

NORMS = ("none", "layer")
ATTENTION_PLACES = ("h", "output")

# The output of every kernel keeps the variance of white noise.
_taps = nn.initializers.variance_scaling(
    1.0, "fan_in", "uniform", in_axis=(1, 2), out_axis=3, batch_axis=0
)


class FAConvLSTM(Recurrence):
    """Factorised-attention ConvLSTM with the options of Keras's ConvLSTM2D.

    Shapes are those of ConvLSTM2D for the same kernel_size (odd), strides and padding.
    `dilations` replaces `dilation_rate`. Dropout drops the same entries for all gates,
    since one projection serves them all. kernel_initializer initialises the projections
    from the input and to the gates, recurrent_initializer that from the state.

    Attributes:
        peephole: as in `Recurrence`.
        bottleneck: channels R between the projections; None means max(8, filters / 2).
        dilations: dilation rate of each depthwise branch.
        share_taps: whether input and state share one set of depthwise kernels.
        mix_activation: after these kernels: a name or a function; None means linear.
        squeeze: hidden channels of squeeze-and-excitation; None means max(4, R / 4), 0
            switches it off.
        norm: "layer" normalises the output of the depthwise kernels, "none" does not.
        attention_every: steps from one axial attention to the next; 0 switches it off.
        attention_features: total width of its heads; None means max(8, filters / 4).
        attention_heads: number of its heads; None means 4, or fewer so that none is
            narrower than 8 channels: most of the cost of the attention is its softmax,
            of heads * (h + w) numbers per position.
        attention_where: "h": the attended state is passed on; "output": only the
            output is attended.
        return_step: also return the number of steps taken so far, for `initial_state`.
        return_embeddings: also return the embedding of every step by a `SubspaceHead`.
        head: options of that head.

    Reference:
        Nji and Wang 2026. https://arxiv.org/abs/2601.10914
    """

    peephole: str = "channel"
    bottleneck: int | None = None
    dilations: Sequence[int] = (1, 2, 4)
    share_taps: bool = True
    mix_activation: str | None = "silu"
    squeeze: int | None = None
    norm: str = "none"
    attention_every: int = 4
    attention_features: int | None = None
    attention_heads: int | None = None
    attention_where: str = "h"
    return_step: bool = False
    return_embeddings: bool = False
    head: Mapping[str, Any] = FrozenDict()

    def check(self) -> None:
        """Raises ValueError for unknown or inconsistent options."""
        super().check()
        size = pair("kernel_size", self.kernel_size)
        if any(k % 2 == 0 for k in size):
            raise ValueError(f"kernel_size must be odd; got {size}")
        if pair("dilation_rate", self.dilation_rate) != (1, 1):
            raise ValueError(
                f"dilation_rate={self.dilation_rate}: FAConvLSTM has one dilation per "
                "branch; use dilations, such as dilations=(1, 2, 4)"
            )
        if not self.dilations or any(
            not isinstance(d, int) or d < 1 for d in self.dilations
        ):
            raise ValueError(
                f"dilations needs positive integers; got {tuple(self.dilations)}"
            )
        for option, least in (
            ("bottleneck", 1),
            ("squeeze", 0),
            ("attention_every", 0),
            ("attention_features", 1),
            ("attention_heads", 1),
        ):
            value = getattr(self, option)
            if value is not None and (not isinstance(value, int) or value < least):
                raise ValueError(
                    f"{option} must be an integer >= {least}; got {value!r}"
                )
        for option, known in (("norm", NORMS), ("attention_where", ATTENTION_PLACES)):
            if (value := getattr(self, option)) not in known:
                raise ValueError(f"{option} must be one of {known}; got {value!r}")

    @property
    def width(self) -> int:
        """Channels R of the bottleneck."""
        return self.bottleneck or max(8, self.filters // 2)

    @nn.compact
    def __call__(
        self,
        inputs: jax.Array | None,
        initial_state: Sequence[jax.Array] | None = None,
        mask: jax.Array | None = None,
        *,
        steps: int | None = None,
        time: jax.Array | None = None,
        train: bool = False,
    ):
        """Runs over a sequence.

        Args:
            inputs: `[b, t, h, w, c]`, or `[b, t, c, h, w]` with channels first. None:
                `steps` frames of zeros.
            initial_state: h and c `[b, h', w', filters]` (in the data format), and
                optionally the number of steps taken so far, so that a sequence read in
                pieces attends at the same steps as the whole. None starts from zeros.
            mask: bool `[b, t]`, False where a frame is to be skipped (it still counts
                as a step), or None.
            steps: number of steps, if there are no inputs.
            time: int `[b, t]` or `[t]`, minutes since 1970, of the frames, for the
                embeddings; None counts steps as days.
            train: whether to apply dropout (needs the rng "dropout").

        Returns:
            What ConvLSTM2D returns: the last output or all of them, followed by h and c
            with return_state, by the step number with return_step, and by the
            embeddings `[b, t, d]` with return_embeddings.

        Raises:
            ValueError: for inconsistent options or shapes.
        """
        self.check()
        dtype = self._arithmetic(inputs)
        frames, keep = self._input(inputs, mask, steps, dtype)
        if frames is None:
            batch, plane = self._no_input_state(initial_state)
            channels, pads = self.filters, None
        else:
            batch, channels = frames.shape[0], frames.shape[-1]
            pads, plane = self._geometry(*frames.shape[2:4])
        first, initial_state = _split_step(initial_state)
        state = self._first_state(initial_state, batch, plane, dtype)

        into = self._kernel("kernel_initializer", "input_projection", channels)
        back = self._kernel(
            "recurrent_initializer", "recurrent_projection", self.filters
        )
        centred = convolution.plane_padding(
            plane, pair("kernel_size", self.kernel_size), "same"
        )
        windows, recurrent_window = self._windows(pads or centred, centred)
        for_gates, to_gates = self._gates(dtype)
        for_attention, refine = self._attention()
        taps, offsets = recurrent_window
        shared = dict(
            back=back,
            taps=taps,
            gates=for_gates,
            peephole=self._peephole(plane),
            attention=for_attention,
        )

        if frames is None:
            mixed = jnp.zeros((steps, batch, *plane, self.width), dtype)
        else:
            shape = (batch, 1, *frames.shape[2:])
            drop = self._drop(self.dropout, shape, dtype, train)
            frames = frames if drop is None else frames * drop
            mixed = self._mixed(frames, into.astype(dtype), windows, plane)
        drop = self._drop(self.recurrent_dropout, state[0].shape, dtype, train)

        window = functools.partial(
            apply_stencil, offsets=offsets, plane=plane, strides=(1, 1), wrap=self.wrap
        )
        loop = self._loop(window, to_gates, refine, first, dtype)
        if not isinstance(first, Tracer):
            loop = shared_by_examples(loop, axes=(0, 1, 0), out_axes=(0, 1))
        state, outputs = loop(shared, state, dict(mixed=mixed, keep=keep), drop)
        more = []
        if self.return_step:
            more.append(jnp.asarray(first + len(outputs), jnp.int32))
        if self.return_embeddings:
            more.append(self._embed(outputs, time, keep, first))
        return self._output(outputs, state, *more)

    def _mixed(self, frames, into, windows, plane):
        """Mixed channels of the input `[b, t, h, w, c]`: `[t, b, h', w', R]`."""
        mixed = einops.rearrange(dense(frames, into), "b t h w c -> (b t) h w c")
        strides = pair("strides", self.strides)
        weights, offsets = windows
        mixed = apply_stencil(mixed, weights, offsets, plane, strides, self.wrap)
        return einops.rearrange(mixed, "(b t) h w c -> t b h w c", t=frames.shape[1])

    def _loop(self, window, to_gates, refine, first, dtype) -> Callable:
        """The loop over time, from weights, state, sequence and dropout's factors.

        Args:
            window: the stencil on the state, a function of it and of taps.
            to_gates: function of weights and mixed channels.
            refine: attention, a function of weights and outputs, or None.
            first: number of the first step.
            dtype: of the arithmetic.
        """
        activations = (
            self._function("activation"),
            self._function("recurrent_activation"),
        )
        # Only the R mixed channels of a step are kept for the backward pass.
        policy = remat_lib.policy_of(self.remat, "mixed")

        def loop(shared, state, sequence, drop):
            def step(state, frame):
                hidden, cell = state
                kept = hidden if drop is None else hidden * drop
                # Rounded in every step, so that gradients of the steps are summed
                # before.
                pushed = dense(kept, shared["back"].astype(dtype))
                pushed = window(pushed, shared["taps"])
                mixed = checkpoint_name(frame["mixed"] + pushed, "mixed")
                gates = jnp.split(to_gates(shared["gates"], mixed), 4, axis=-1)
                new_hidden, new_cell = lstm_update(
                    gates, cell, shared["peephole"], *activations
                )
                new = (new_hidden.astype(hidden.dtype), new_cell)
                state = hold(frame["keep"], new, state)
                return state, state[0]

            step = jax.checkpoint(step, prevent_cse=False, policy=policy)
            return sparse_scan.scan(
                step,
                refine and functools.partial(refine, shared["attention"]),
                vary_like(state, sequence, drop),
                sequence,
                every=self.attention_every,
                first=first,
                unroll=self.unroll,
            )

        return loop

    def _kernel(self, initializer, name, channels):
        """A projection to the bottleneck, `[channels, R]`."""
        init = self._function(initializer)
        shape = (channels, self.width)
        return self.param(name, init, shape, self.param_dtype)

    def _windows(self, pads, centred):
        """(weights, offsets) of the stencils on the input and on the state."""
        size = pair("kernel_size", self.kernel_size)
        branches = len(self.dilations)
        shape = (branches, *size, self.width)
        taps = self.param("taps", _taps, shape, self.param_dtype)
        logits = self.param(
            "branch_logits", nn.initializers.zeros, (branches,), self.param_dtype
        )
        share = nn.softmax(logits)[:, None, None, None]
        windows = stencil.dilated_taps(share * taps, self.dilations, pads)
        if not self.share_taps:
            taps = self.param("recurrent_taps", _taps, shape, self.param_dtype)
        return windows, stencil.dilated_taps(share * taps, self.dilations, centred)

    def _gates(self, dtype):
        """Weights, and the function of them from mixed channels to the gates."""
        stored = self.param_dtype
        glorot, zeros = nn.initializers.glorot_uniform(), nn.initializers.zeros
        activate = lookup(ACTIVATIONS, "mix_activation", self.mix_activation)
        width = self.width
        norm = excite = None
        if self.norm == "layer":
            norm = (
                self.param("norm_scale", nn.initializers.ones, (width,), stored),
                self.param("norm_bias", zeros, (width,), stored),
            )
        hidden = max(4, width // 4) if self.squeeze is None else self.squeeze
        if hidden:
            excite = (
                self.param("squeeze_kernel", glorot, (width, hidden), stored),
                self.param("squeeze_bias", zeros, (hidden,), stored),
                self.param("excite_kernel", glorot, (hidden, width), stored),
                self.param("excite_bias", zeros, (width,), stored),
            )
        kernel = self.param(
            "gates_kernel",
            self._function("kernel_initializer"),
            (width, 4 * self.filters),
            stored,
        )
        bias = self._bias()

        def to_gates(weights, mixed):
            norm, excite, kernel, bias = weights
            v = activate(mixed if norm is None else layer_norm(mixed, *norm))
            if excite is not None:
                v = multiply(v, _excitation(v, *excite))
            gates = dense(v, kernel.astype(dtype))
            return gates if bias is None else add(gates, bias)

        return (norm, excite, kernel, bias), to_gates

    def _attention(self):
        """Weights, and the function of them that attends along rows and columns.

        Its other arguments are those of `sparse_scan.scan`'s `refine`.
        """
        if not self.attention_every:
            return None, None
        features = self.attention_features or max(8, self.filters // 4)
        heads = self.attention_heads or max(
            n for n in (1, 2, 3, 4) if n == 1 or features % n == 0 and features >= 8 * n
        )
        weights = AxialAttention(
            heads=heads,
            features=features,
            param_dtype=self.param_dtype,
            name="attention",
        ).weights(self.filters)

        def refine(weights, state, output, frame):
            attended = attend_plane(weights, output, heads)
            attended = hold(frame["keep"], attended, output)
            if self.attention_where == "h":
                state = (attended, state[1])
            return state, attended

        return weights, jax.checkpoint(refine, prevent_cse=False)

    def _embed(self, outputs, time, keep, first):
        """Embeddings `[b, t, d]` of the outputs `[t, b, h, w, c]`."""
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        head = SubspaceHead(**types, **self.head, name="subspace_head")
        if self.go_backwards and time is not None:
            time = jnp.flip(time, axis=-1)
        return head(
            einops.rearrange(outputs, "t b h w c -> b t h w c"),
            time,
            start=first,
            mask=None if keep is None else keep.T > 0,
        )


def _excitation(v, squeeze, squeeze_bias, excite, excite_bias):
    """Factors `[b, 1, 1, r]` on the channels of `[b, h, w, r]`, from their means."""
    mean = v.astype(squeeze.dtype).mean(axis=(1, 2), keepdims=True)
    hidden = nn.relu(mean @ squeeze + squeeze_bias)
    return nn.sigmoid(hidden @ excite + excite_bias)


def _split_step(initial_state):
    """(steps taken, (h, c) or None)."""
    if initial_state is None:
        return 0, None
    if len(initial_state) not in (2, 3):
        raise ValueError(
            "initial_state needs h and c, and optionally the number of steps taken; "
            f"got {len(initial_state)} entries"
        )
    first = initial_state[2] if len(initial_state) == 3 else 0
    if not isinstance(first, Tracer):
        first = int(first)
    return first, initial_state[:2]
