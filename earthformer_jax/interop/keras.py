"""Weights of Keras's ConvLSTM2D to and from those of `models.recurrent.ConvLSTM`.

    variables = keras.conv_lstm_params(keras_layer.get_weights())
    y = ConvLSTM(filters=64, kernel_size=3, padding="same").apply(variables, x)
    keras_layer.set_weights(keras.conv_lstm_weights(variables))

Keras itself is not needed. Layers of Keras 2 have `recurrent_activation="hard_sigmoid"`
as their default, a steeper function than Keras 3's of that name: give
`lambda x: jnp.clip(0.2 * x + 0.5, 0, 1)`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from earthformer_jax.checks import shown
from earthformer_jax.interop.state_dict_file import as_weight

_NAMES = ("kernel", "recurrent_kernel", "bias")


def conv_lstm_params(weights: Sequence[Any]) -> dict[str, Any]:
    """Our variables from `keras_layer.get_weights()`.

    Args:
        weights: [kernel, recurrent_kernel, bias], without the bias if the layer has
            none.

    Returns:
        `{"params": ...}` for `ConvLSTM.apply` with the same options.

    Raises:
        ValueError: if these are not the weights of one ConvLSTM2D.
    """
    if not isinstance(weights, list | tuple):
        raise ValueError(
            f"weights={shown(weights)}: expected the list of a layer's get_weights()"
        )
    weights = [as_weight(f"weights[{i}]", w) for i, w in enumerate(weights)]
    if len(weights) not in (2, 3):
        raise ValueError(
            "ConvLSTM2D has two weights, or three with a bias; "
            f"got {len(weights)} arrays"
        )
    params = dict(zip(_NAMES, weights, strict=False))
    _check(params)
    return {"params": params}


def conv_lstm_weights(variables: Mapping[str, Any]) -> list[np.ndarray]:
    """Weights for `keras_layer.set_weights`, from our variables.

    Args:
        variables: `{"params": ...}` of a `ConvLSTM`.

    Returns:
        [kernel, recurrent_kernel, bias], or the first two without a bias.

    Raises:
        ValueError: if these are not the parameters of one `ConvLSTM`, or have
            peepholes, which Keras has not.
    """
    params = {k: np.asarray(v) for k, v in variables["params"].items()}
    if "peephole" in params:
        raise ValueError(
            "ConvLSTM2D has no peepholes; use a layer with peephole='none'"
        )
    if not {"kernel", "recurrent_kernel"} <= set(params) <= set(_NAMES):
        raise ValueError(
            f"a ConvLSTM has the parameters {', '.join(_NAMES)}; got "
            f"{', '.join(sorted(params)) or 'none'}"
        )
    _check(params)
    return [params[name] for name in _NAMES if name in params]


def _check(params):
    """Raises ValueError unless the shapes are those of one layer."""
    shapes = {name: tuple(array.shape) for name, array in params.items()}
    kernel = shapes["kernel"]
    gates = kernel[-1] if len(kernel) == 4 else 0
    want = {
        "kernel": kernel,
        "recurrent_kernel": (*kernel[:2], gates // 4, gates),
        "bias": (gates,),
    }
    if not gates or gates % 4 or any(shapes[n] != want[n] for n in shapes):
        raise ValueError(
            "a ConvLSTM2D has kernel (kh, kw, c, 4 f), recurrent_kernel (kh, kw, f, "
            f"4 f) and bias (4 f,); got {shapes}"
        )
