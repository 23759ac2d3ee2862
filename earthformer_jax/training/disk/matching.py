"""Whether the arrays of a checkpoint are those that are wanted.

Until the section `precision` existed, the optimiser state and averages of bfloat16
parameters were bfloat16 as well. They are float32 now; such checkpoints are read, and
their numbers widened, which is exact.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

_SHOWN = 5  # differing arrays named in a message
_WIDENED = "opt_state/", "ema_params/"


def mismatch(saved: Any, like: Any) -> str:
    """What to say of a checkpoint of another model or optimiser.

    Args:
        saved: tree of arrays or of their descriptions.
        like: the wanted ones.

    Returns:
        The message after the name of the checkpoint; empty if all arrays have the
        names, shapes and types of those in `like`, or can be widened to them.
    """
    there, here = describe(saved), describe(like)
    names = [
        name
        for name in dict.fromkeys([*here, *there])
        if here.get(name) != there.get(name) and not _can_widen(name, there, here)
    ]
    if not names:
        return ""
    of_model = [name for name in names if not name.startswith("opt_state/")]
    names = of_model or names
    lines = [
        f"  {name}: {there.get(name, 'absent')} there, {here.get(name, 'absent')} here"
        for name in names[:_SHOWN]
    ]
    if len(names) > _SHOWN:
        lines.append(f"  and {len(names) - _SHOWN} more")
    count = "1 array differs" if len(names) == 1 else f"{len(names)} arrays differ"
    return (
        f"belongs to another {'model' if of_model else 'optimiser'}; {count}:\n"
        + "\n".join(lines)
        + "\nuse the config it was trained with, or another workdir"
    )


def is_narrower(saved: Any, like: Any) -> bool:
    """Whether arrays of a checkpoint that matches have to be widened."""
    there, here = describe(saved), describe(like)
    return any(_can_widen(name, there, here) for name in here)


def describe(tree: Any) -> Mapping[str, str]:
    """{"params/z_proj/kernel": "float32 (64, 128)", ...}"""
    return {
        name: f"{leaf.dtype} {tuple(leaf.shape)}" for name, leaf in named_leaves(tree)
    }


def named_leaves(tree: Any) -> Iterator[tuple[str, Any]]:
    """("params/z_proj/kernel", array), ...; keys as the numbers that they hold."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = jax.random.key_data
            is_array = isinstance(leaf, jax.Array)
            leaf = data(leaf) if is_array else jax.eval_shape(data, leaf)
        yield jax.tree_util.keystr(path, simple=True, separator="/"), leaf


def _can_widen(name: str, there: Mapping[str, str], here: Mapping[str, str]) -> bool:
    """Whether an array was bfloat16 in an earlier version, and is float32 now."""
    if not name.startswith(_WIDENED) or name not in there:
        return False
    shape = there[name].removeprefix("bfloat16 ")
    return shape != there[name] and here.get(name) == f"float32 {shape}"
