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
from flax import traverse_util

from earthformer_jax.interop import torch_names
from earthformer_jax.interop.official_options import model_options
from earthformer_jax.interop.state_dict_file import read_state_dict
from earthformer_jax.models.earthformer import tables
from earthformer_jax.models.earthformer.model import Earthformer
from earthformer_jax.ops import attention

__all__ = [
    "arrays_from_state_dict",
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


def arrays_from_state_dict(
    state_dict: Mapping[str, Any], model: Earthformer
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Arrays of the reference's state dict by our paths, whatever their shapes.

    Args:
        state_dict: as for `params_from_state_dict`; of a model whose fields may have
            other sizes.
        model: whose names are looked for.

    Returns:
        {"stem/convs_0/conv_0/kernel": array} of what is there, and the torch names of
        what the model does not have.

    Raises:
        ValueError: if an entry is not an array of finite numbers.
    """
    return torch_names.arrays_by_path(
        state_dict, _abstract_params(model), _rules(model), ignore=(_BUFFER,)
    )


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
    return exported | _buffers(model, params)


def _abstract_params(model: Earthformer):
    inputs = jax.ShapeDtypeStruct((1, *model.input_shape), jnp.float32)
    return dict(jax.eval_shape(model.init, jax.random.key(0), inputs)["params"])


def _rules(model: Earthformer):
    return torch_names.earthformer_rules(
        stacked_stem=model.stem == "stack_conv", cross_start=model.dec_cross_start
    )


def _buffers(model: Earthformer, params) -> dict[str, np.ndarray]:
    """The index buffer of every attention layer that has a bias table."""
    fields, rules, buffers = tables.fields_of(model), _rules(model), {}
    for path in traverse_util.flatten_dict(dict(params), sep="/"):
        reach = tables.bias_reach(path, model, fields)
        if reach is not None:
            stem = torch_names.torch_name(path, rules).rpartition(".")[0]
            index = attention.relative_position_index(reach, reach, reach)
            buffers[f"{stem}.{_BUFFER}"] = index.astype(np.int64)
    return buffers
