"""Which of a model's arrays can be taken from the weights of another."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from earthformer_jax.models.contract import Forecaster, Variables
from earthformer_jax.models.earthformer import tables
from earthformer_jax.models.earthformer.model import Earthformer

# A model with other channels still has some arrays of the same shapes; less than this
# share of them does not make a start.
LEAST_SHARE = 0.1
_PARAMS = "params/"


@dataclasses.dataclass(frozen=True)
class Transfer:
    """What a model takes from the weights of another.

    Attributes:
        variables: arrays of the model by collection, without those that stay new.
        kept: names of arrays that are taken as they are.
        adapted: name -> how the array was made.
        new: name -> why the array is not taken.
        unused: names of further arrays of the weights.
    """

    variables: Variables
    kept: Sequence[str]
    adapted: Mapping[str, str]
    new: Mapping[str, str]
    unused: Sequence[str]

    def summary(self) -> str:
        """ "190 of 199 arrays are kept, 6 adapted, 3 new; 2 of the weights unused"."""
        count = len(self.kept) + len(self.adapted) + len(self.new)
        text = f"{len(self.kept)} of {count} arrays are kept"
        text += f", {len(self.adapted)} adapted" if self.adapted else ""
        text += f", {len(self.new)} new" if self.new else ""
        return text + (f"; {len(self.unused)} others unused" if self.unused else "")

    def lines(self) -> Iterator[str]:
        """A line for each array that is not simply kept."""
        for kind in ("new", "adapted"):
            for name, why in getattr(self, kind).items():
                yield f"{kind}: {name} ({why})"
        for name in self.unused:
            yield f"unused: {name}"


def transfer(
    arrays: Mapping[str, Any],
    model: Forecaster,
    like: Variables,
    unused: Sequence[str] = (),
) -> Transfer:
    """Takes from weights what fits a model.

    Arrays of the same name and shape are taken as they are. Tables of an Earthformer
    that depend on lengths and grid are adapted (`models.earthformer.tables`). All
    others stay new.

    Args:
        arrays: the weights by path, "params/head/kernel".
        model: that takes them.
        like: shapes and types of its variables.
        unused: further names in the weights.

    Raises:
        ValueError: if fewer than a tenth of the arrays fit.
    """
    wanted: dict[str, Any] = traverse_util.flatten_dict(dict(like), sep="/")
    params = {
        name.removeprefix(_PARAMS): value
        for name, value in arrays.items()
        if name.startswith(_PARAMS)
    }
    before = None
    if isinstance(model, Earthformer):
        before = tables.fields_of_tables(params, model)
    taken, kept, adapted, new = {}, [], {}, {}
    for name, leaf in wanted.items():
        if name not in arrays:
            new[name] = "absent from the weights"
            continue
        array, shape = np.asarray(arrays[name]), tuple(leaf.shape)
        if array.shape == shape:
            kept.append(name)
            taken[name] = jnp.asarray(array, leaf.dtype)
            continue
        made = None
        if before is not None and array.ndim == 2:
            assert isinstance(model, Earthformer)
            made = tables.resized(name.removeprefix(_PARAMS), array, model, before)
        if made is not None and made[0].shape == shape:
            taken[name], adapted[name] = jnp.asarray(made[0], leaf.dtype), made[1]
        else:
            new[name] = f"{array.shape} in the weights, {shape} here"
    fits, most = len(taken), min(len(wanted), len(arrays) + len(unused))
    if not fits or fits < LEAST_SHARE * most:
        raise ValueError(
            f"only {fits} of {len(wanted)} arrays fit this model: these are weights of "
            f"another one, or of other sizes{_example(new)}"
        )
    rest = [name for name in arrays if name not in wanted]
    return Transfer(
        traverse_util.unflatten_dict(taken, sep="/"),
        kept,
        adapted,
        new,
        [*rest, *unused],
    )


def _example(new: Mapping[str, str]) -> str:
    name, why = next(iter(new.items()), ("", ""))
    return f" ({name}: {why})" if name else ""
