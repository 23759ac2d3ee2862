"""Weights of the UNet of the SEVIR paper in Keras, MIT-AI-Accelerator's repositories.

    weights = {w.name: w.numpy() for w in keras_model.weights}  # or w.path in Keras 3
    variables = keras_unet.unet_params(weights)
    forecast = UNet(input_shape, target_shape).apply(variables, inputs)

Keras numbers layers of one kind in the order in which they are made: the encoder from
the finest planes, the centre, the decoder from the coarsest. Keras itself is not
needed.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from earthformer_jax.interop.state_dict_file import as_weight, by_name
from earthformer_jax.models.unet import UNet

_HEAD = "output_layer"
_NAME = re.compile(r"(?:.*/)?(?P<layer>[^/]+)/(?P<field>[^/:]+)(?::0)?")
_NUMBERED = re.compile(r"(?P<kind>conv2d|conv2d_transpose|batch_normalization)_?(\d*)")
_CONV = {"kernel": "params/kernel", "bias": "params/bias"}
_NORM = {
    "gamma": "params/scale",
    "beta": "params/bias",
    "moving_mean": "batch_stats/mean",
    "moving_variance": "batch_stats/var",
}


def unet_params(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Variables of `models.unet.UNet` from the weights of the Keras model.

    Args:
        weights: Keras names to arrays: "conv2d/kernel" (kh, kw, in, out),
            "conv2d_transpose_1/kernel" (kh, kw, out, in), "batch_normalization/gamma",
            "output_layer/bias" and so on; a ":0" behind is ignored.

    Returns:
        `{"params": ..., "batch_stats": ...}` for a `UNet` with the channels of these
        weights.

    Raises:
        ValueError: if an entry is missing, unexpected or has another shape.
    """
    layers, kinds = _sorted_layers(weights)
    levels = len(kinds["conv2d_transpose"])
    places = dict(_places(levels))
    for kind, expected in places.items():
        if len(kinds[kind]) != len(expected):
            raise ValueError(
                f"a UNet of {levels} levels (layers conv2d_transpose) has "
                f"{len(expected)} layers {kind}; got {len(kinds[kind])}"
            )
    named = {_HEAD: ("head", _CONV)}
    for kind, expected in places.items():
        fields = _NORM if kind == "batch_normalization" else _CONV
        pairs = zip(kinds[kind], expected, strict=True)
        named |= {layer: (place, fields) for layer, place in pairs}

    flat, source = {}, {}
    for layer, (place, fields) in named.items():
        stored = layers.get(layer, {})
        if set(stored) != set(fields):
            raise ValueError(
                f"{layer} needs the entries {', '.join(fields)}; "
                f"got {', '.join(sorted(stored)) or 'none'}"
            )
        for field, array in stored.items():
            collection, name = fields[field].split("/")
            path = f"{collection}/{place}/{name}"
            is_up = layer.startswith("conv2d_transpose") and field == "kernel"
            # Keras spreads an input with the kernel, Flax correlates: mirrored.
            flat[path] = np.swapaxes(array[::-1, ::-1], 2, 3) if is_up else array
            source[path] = f"{layer}/{field}"
    _check_shapes(flat, source, levels)
    return traverse_util.unflatten_dict(flat, sep="/")


def _sorted_layers(weights):
    """Arrays by layer and field, and the layers of every kind in their order."""
    layers, kinds = defaultdict(dict), defaultdict(list)
    for name, array in by_name(weights).items():
        match = _NAME.fullmatch(name)
        if not match:
            raise ValueError(f"{name!r} is not the name of a weight, LAYER/FIELD")
        layers[match["layer"]][match["field"]] = as_weight(name, array)
    for layer in layers:
        match = _NUMBERED.fullmatch(layer)
        if match:
            kinds[match["kind"]].append((int(match[2] or 0), layer))
        elif layer != _HEAD:
            raise ValueError(f"a UNet has no layer {layer!r}")
    return layers, defaultdict(
        list, {k: [layer for _, layer in sorted(v)] for k, v in kinds.items()}
    )


def _places(levels: int) -> Iterator[tuple[str, list[str]]]:
    """Paths of our layers by kind, in the order in which Keras numbers them."""
    down = [f"encoder_{level}" for level in range(levels)] + ["center"]
    up = [f"decoder_{level}" for level in reversed(range(levels))]
    blocks = [*down, *(f"{block}/convs" for block in up)]
    yield "conv2d", [f"{block}/conv_{i}" for block in blocks for i in range(2)]
    yield "conv2d_transpose", [f"{block}/up" for block in up]
    norms = [f"{block}/norm_{i}" for block in down for i in range(2)]
    for block in up:
        norms += [f"{block}/norm", *(f"{block}/convs/norm_{i}" for i in range(2))]
    yield "batch_normalization", norms


def _check_shapes(flat, source, levels):
    """Compares with the variables of a UNet that has the channels of these weights."""

    def last_axis(path):
        return flat[path].shape[-1] if flat[path].ndim else 0

    first = flat["params/encoder_0/conv_0/kernel" if levels else "params/head/kernel"]
    side = 2**levels
    model = UNet(
        (1, side, side, first.shape[-2] if first.ndim == 4 else 1),
        (1, side, side, last_axis("params/head/bias")),
        tuple(last_axis(f"params/encoder_{i}/conv_0/bias") for i in range(levels)),
        last_axis("params/center/conv_0/bias"),
    )
    inputs = jax.ShapeDtypeStruct((1, *model.input_shape), jnp.float32)
    expected = jax.eval_shape(model.init, jax.random.key(0), inputs)
    leaves: dict[str, Any] = traverse_util.flatten_dict(expected, sep="/")
    for path, want in leaves.items():
        if flat[path].shape != want.shape:
            raise ValueError(
                f"{source[path]} has shape {flat[path].shape}; expected one that "
                f"becomes {want.shape}, as {path}"
            )
