"""Weights of a ConvLSTM encoder-forecaster in PyTorch, Hzzone/Precipitation-Nowcasting.

    state_dict = read_state_dict("encoder_forecaster.pth")
    variables = torch_conv_lstm.encoder_forecaster_params(state_dict)
    forecast = EncoderForecaster(input_shape, target_shape).apply(variables, inputs)

There one convolution serves input and state together, its gates ordered i, f, c, o as
ours; a layer without input concatenates zeros, so its input kernel exists without use.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from earthformer_jax.interop.state_dict_file import as_weight, by_name

_PEEPHOLES = ("Wci", "Wcf", "Wco")
_SCALES = re.compile(r"encoder\.rnn(\d+)\._conv\.weight")


def conv_lstm_params(
    state_dict: Mapping[str, Any], prefix: str = ""
) -> dict[str, np.ndarray]:
    """Parameters of one `models.recurrent.ConvLSTM` with peephole "full" (or "none").

    Args:
        state_dict: torch names to arrays: `_conv.weight`, `_conv.bias` and, if the
            layer has peepholes, `Wci`, `Wcf`, `Wco`.
        prefix: of the names, such as "encoder.rnn1.".

    Raises:
        ValueError: if an entry is missing or has another shape.
    """
    weight = _array(state_dict, f"{prefix}_conv.weight", 4)
    bias = _array(state_dict, f"{prefix}_conv.bias", 1)
    _check_bias(f"{prefix}_conv", bias, weight.shape[0])
    if weight.shape[0] % 4 or weight.shape[1] < weight.shape[0] // 4:
        raise ValueError(
            f"{prefix}_conv.weight has shape {weight.shape}: expected (4 f, c + f, kh, "
            "kw) for f filters"
        )
    filters = weight.shape[0] // 4
    kernel = weight.transpose(2, 3, 1, 0)
    params = {
        "kernel": kernel[:, :, :-filters],
        "recurrent_kernel": kernel[:, :, -filters:],
        "bias": bias,
    }
    if f"{prefix}Wci" in state_dict:
        peepholes = [_array(state_dict, prefix + name, 4) for name in _PEEPHOLES]
        params["peephole"] = np.concatenate(peepholes).transpose(0, 2, 3, 1)
    return params


def encoder_forecaster_params(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Variables of `models.recurrent.encoder_forecaster.EncoderForecaster`.

    Args:
        state_dict: torch names to arrays or tensors.

    Returns:
        `{"params": ...}`.

    Raises:
        ValueError: if an entry is missing, unexpected or has another shape.
    """
    state_dict = by_name(state_dict)
    scales = len([name for name in state_dict if _SCALES.fullmatch(name)])
    if not scales:
        raise ValueError(
            "the state dict has no entry encoder.rnn1._conv.weight; is it that of an "
            "encoder-forecaster?"
        )
    params = {}
    for scale in range(scales):
        level = scale + 1
        for side in ("encoder", "forecaster"):
            cell = conv_lstm_params(state_dict, f"{side}.rnn{level}.")
            params[f"{side}_{scale}"] = cell
        down = f"encoder.stage{level}.conv{level}_leaky_1"
        params[f"down_{scale}"] = _conv(state_dict, down)
        up = f"forecaster.stage{level}.deconv{scales - scale}_leaky_1"
        params[f"up_{scale}"] = _conv(state_dict, up, transposed=True)
    last = f"forecaster.stage1.conv{scales}"
    params["head"] = _conv(state_dict, f"{last}_leaky_2")
    params["head_proj"] = _conv(state_dict, f"{last}_3")
    have, known = (sum(map(np.size, p)) for p in (state_dict.values(), _leaves(params)))
    if have != known:
        raise ValueError(
            f"the state dict holds {have} numbers and an encoder-forecaster of "
            f"{scales} scales {known}; it is of another model"
        )
    return {"params": params}


def _conv(state_dict, name, transposed=False):
    """A convolution; a transposed one is stored mirrored, with its channels swapped."""
    weight = _array(state_dict, f"{name}.weight", 4)
    kernel = weight.transpose(2, 3, 1, 0)
    if transposed:
        kernel = weight[:, :, ::-1, ::-1].transpose(2, 3, 0, 1)
    bias = _array(state_dict, f"{name}.bias", 1)
    _check_bias(name, bias, kernel.shape[-1])
    return {"kernel": kernel, "bias": bias}


def _check_bias(name, bias, channels):
    if bias.shape != (channels,):
        raise ValueError(
            f"{name}.bias has shape {bias.shape}: expected ({channels},), one number "
            f"for each channel that {name}.weight makes"
        )


def _array(state_dict, name, axes):
    if name not in state_dict:
        raise ValueError(f"the state dict has no entry {name}")
    array = as_weight(name, state_dict[name])
    if array.ndim != axes:
        raise ValueError(f"{name} needs {axes} axes; got shape {array.shape}")
    return array


def _leaves(params):
    return [a for layer in params.values() for a in layer.values()]
