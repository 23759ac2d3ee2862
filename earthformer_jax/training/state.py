"""Everything that changes while a model is trained, as one pytree."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from flax import struct, traverse_util

from earthformer_jax.models.contract import Forecaster, Variables
from earthformer_jax.training.precision import loss_scale as scale_lib
from earthformer_jax.training.precision import storage


@struct.dataclass
class TrainState:
    """The state after `step` optimiser steps.

    Attributes:
        step: int32 `()`.
        params: trained parameters.
        batch_stats: running statistics of batch norms, `{}` without any.
        opt_state: Optax state.
        ema_params: moving average of the parameters, None if not kept; float32 for
            parameters in bfloat16.
        rng: key of the whole training; folded with the step, never consumed. It is of
            the "rbg" kind, which compiles in a fraction of the default kind's time; its
            numbers differ between kinds of devices.
        loss_scale: what the loss is multiplied by; None if it is not scaled.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    ema_params: Any
    rng: jax.Array
    loss_scale: scale_lib.LossScale | None = None

    @property
    def variables(self) -> Variables:
        """Variables for forecasts: the averaged parameters where they are kept."""
        params = self.params
        if self.ema_params is not None:
            params = storage.cast_like(self.ema_params, params)
        return with_batch_stats(params, self.batch_stats)


def with_batch_stats(params: Any, batch_stats: Any) -> dict[str, Any]:
    """Flax variables; models without batch norm have no batch statistics."""
    return {"params": params} | ({"batch_stats": batch_stats} if batch_stats else {})


def create_state(
    rng: jax.Array,
    *,
    model: Forecaster,
    tx: optax.GradientTransformation,
    input_shape: tuple[int, ...],
    ema: bool = False,
    loss_scale: float | None = None,
) -> TrainState:
    """The state before the first step.

    Args:
        rng: key; initialises the parameters and seeds the random numbers of training.
        model: forecaster of `[b, t, h, w, c]`.
        tx: optimiser.
        input_shape: `(t, h, w, c)`.
        ema: whether to keep averaged parameters.
        loss_scale: what the loss of the first step is multiplied by; None: nothing.
    """
    init_key, train_key = jax.random.split(rng)
    names = ("params", "dropout", "sampling")
    keys: dict[str, jax.Array]
    keys = dict(zip(names, jax.random.split(init_key, len(names)), strict=True))
    inputs = jnp.zeros((1, *input_shape))
    variables = cast(Variables, model.init(keys, inputs, train=False))
    params = variables.get("params", {})
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=tx.init(params),
        ema_params=_first_average(params) if ema else None,
        rng=jax.random.wrap_key_data(
            jax.random.bits(train_key, (4,), jnp.uint32), impl="rbg"
        ),
        loss_scale=None if loss_scale is None else scale_lib.first(loss_scale),
    )


def begin_with(state: TrainState, variables: Variables) -> TrainState:
    """A new state with copies of other variables (a step overwrites its state).

    Args:
        state: before the first step.
        variables: {"params": ..., "batch_stats": ...}, or a part of them; the state
            keeps its own in place of the others.
    """
    params = _with(state.params, variables.get("params", {}))
    averaged = state.ema_params is not None
    return dataclasses.replace(
        state,
        params=params,
        batch_stats=_with(state.batch_stats, variables.get("batch_stats", {})),
        ema_params=_first_average(params) if averaged else None,
    )


def _first_average(params: Any) -> Any:
    """Averaged parameters before the first step: copies."""
    return jax.tree.map(jnp.copy, storage.to_float32(params))


def _with(tree: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """A nested mapping with copies of the leaves that another one has as well."""
    leaves: dict[Any, Any] = traverse_util.flatten_dict(dict(tree))
    copies = jax.tree.map(jnp.copy, traverse_util.flatten_dict(dict(others)))
    return traverse_util.unflatten_dict(leaves | copies)


def abstract_variables(model: Forecaster, input_shape: tuple[int, ...]) -> Variables:
    """Shapes and types of a model's variables, without computing them.

    Args:
        model: forecaster of `[b, t, h, w, c]`.
        input_shape: `(t, h, w, c)`.
    """
    inputs = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    init = functools.partial(model.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), inputs)
    return with_batch_stats(
        variables.get("params", {}), variables.get("batch_stats", {})
    )


def count_parameters(params: Any) -> int:
    """Number of trained values."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
