"""Weights of PredRNN and PredRNN-V2 in PyTorch, thuml/predrnn-pytorch.

state_dict = read_state_dict("model.ckpt")  # its entry "net_param", if it has one
variables = torch_predrnn.predrnn_params(state_dict)
forecast = PredRNN(input_shape, target_shape).apply(variables, inputs)
"""

import re
from collections.abc import Mapping
from typing import Any

from earthformer_jax.interop.state_dict_file import as_weight, by_name

_WINDOWS = {"x": "input", "h": "hidden", "m": "memory", "o": "output"}
_GATES = {"x": 7, "h": 4, "m": 3, "o": 1}
_LAYER = re.compile(r"cell_list\.(\d+)\.conv_last\.weight")


def cell_params(state_dict: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Parameters of one `models.recurrent.spatiotemporal_lstm.SpatiotemporalLSTMCell`.

    Args:
        state_dict: torch names to arrays: `conv_x.0.weight`, ... `conv_last.weight`,
            and `conv_x.1.weight`, `conv_x.1.bias`, ... with layer norm.
        prefix: of the names, such as "cell_list.0.".

    Raises:
        ValueError: if an entry is missing or has another shape.
    """
    fuse = f"{prefix}conv_last.weight"
    features = _array(state_dict, fuse, (None, None, 1, 1)).shape[0]
    channels = {"x": None, "h": features, "m": features, "o": 2 * features}
    shape = (features, channels["o"], 1, 1)
    params: dict[str, Any]
    params = {"fuse_kernel": _array(state_dict, fuse, shape)[:, :, 0, 0].T}
    for short, name in _WINDOWS.items():
        entry, out = f"{prefix}conv_{short}", _GATES[short] * features
        shape = (out, channels[short], None, None)
        kernel = _array(state_dict, f"{entry}.0.weight", shape)
        params[f"{name}_kernel"] = kernel.transpose(2, 3, 1, 0)
        if f"{entry}.1.weight" in state_dict:
            scale, bias = (
                _array(state_dict, f"{entry}.1.{which}", (out, None, None))
                for which in ("weight", "bias")
            )
            params[f"{name}_norm"] = {
                "scale": scale.transpose(1, 2, 0),
                "bias": bias.transpose(1, 2, 0),
            }
    return params


def stack_params(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of `models.recurrent.spatiotemporal_lstm.SpatiotemporalLSTM`.

    Args:
        state_dict: torch names to arrays or tensors: those of the cells,
            `conv_last.weight`, and `adapter.weight` with decoupling.

    Raises:
        ValueError: if an entry is missing, unexpected or has another shape.
    """
    state_dict = by_name(state_dict)
    layers = len([name for name in state_dict if _LAYER.fullmatch(name)])
    if not layers:
        raise ValueError(
            "the state dict has no entry cell_list.0.conv_last.weight; is it that of "
            "a PredRNN?"
        )
    params: dict[str, Any] = {
        f"cell_{i}": cell_params(state_dict, f"cell_list.{i}.") for i in range(layers)
    }
    features = params["cell_0"]["fuse_kernel"].shape[-1]
    head = _array(state_dict, "conv_last.weight", (None, features, 1, 1))
    params["head_kernel"] = head[:, :, 0, 0].T
    if "adapter.weight" in state_dict:
        adapter = _array(state_dict, "adapter.weight", (features, features, 1, 1))
        params["adapter_kernel"] = adapter[:, :, 0, 0].T
    unexpected = set(state_dict) - _known(params)
    if unexpected:
        raise ValueError(
            f"a PredRNN of {layers} layers has no entry {', '.join(sorted(unexpected))}"
        )
    return {"step": params}


def predrnn_params(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Variables of `models.recurrent.predrnn.PredRNN` without downsampling.

    Args:
        state_dict: torch names to arrays or tensors.

    Returns:
        `{"params": ...}`.

    Raises:
        ValueError: if an entry is missing, unexpected or has another shape.
    """
    return {"params": {"recurrence": stack_params(state_dict)}}


def _known(params):
    """Names of the entries that these parameters were read from."""
    names = {"conv_last.weight"}
    if "adapter_kernel" in params:
        names.add("adapter.weight")
    for layer in [name for name in params if name.startswith("cell_")]:
        prefix = f"cell_list.{layer.removeprefix('cell_')}."
        names.add(f"{prefix}conv_last.weight")
        for short, name in _WINDOWS.items():
            names.add(f"{prefix}conv_{short}.0.weight")
            if f"{name}_norm" in params[layer]:
                names |= {f"{prefix}conv_{short}.1.{w}" for w in ("weight", "bias")}
    return names


def _array(state_dict, name, shape):
    """The entry as an array; None in `shape` is any size."""
    if name not in state_dict:
        raise ValueError(f"the state dict has no entry {name}")
    array = as_weight(name, state_dict[name])
    if len(array.shape) != len(shape) or any(
        want is not None and have != want
        for have, want in zip(array.shape, shape, strict=True)
    ):
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"{name} needs shape ({wanted}); got {array.shape}")
    return array
