"""Weights of the TensorFlow E3D-LSTM, google/e3d_lstm.

    reader = tf.train.load_checkpoint(path)
    variables = {n: reader.get_tensor(n) for n in trainable_names}
    variables = tf_e3d_lstm.e3d_lstm_params(variables)
    forecast = E3DLSTM(input_shape, target_shape).apply(variables, inputs)

TensorFlow itself is not needed here. There the convolutions of a cell have no names of
their own but numbers, in the order in which they are made; the last one of a cell sees
one position, the head all frames of a clip, so both are matrices here.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from earthformer_jax.interop.state_dict_file import as_weight, by_name

_CONVS = ("hidden", "inputs", "memory", "output_cell", "output_memory", "output")
_NORMS = {
    "hidden_norm": "hidden",
    "inputs_norm": "inputs",
    "memory_norm": "global_memory",
    "cell_norm": "self_attn",
}
_CELL = re.compile(r"(.*e3d-lstm/)e3d0/conv3d/kernel")


def eidetic_lstm_params(
    variables: Mapping[str, Any], prefix: str = ""
) -> dict[str, dict[str, np.ndarray]]:
    """Parameters of one `models.recurrent.eidetic_lstm.EideticLSTM`.

    Args:
        variables: TensorFlow's names to arrays; of normalisation either all or none.
        prefix: of the cell's names, such as "generator/e3d-lstm/e3d0/".

    Raises:
        ValueError: if an entry is missing, unexpected or has another shape.
    """
    entries = {k: v for k, v in variables.items() if k.startswith(prefix)}
    reader = _Reader(entries)
    hidden = reader.take(f"{prefix}conv3d/kernel", (None,) * 5)
    *sides, features, _ = hidden.shape
    inputs = reader.take(f"{prefix}conv3d_1/kernel", (None,) * 5).shape[3]
    sizes = {
        "hidden": (features, 4),
        "inputs": (inputs, 7),
        "memory": (features, 4),
        "output_cell": (features, 1),
        "output_memory": (features, 1),
        "output": (2 * features, 1),
    }
    params = {}
    for number, name in enumerate(_CONVS):
        layer = f"{prefix}conv3d" + (f"_{number}" if number else "")
        read, gates = sizes[name]
        kernel = (1, 1, 1) if name == "output" else tuple(sides)
        params[name] = {
            "kernel": reader.take(f"{layer}/kernel", (*kernel, read, gates * features)),
            "bias": reader.take(f"{layer}/bias", (gates * features,)),
        }
    params["output"]["kernel"] = params["output"]["kernel"][0, 0, 0]
    if any(name.endswith(("/gamma", "/beta")) for name in entries):
        for name, theirs in _NORMS.items():
            gates = sizes.get(name.removesuffix("_norm"), (0, 1))[1]
            params[name] = {
                ours: reader.take(f"{prefix}{theirs}/{which}", (gates * features,))
                for ours, which in (("scale", "gamma"), ("bias", "beta"))
            }
    reader.finish()
    return params


def e3d_lstm_params(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Variables of `models.recurrent.e3d_lstm.E3DLSTM` without downsampling.

    Args:
        variables: TensorFlow's names, with or without ":0", to arrays: those of the
            trainable variables, without what the optimiser keeps of each.

    Returns:
        `{"params": ...}`.

    Raises:
        ValueError: if an entry is missing, unexpected or has another shape.
    """
    variables = {n.removesuffix(":0"): a for n, a in by_name(variables).items()}
    scopes = {m[1] for m in map(_CELL.fullmatch, variables) if m}
    if len(scopes) != 1:
        raise ValueError(
            "the variables need one entry .../e3d-lstm/e3d0/conv3d/kernel; got "
            f"{len(scopes)}. Are they those of an E3D-LSTM?"
        )
    (scope,) = scopes
    step, rest = {}, dict(variables)
    while any(name.startswith(f"{scope}e3d{len(step)}/") for name in rest):
        prefix = f"{scope}e3d{len(step)}/"
        cell = {k: rest.pop(k) for k in list(rest) if k.startswith(prefix)}
        step[f"cell_{len(step)}"] = eidetic_lstm_params(cell, prefix)
    features = step["cell_0"]["output"]["bias"].size
    reader = _Reader(rest)
    kernel = reader.take(f"{scope}conv3d/kernel", (None, 1, 1, features, None))
    bias = reader.take(f"{scope}conv3d/bias", kernel.shape[-1:])
    reader.finish()
    step["head"] = {"kernel": kernel[:, 0, 0], "bias": bias}
    return {"params": {"step": step}}


class _Reader:
    """Hands out entries, checks their shapes, and knows which ones nobody asked for."""

    def __init__(self, entries: Mapping[str, Any]):
        self.entries = entries
        self.left = set(entries)

    def take(self, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
        """The entry of that name; None in `shape` is any size."""
        if name not in self.entries:
            raise ValueError(f"the variables have no entry {name}")
        array = as_weight(name, self.entries[name])
        fits = len(shape) == array.ndim and all(
            want in (None, have) for want, have in zip(shape, array.shape, strict=True)
        )
        if not fits:
            want = ", ".join("any" if n is None else str(n) for n in shape)
            raise ValueError(f"{name} needs shape ({want}); got {array.shape}")
        self.left.discard(name)
        return array

    def finish(self) -> None:
        """Raises ValueError if an entry is left."""
        if self.left:
            raise ValueError(
                "the variables hold what an E3D-LSTM has not: "
                f"{', '.join(sorted(self.left)[:5])}"
            )
