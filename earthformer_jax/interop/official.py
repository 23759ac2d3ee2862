"""Weights and options of the official PyTorch Earthformer.

    model = official.earthformer_from_config(config)
    state_dict = official.read_state_dict("earthformer_icarenso2021.pt")
    variables = official.params_from_state_dict(state_dict, model)
    forecast = model.apply(variables, inputs)

Reference implementation: https://github.com/amazon-science/earth-forecasting-transformer
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.interop import torch_names
from earthformer_jax.interop.official_options import model_options
from earthformer_jax.interop.state_dict_file import read_state_dict
from earthformer_jax.models.earthformer.hierarchy import (
    cross_specs,
    per_level,
    self_specs,
)
from earthformer_jax.models.earthformer.model import Earthformer
from earthformer_jax.ops import attention

__all__ = [
    "earthformer_from_config",
    "params_from_state_dict",
    "read_state_dict",
    "state_dict_from_params",
]

_BUFFER = "relative_position_index"


def earthformer_from_config(config: Mapping[str, Any], **overrides) -> Earthformer:
    """The model that the reference's constructor arguments describe.

    Args:
        config: any subset of the arguments of the reference's `CuboidTransformerModel`
            (`input_shape` and `target_shape` at least), or the `model:` section of one
            of its yaml files. Missing arguments take the reference's defaults.
        **overrides: attributes of our `Earthformer`, such as `dtype`.

    Raises:
        ValueError: for unknown arguments or inconsistent values.
    """
    options: dict[str, Any]
    options = model_options(config) | dict(match_reference=True) | overrides
    model = Earthformer(**options)
    model.check()
    return model


def params_from_state_dict(
    state_dict: Mapping[str, Any], model: Earthformer
) -> dict[str, Any]:
    """Our variables from the reference's state dict.

    Args:
        state_dict: torch names to arrays or tensors. A Lightning checkpoint's prefix
            `torch_nn_module.` is removed; buffers are checked by name only.
        model: the model that the weights are for.

    Returns:
        `{"params": ...}`, ready for `model.apply`.

    Raises:
        ValueError: naming all missing, unexpected and wrongly shaped entries.
    """
    template = _abstract_params(model)
    params = torch_names.import_tree(
        state_dict, template, _rules(model), ignore=(_BUFFER,)
    )
    return {"params": params}


def state_dict_from_params(
    variables: Mapping[str, Any], model: Earthformer
) -> dict[str, np.ndarray]:
    """The reference's state dict from our variables, buffers included.

    Args:
        variables: `{"params": ...}` of `model`.
        model: the model.

    Returns:
        NumPy arrays by torch name, in torch layout; `load_state_dict` of the reference
        takes them (as tensors) with `strict=True`.

    Raises:
        ValueError: if `variables` do not belong to `model`.
    """
    params = variables["params"]
    want = jax.tree.map(lambda x: tuple(x.shape), _abstract_params(model))
    have = jax.tree.map(lambda x: tuple(x.shape), dict(params))
    if want != have:
        raise ValueError(
            "the variables are not those of this model: their names or shapes differ"
        )
    exported = torch_names.export_tree(params, _rules(model))
    return exported | _buffers(model, exported)


def _abstract_params(model: Earthformer):
    inputs = jax.ShapeDtypeStruct((1, *model.input_shape), jnp.float32)
    return dict(jax.eval_shape(model.init, jax.random.key(0), inputs)["params"])


def _rules(model: Earthformer):
    return torch_names.earthformer_rules(
        stacked_stem=model.stem == "stack_conv", cross_start=model.dec_cross_start
    )


def _buffers(model: Earthformer, exported) -> dict[str, np.ndarray]:
    """The index buffer of every attention layer that has a bias table."""
    levels, frames = model.levels, model.memory_grids[0][0] + model.target_shape[0]
    enc = per_level(model.enc_pattern, levels, "enc_pattern")
    dec = per_level(model.dec_self_pattern, levels, "dec_self_pattern")
    cross = per_level(model.dec_cross_pattern, levels, "dec_cross_pattern")
    reach_of = {}
    for level, grid in enumerate(model.memory_grids):
        for i, spec in enumerate(self_specs(enc[level], grid)):
            reach_of[f"encoder.blocks.{level}.", i] = spec.size
        for i, spec in enumerate(self_specs(dec[level], grid)):
            reach_of[f"decoder.self_blocks.{level}.", i] = spec.size
        blocks = f"decoder.cross_blocks.{level - model.dec_cross_start}."
        for i, spec in enumerate(cross_specs(cross[level], grid)):
            reach_of[blocks, i] = (frames, *spec.size)
    buffers = {}
    for name in exported:
        stem, _, leaf = name.rpartition(".")
        if leaf == "relative_position_bias_table":
            prefix = ".".join(stem.split(".")[:3]) + "."
            reach = reach_of[prefix, int(stem.rsplit(".", 1)[1])]
            index = attention.relative_position_index(reach, reach, reach)
            buffers[f"{stem}.{_BUFFER}"] = index.astype(np.int64)
    return buffers
