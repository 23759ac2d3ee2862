"""The position-wise feed-forward layer of a transformer block."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from earthformer_jax.checks import NONE, check_fields, either
from earthformer_jax.layers import initializers
from earthformer_jax.layers.activation import ACTIVATIONS, activate
from earthformer_jax.layers.dense import Dense, weights_of_dense
from earthformer_jax.layers.dropout import Dropout
from earthformer_jax.layers.norm import NORMS, make_norm, weights_of_norm
from earthformer_jax.ops.dropout import dropout
from earthformer_jax.ops.tuned.in_parts import in_parts, parts
from earthformer_jax.ops.tuned.native.feed_forward import (
    Weights,
    feed_forward,
    suits,
)
from earthformer_jax.ops.tuned.order import flatten_rows
from earthformer_jax.ops.tuned.recompute import recompute
from earthformer_jax.settings import DECAY, at_least, choice, setting


@dataclasses.dataclass(frozen=True)
class FeedForwardOptions:
    """Options of feed-forward layers, the same throughout a model.

    Attributes:
        expansion: hidden width as a multiple of the channels.
        hidden: hidden width; overrides `expansion`.
        activation: name of `activation.ACTIVATIONS`.
        gated: multiply the hidden layer by an activated gate.
        pre_norm: normalise the input; otherwise the sum after the residual.
        dropout: rate, applied after the activation and after `ffn_2`.
        norm: "layer_norm" or "rms_norm".
        linear_init: linear initialisation, "fan_in" or "fan_out".
        dtype: computation type; None follows the input.
        param_dtype: parameter type.
    """

    expansion: int = setting(4, at_least(1))
    hidden: int | None = setting(None, either(at_least(1), NONE))
    activation: str = setting("gelu", choice(*ACTIVATIONS))
    gated: bool = False
    pre_norm: bool = True
    dropout: float = setting(0.1, DECAY)
    norm: str = setting("layer_norm", choice(*NORMS))
    linear_init: str = setting("fan_in", choice(*initializers.LINEAR))
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def __post_init__(self):
        check_fields(self)


class FeedForward(nn.Module):
    """`x + drop(ffn_2(drop(act(ffn_1(norm(x))))))`; gated: `act(gate(·)) * ffn_1(·)`.

    Attributes:
        options: the options of the layer.
    """

    options: FeedForwardOptions = FeedForwardOptions()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`[..., c]` to `[..., c]`, the residual included."""
        options = self.options
        features = x.shape[-1]
        hidden = options.hidden or options.expansion * features
        types = dict(dtype=options.dtype, param_dtype=options.param_dtype)
        kernel = initializers.linear(options.linear_init)
        norm = make_norm(options.norm, name="norm", **types).bind_weights(features)
        names = ("ffn_1", "gate") if options.gated else ("ffn_1",)
        widen = [
            Dense(hidden, kernel_init=kernel, name=name, **types).bind_weights(features)
            for name in names
        ]
        narrow = Dense(features, kernel_init=kernel, name="ffn_2", **types)
        narrow = narrow.bind_weights(hidden)
        drop = Dropout(options.dropout, train)
        keys = drop.key(), drop.key()
        own, epsilon = self._weights_in_usual_form(norm, widen, narrow)
        if own is not None and suits(x, own):
            rate = options.dropout
            return feed_forward(x, own, epsilon=epsilon, rate=rate, keys=keys)
        out = self._in_jax(x, train, ((norm, widen), (narrow, keys)))
        return out if options.pre_norm else norm(out)

    def _in_jax(self, x: jax.Array, train: bool, weights: Any) -> jax.Array:
        """The layer, but for a norm in the end.

        Args:
            x: `[..., c]`.
            train: whether dropout acts.
            weights: of `enter` and `leave`.
        """
        options, features = self.options, x.shape[-1]

        def enter(x, weights):
            norm, widen = weights
            y = norm(x) if options.pre_norm else x
            return [layer(y) for layer in widen]

        def leave(wide, weights):
            narrow, keys = weights
            # The rows of a product: the activation can then take their place.
            rows = [flatten_rows(x) for x in wide]
            up = activate(options.activation, rows[-1])
            up = up * rows[0] if options.gated else up
            down = narrow(dropout(up, options.dropout, keys[0]))
            down = dropout(down, options.dropout, keys[1])
            return down.reshape(*wide[0].shape[:-1], features)

        places = math.prod(x.shape[1:-1])
        if not train or x.ndim < 3 or parts((x,), places) == 1:
            return x + recompute((enter, leave), x, weights)

        def layer(weights, _, fields):
            (part,), (first, second) = fields, weights
            return part + leave(enter(part, first), second), ()

        # Places of an example on one axis: in the order of dropout.
        rows = x.reshape(len(x), places, features)
        out = in_parts(layer, weights, (), (rows,), axis=1, pieces=places)[0]
        return out.reshape(x.shape)

    def _weights_in_usual_form(
        self, norm, widen, narrow
    ) -> tuple[Weights | None, float]:
        """Weights, None if the layer is not the one in C++; epsilon of the norm."""
        options = self.options
        usual = (
            options.pre_norm
            and not options.gated
            and options.activation == "gelu"
            and options.dropout < 1
            and options.dtype in (None, jnp.float32)
        )
        of_norm, up = weights_of_norm(norm), weights_of_dense(widen[0])
        down = weights_of_dense(narrow)
        if not usual or of_norm is None or up is None or down is None:
            return None, 0.0
        scale, offset, epsilon = of_norm
        return Weights(scale, offset, *up, *down), epsilon
