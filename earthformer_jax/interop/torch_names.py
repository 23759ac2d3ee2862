"""Our parameter names to the torch names of the reference, and conversion of arrays.

A path such as `encoder/block_0_1/attention_2/qkv/kernel` becomes
`encoder.blocks.0.1.attn_l.2.qkv.weight` by rules that rewrite its parts in order.
"""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from earthformer_jax.interop.state_dict_file import as_weight, by_name

Rule = tuple[str, str | Callable[[re.Match], str]]

# Parts of a path that mean the same in every class of the reference.
LAYER_RULES: tuple[Rule, ...] = (
    (r"\battention_(\d+)\b", r"attn_l/\1"),
    (r"\bglobal_ffn_(\d+)\b/norm\b", r"global_ffn_l/\1/layer_norm"),
    (r"\bffn_(\d+)\b/norm\b", r"ffn_l/\1/layer_norm"),
    (r"\bglobal_ffn_(\d+)\b(?=/(ffn_|gate))", r"global_ffn_l/\1"),
    (r"\bffn_(\d+)\b(?=/(ffn_|gate))", r"ffn_l/\1"),
    (r"\bgate\b", "ffn_1_gate"),
    (r"\bglobal_norm\b", "global_vec_norm"),
    (r"\b(l2g_q|l2g_global_kv|g2l_global_q|g2l_k|g2l_v|g2g_global_qkv)\b", r"\1_net"),
    (r"\brelative_position_bias\b", "relative_position_bias_table"),
    (r"\bconv_(\d+)\b", lambda m: str(3 * int(m[1]))),
    (r"\bgroup_norm_(\d+)\b", lambda m: str(3 * int(m[1]) + 1)),
    (r"\btime\b", "T_embed"),
    (r"\bheight\b", "H_embed"),
    (r"\bwidth\b", "W_embed"),
    (r"\bplane\b", "HW_embed"),
    (r"\bblock_(\d+)_(\d+)\b", r"blocks/\1/\2"),
    (r"\bself_(\d+)_(\d+)\b", r"self_blocks/\1/\2"),
    (r"\bposition_(\d+)\b", r"hierarchical_pos_embed_l/\1"),
    (r"/(kernel|scale|embedding)$", "/weight"),
    (r"\brms_scale$", "scale"),
)


def cross_rules(cross_start: int) -> tuple[Rule, ...]:
    """Cross-attention blocks are numbered from the first level that has them."""
    return (
        (
            r"\bcross_(\d+)_(\d+)\b",
            lambda m: f"cross_blocks/{int(m[1]) - cross_start}/{m[2]}",
        ),
    )


def stem_rules(stacked: bool) -> tuple[Rule, ...]:
    """Parts of stem and head, which the reference names by kind."""
    if stacked:
        return (
            (r"\bmerge_(\d+)\b", r"patch_merge_list/\1"),
            (r"\bupsample_(\d+)\b", r"upsample_list/\1"),
            (r"\bconvs_(\d+)\b", r"conv_block_list/\1"),
        )
    return (
        (r"\bmerge_0\b", "patch_merge"),
        (r"\bupsample_0\b", "upsample"),
        (r"\bconvs_0\b", "conv_block"),
    )


def _below(prefix: str, rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """The rules, for paths that start with `prefix` only."""

    def guarded(pattern, replacement):
        def apply(match):
            if not match.string.startswith(prefix):
                return match[0]
            return match.expand(replacement)

        return pattern, apply

    return tuple(guarded(pattern, replacement) for pattern, replacement in rules)


def earthformer_rules(*, stacked_stem: bool, cross_start: int) -> tuple[Rule, ...]:
    """Rules for the parameters of a whole `Earthformer`."""
    levels = (
        (r"^encoder/global_merge_(\d+)\b", r"encoder/down_layer_global_proj/\1"),
        (r"^encoder/merge_(\d+)\b", r"encoder/down_layers/\1"),
        (r"^decoder/upsample_(\d+)\b", r"decoder/upsample_layers/\1"),
        (r"^encoder_position\b", "enc_pos_embed"),
        (r"^decoder_position\b", "dec_pos_embed"),
        (r"^global_vectors$", "init_global_vectors"),
        (r"^head_proj\b", "dec_final_proj"),
    )
    return (
        *_below("stem/", stem_rules(stacked_stem)),
        *_below("head/", stem_rules(stacked_stem)),
        (r"^stem\b", "initial_encoder"),
        (r"^head/", "final_decoder/"),
        *levels,
        *cross_rules(cross_start),
        *LAYER_RULES,
    )


def torch_name(path: str, rules: Sequence[Rule]) -> str:
    """The torch name of one of our paths, `a/b/kernel` to `a.b.weight`."""
    for pattern, replacement in rules:
        path = re.sub(pattern, replacement, path)
    return path.replace("/", ".")


def _to_ours(array: np.ndarray, leaf: str) -> np.ndarray:
    if leaf == "kernel" and array.ndim == 4:
        return array.transpose(2, 3, 1, 0)  # (out, in, h, w) -> (h, w, in, out)
    return array.T if leaf == "kernel" else array


def _to_torch(array: np.ndarray, leaf: str) -> np.ndarray:
    if leaf == "kernel" and array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    return array.T if leaf == "kernel" else array


def arrays_by_path(
    state_dict: Mapping[str, Any],
    template,
    rules: Sequence[Rule],
    ignore: Sequence[str] = (),
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Arrays in our layout, of any shape, and the torch names that remain.

    Args:
        state_dict: torch names to arrays or tensors.
        template: tree with our names.
        rules: from our paths to torch names.
        ignore: last parts of torch names that are not parameters.

    Returns:
        {"encoder/block_0_0/...": array} of the paths of the template that are there,
        and the names of all that belongs to none of them.

    Raises:
        ValueError: if an entry is not an array of finite numbers.
    """
    given = {
        k.removeprefix("torch_nn_module."): v for k, v in by_name(state_dict).items()
    }
    given = {k: v for k, v in given.items() if k.rsplit(".", 1)[-1] not in ignore}
    arrays = {}
    for path in traverse_util.flatten_dict(template, sep="/"):
        name = torch_name(path, rules)
        if name in given:
            array = as_weight(name, given.pop(name))
            arrays[path] = _to_ours(array, path.rsplit("/", 1)[-1])
    return arrays, sorted(given)


def import_tree(
    state_dict: Mapping[str, Any],
    template,
    rules: Sequence[Rule],
    ignore: Sequence[str] = (),
):
    """A parameter tree like `template` from torch names.

    Args:
        state_dict: torch names to arrays or tensors.
        template: tree whose leaves have `shape` and `dtype`.
        rules: from our paths to torch names.
        ignore: last parts of torch names that are not parameters.

    Returns:
        The tree, with float arrays in the template's types.

    Raises:
        ValueError: naming all missing, unexpected and wrongly shaped entries.
    """
    arrays, unexpected = arrays_by_path(state_dict, template, rules, ignore)
    flat, missing, misshapen = {}, [], []
    leaves: dict[str, Any] = traverse_util.flatten_dict(template, sep="/")
    for path, leaf in leaves.items():
        name = torch_name(path, rules)
        if path not in arrays:
            missing.append(name)
            continue
        array = arrays[path]
        if array.shape != tuple(leaf.shape):
            want = _to_torch(np.empty(leaf.shape), path.rsplit("/", 1)[-1]).shape
            have = _to_torch(array, path.rsplit("/", 1)[-1]).shape
            turned = " (is it transposed?)" if have == want[::-1] else ""
            misshapen.append(f"{name} has shape {have}, the model needs {want}{turned}")
            continue
        flat[path] = jax.numpy.asarray(array.astype(leaf.dtype))
    if missing or unexpected or misshapen:
        raise ValueError(_complaint(missing, unexpected, misshapen))
    return traverse_util.unflatten_dict(flat, sep="/")


def export_tree(params, rules: Sequence[Rule]) -> dict[str, np.ndarray]:
    """NumPy arrays in torch layout by torch name, from our parameters."""
    return {
        torch_name(path, rules): np.ascontiguousarray(
            _to_torch(np.asarray(array), path.rsplit("/", 1)[-1])
        )
        for path, array in traverse_util.flatten_dict(dict(params), sep="/").items()
    }


def _complaint(missing, unexpected, misshapen, most: int = 8) -> str:
    lines = [
        "the state dict does not fit the model (was it trained with other options?)"
    ]
    for title, rows in (
        ("missing", missing),
        ("unexpected", unexpected),
        ("wrong shape", misshapen),
    ):
        if rows:
            more = f", and {len(rows) - most} more" if len(rows) > most else ""
            lines.append(f"  {title} ({len(rows)}): {'; '.join(rows[:most])}{more}")
    for names, holder, other in (
        (missing, "the model has", "the weights have"),
        (unexpected, "the weights have", "the model has"),
    ):
        if names and all(name.endswith("bias") for name in names):
            lines.append(f"  {holder} biases where {other} none")
    if missing and unexpected:
        close = difflib.get_close_matches(missing[0], unexpected, n=1)
        if close:
            lines.append(f"  is {close[0]!r} meant as {missing[0]!r}?")
    return "\n".join(lines)
