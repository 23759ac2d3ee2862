"""Weights of Rainformer in PyTorch, Zjut-MultimediaPlus/Rainformer.

    state_dict = read_state_dict("rainformer.pth")
    model = Rainformer(input_shape, target_shape, **options)
    variables = torch_rainformer.rainformer_variables(state_dict, model)
    forecast = model.apply(variables, inputs)

Left out are attention masks, which follow from the window, and what never acts there:
all but the last pair of Swin blocks of a stage, with their convolutions, and (unless
the model has a place for them) two convolutions of every gate.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.interop import torch_names
from earthformer_jax.interop.state_dict_file import as_weight, by_name
from earthformer_jax.interop.torch_names import Rule
from earthformer_jax.models.rainformer.model import Rainformer

_IGNORED = ("num_batches_tracked", "upper_lower_mask", "left_right_mask")
_DEAD = re.compile(r"(?:^|\.)conv_[23]\.[01]\.(?:weight|bias)$")
_UNIT = re.compile(r"^((?:stage\d+\.)?layers\.)(\d+)\.(.*)$")
_GATES = {"gates": "conv_1", "dead_1": "conv_2", "dead_2": "conv_3"}
_UNITS = {"regular": 0, "shifted": 1, "convs": 2, "casa": 3, "fusion": 4}

# From paths of ours, below "params/" or "batch_stats/", to torch names.
_BLOCK_RULES: tuple[Rule, ...] = (
    (r"^(params|batch_stats)/", ""),
    (r"(^|\bcasa/)conv/", r"\1sa/conv/"),
    (r"(^|\bcasa/)norm/", r"\1sa/bn/"),
    (r"\bconv_([12])/", lambda m: f"conv/{3 * int(m[1]) - 3}/"),
    (r"\bnorm_([12])/", lambda m: f"conv/{3 * int(m[1]) - 2}/"),
    (
        r"\b(gates|dead_1|dead_2)/(conv|norm)\b",
        lambda m: f"{_GATES[m[1]]}/{int(m[2] == 'norm')}",
    ),
    (r"\battention_norm\b", "attention_block/fn/norm"),
    (r"\battention/", "attention_block/fn/fn/"),
    (r"\bffn_norm\b", "mlp_block/fn/norm"),
    (r"\bffn_([12])\b", lambda m: f"mlp_block/fn/fn/net/{2 * int(m[1]) - 2}"),
    (r"\bposition_bias$", "pos_embedding"),
    (r"\b(qkv|out)/", r"to_\1/"),
    (r"\bchannel_attention\b", "ca"),
    (r"\bmlp_(hidden|out)\b", r"MLP/\1"),
    (r"\bmean_(hidden|out)\b", r"MLP1/\1"),
    (r"\bmax_(hidden|out)\b", r"MLP2/\1"),
    (r"\b(MLP[12]?)/(hidden|out)\b", lambda m: f"{m[1]}/{1 + 2 * (m[2] == 'out')}"),
    (r"/(kernel|scale)$", "/weight"),
    (r"/(mean|var)$", r"/running_\1"),
)


def _rules(scales: int) -> tuple[Rule, ...]:
    """Rules for a model of so many scales; there one number counts all stages."""
    number = {"encoder": lambda s: s + 1, "decoder": lambda s: 2 * scales - 1 - s}
    return (
        *_BLOCK_RULES,
        (r"\b(regular|shifted|convs|casa|fusion)\b", lambda m: str(_UNITS[m[1]])),
        (
            r"^(encoder|decoder)_(\d+)",
            lambda m: f"stage{number[m[1]](int(m[2]))}",
        ),
        (r"^head", f"stage{2 * scales}"),
        (r"^(stage\d+)_(merge|expand)/", r"\1/patch_partition/"),
        (r"^(stage\d+)/(?=\d)", r"\1/layers/0/"),
    )


def rainformer_variables(
    state_dict: Mapping[str, Any], model: Rainformer
) -> dict[str, Any]:
    """Variables of a `models.rainformer.model.Rainformer`.

    Args:
        state_dict: torch names to arrays or tensors.
        model: the model that the weights are for.

    Returns:
        `{"params": ..., "batch_stats": ...}`.

    Raises:
        ValueError: naming all missing, unexpected and wrongly shaped entries.
    """
    x = jax.ShapeDtypeStruct((1, *model.input_shape), jnp.float32)
    template = jax.eval_shape(model.init, jax.random.key(0), x)
    return import_variables(state_dict, template, scales=len(model.factors))


def import_variables(
    state_dict: Mapping[str, Any], template, *, scales: int = 4
) -> dict[str, Any]:
    """Variables like `template`, of a model or of one block of it.

    Args:
        state_dict: torch names to arrays or tensors.
        template: tree whose leaves have `shape` and `dtype`, from "params" and
            "batch_stats" down.
        scales: number of encoder stages.

    Returns:
        The tree, with arrays in the template's types.

    Raises:
        ValueError: naming all missing, unexpected and wrongly shaped entries.
    """
    state_dict = by_name(state_dict)
    names = {
        name: ours
        for name, ours in _acting_names(state_dict).items()
        if name.rsplit(".", 1)[-1] not in _IGNORED
    }
    if not any("dead_" in jax.tree_util.keystr(p) for p, _ in _leaves(template)):
        names = {n: o for n, o in names.items() if not _DEAD.search(n)}
    given = {ours: _planes_last(name, state_dict[name]) for name, ours in names.items()}
    return torch_names.import_tree(given, template, _rules(scales))


def _acting_names(state_dict):
    """Names of the entries whose unit acts, and those names with its number as 0."""
    units = {name: _UNIT.match(name) for name in state_dict}
    last = {}
    for match in filter(None, units.values()):
        last[match[1]] = max(last.get(match[1], 0), int(match[2]))
    return {
        name: f"{match[1]}0.{match[3]}" if match else name
        for name, match in units.items()
        if not match or int(match[2]) == last[match[1]]
    }


def _planes_last(name, value):
    """Scale and offset of a norm over planes, `[c, h, w]`, as `[h, w, c]`."""
    array = as_weight(name, value)
    return np.moveaxis(array, 0, -1) if array.ndim == 3 else array


def _leaves(tree):
    return jax.tree_util.tree_leaves_with_path(tree)
