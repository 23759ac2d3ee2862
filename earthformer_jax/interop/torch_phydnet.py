"""Weights of PhyDNet in PyTorch, vincent-leguen/PhyDNet.

    state_dict = read_state_dict("encoder_phydnet.pth")
    variables = torch_phydnet.phydnet_params(state_dict)
    forecast = PhyDNet(input_shape, target_shape).apply(variables, inputs)

There one convolution makes the gates from input and state together; here each has a
kernel of its own. Transposed convolutions are stored `[in, out, h, w]` and here
`[h, w, in, out]`, without mirroring.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from earthformer_jax.interop.state_dict_file import as_weight, by_name

_STACKS = {
    "encoder": "encoder_E.c",
    "physical_encoder": "encoder_Ep.c",
    "residual_encoder": "encoder_Er.c",
    "decoder": "decoder_D.upc",
    "physical_decoder": "decoder_Dp.upc",
    "residual_decoder": "decoder_Dr.upc",
}


def phydnet_params(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Variables of `models.recurrent.phydnet.PhyDNet`.

    Args:
        state_dict: torch names to arrays or tensors.

    Returns:
        `{"params": ...}`.

    Raises:
        ValueError: if an entry is missing, unexpected or has another shape.
    """
    rest = by_name(state_dict)
    params = {}
    for ours, theirs in _STACKS.items():
        last = 3 if ours in ("encoder", "decoder") else 2
        blocks = params[ours] = {}
        for i in range(last):
            name = f"{theirs}{i + 1}"
            if ours == "decoder" and i == last - 1:
                blocks["conv"] = _conv(rest, name, transposed=True)
            else:
                blocks[f"block_{i}"] = dcgan_block_params(
                    rest, f"{name}.main.", transposed="decoder" in ours
                )
    params["physical"] = phycell_params(rest, "phycell.")
    params["residual"] = convcell_params(rest, "convcell.")
    _finish(rest)
    return {"params": params}


def dcgan_block_params(
    state_dict: dict[str, Any], prefix: str = "main.", *, transposed: bool = False
) -> dict[str, Any]:
    """Parameters of one `dcgan.DCGANBlock`; takes them out of the state dict."""
    conv = _conv(state_dict, f"{prefix}0", transposed=transposed)
    return {"conv": conv, "norm": _norm(state_dict, f"{prefix}1", conv)}


def phycell_params(state_dict: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Parameters of a `phy_cell.CellStack` of PhyCells; takes them out."""
    names = _cells(state_dict, f"{prefix}cell_list.", "F.conv1.weight")
    return {f"cells_{i}": phycell_cell_params(state_dict, n) for i, n in names}


def phycell_cell_params(state_dict: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Parameters of one `models.recurrent.phy_cell.PhyCell`; takes them out."""
    derivative = _conv(state_dict, f"{prefix}F.conv1")
    features = derivative["kernel"].shape[2]
    gates = _split(_conv(state_dict, f"{prefix}convgate"), features)
    return {
        "derivative": derivative,
        "norm": _norm(state_dict, f"{prefix}F.bn1", derivative),
        "combination": _conv(state_dict, f"{prefix}F.conv2"),
        "gate_input": gates[0],
        "gate_state": gates[1],
    }


def convcell_params(state_dict: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Parameters of a `phy_cell.CellStack` of ConvLSTM cells; takes them out."""
    names = _cells(state_dict, f"{prefix}cell_list.", "conv.weight")
    return {f"cells_{i}": convcell_cell_params(state_dict, n) for i, n in names}


def convcell_cell_params(
    state_dict: dict[str, Any], prefix: str = ""
) -> dict[str, Any]:
    """Parameters of one `models.recurrent.phy_cell.ConvLSTMCell`; takes them out."""
    conv = _conv(state_dict, f"{prefix}conv")
    features = len(conv["bias"]) // 4
    gates = _split(conv, conv["kernel"].shape[2] - features)
    return {"gates_input": gates[0], "gates_state": gates[1]}


def _cells(state_dict, prefix, name) -> Sequence[tuple[int, str]]:
    """Numbers and prefixes of the cells there are."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\." + re.escape(name))
    found = [m for m in map(pattern.fullmatch, state_dict) if m]
    if not found:
        raise ValueError(
            f"the state dict has no entry {prefix}0.{name}; is it that of a PhyDNet?"
        )
    return [(i, f"{prefix}{i}.") for i in sorted(int(m[1]) for m in found)]


def _conv(state_dict, name, transposed=False):
    weight = _take(state_dict, f"{name}.weight", 4)
    axes = (2, 3, 0, 1) if transposed else (2, 3, 1, 0)
    kernel = weight.transpose(axes)
    return {"kernel": kernel, "bias": _vector(state_dict, f"{name}.bias", kernel)}


def _norm(state_dict, name, conv):
    """The normalisation of a convolution's results."""
    return {
        "scale": _vector(state_dict, f"{name}.weight", conv["kernel"]),
        "bias": _vector(state_dict, f"{name}.bias", conv["kernel"]),
    }


def _vector(state_dict, name, kernel):
    """One number per channel of the kernel's results."""
    vector = _take(state_dict, name, 1)
    if len(vector) != kernel.shape[-1]:
        raise ValueError(
            f"{name} has {len(vector)} numbers, but the convolution it belongs to has "
            f"{kernel.shape[-1]} channels"
        )
    return vector


def _split(conv, inputs):
    """The convolution of the first channels, with the bias, and that of the others."""
    kernel = conv["kernel"]
    return (
        {"kernel": kernel[:, :, :inputs], "bias": conv["bias"]},
        {"kernel": kernel[:, :, inputs:]},
    )


def _take(state_dict, name, axes):
    if name not in state_dict:
        raise ValueError(f"the state dict has no entry {name}")
    array = as_weight(name, state_dict.pop(name))
    if array.ndim != axes:
        raise ValueError(f"{name} needs {axes} axes; got shape {array.shape}")
    return array


def _finish(state_dict):
    if state_dict:
        raise ValueError(
            "the state dict has entries that a PhyDNet has not: "
            f"{', '.join(sorted(state_dict)[:5])}"
        )
