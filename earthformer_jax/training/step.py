"""One optimiser step, a pure function of state and batch."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import einops
import jax
import jax.numpy as jnp
import numpy as np
import optax

from earthformer_jax.losses.contract import Loss
from earthformer_jax.losses.pointwise import SquaredError
from earthformer_jax.models.contract import Forecaster, draws, uses_targets
from earthformer_jax.ops.devices import examples
from earthformer_jax.ops.tuned.hashed_key import hashed_key
from earthformer_jax.ops.tuned.repeated import call_in_loop
from earthformer_jax.training import state as state_lib
from earthformer_jax.training.precision import loss_scale as scale_lib
from earthformer_jax.training.precision import storage

Scalars = dict[str, jax.Array]

_MSE = SquaredError()
# Micro-batches and devices have the small numbers.
_LOSS_KEY, _ROUNDING_KEY = 2**31 - 1, 2**31 - 2


def relative_weights(
    loss_weights: np.ndarray, shape: tuple[int, ...], observed: jax.Array | None
) -> jax.Array | np.ndarray | None:
    """Weights of single values as a model is given them (`models.contract.Pupil`).

    Args:
        loss_weights: of the cells, as losses are given them.
        shape: `(k, h, w, c)` of the values; loss weights that depend on the lead time
            are averaged over it if it is another one.
        observed: bool `[b, k, h, w, c]`, or None if all values are known.

    Returns:
        Broadcastable to `[b, k, h, w, c]`: the weights divided by their mean over the
        field, 0 where a value is not observed; None if all of them are 1.
    """
    weights = np.asarray(loss_weights, np.float32)
    weights = weights.reshape((1,) * (4 - weights.ndim) + weights.shape)
    if len(weights) not in (1, shape[0]):
        weights = weights.mean(axis=0, keepdims=True)
    if observed is None and (weights == weights.flat[0]).all():
        return None
    share = weights / np.broadcast_to(weights, shape).mean()
    return share if observed is None else jnp.where(observed, share, 0)


def split_micro_batches(batch: Any, number: int) -> Any:
    """`[number, b / number, ...]` from `[b, ...]`, for each leaf.

    Micro-batch m holds the examples m, m + number, ...: a batch laid over devices along
    its first axis stays where it is, and every micro-batch uses all devices.
    """
    return jax.tree.map(
        lambda x: einops.rearrange(x, "(b m) ... -> m b ...", m=number), batch
    )


def update(
    state: state_lib.TrainState,
    batch: Mapping[str, jax.Array],
    *,
    model: Forecaster,
    tx: optax.GradientTransformation,
    learning_rate: optax.Schedule,
    loss_weights: np.ndarray,
    loss: Loss = _MSE,
    micro_batches: int = 1,
    ema_decay: float = 0.0,
    loss_scale_window: int = scale_lib.WINDOW,
    total_steps: int | None = None,
    axis_name: str | None = None,
    unpad: Callable[[Any], Any] | None = None,
    whole: Callable[[Any], Any] | None = None,
) -> tuple[state_lib.TrainState, Scalars]:
    """Takes one optimiser step on a batch.

    Under `jit` the batch is the global one, whatever devices it lies on. Under
    `shard_map` and `pmap` (`axis_name` given) it is this device's share, and gradients,
    loss and batch statistics are averaged over the axis.

    Args:
        state: before the step.
        batch: "inputs" `[b, t, h, w, c]`, "targets" `[b, k, h, w, c]`; where some of
            them are unknown, bool "observed" like the targets, and "inputs_observed"
            `[b, t, h, w, c]` for the channels of the inputs that the targets have.
        model: forecaster; what it sows into `losses` is added to the loss. One that
            `uses_targets` learns with scheduled sampling: it is given the targets with
            their weights, and the step.
        tx: optimiser that `state.opt_state` belongs to.
        learning_rate: the schedule used by `tx`, to report it.
        loss_weights: broadcastable to `[k, h, w, c]`, 0 where nothing is ever observed.
        loss: of the forecast, or of the members that the model forecasts in training.
        micro_batches: gradients of this many equal parts are averaged, to save memory.
        ema_decay: memory of `state.ema_params`, if they are kept.
        loss_scale_window: steps without overflow after which `state.loss_scale` grows,
            if the loss is scaled.
        total_steps: planned length of the training, which schedules of a model may
            follow.
        axis_name: the axis of the mesh under `shard_map`, or that of `pmap`.
        unpad: drops examples of a micro-batch that only fill up the shares of devices
            (`training.devices.padding`); None: there are none.
        whole: makes parameters whole that lie in parts on the devices; None: they are.

    Returns:
        The state after the step, and scalars "loss", "grad_norm" (before clipping),
        "lr" (of this step) and "is_finite" (bool: the state after the step is; a finite
        loss does not imply that). Where the loss is scaled, also "loss_scale", and
        "skipped" (bool: the gradient overflowed and nothing was changed but the scale).
    """
    scale = None if state.loss_scale is None else state.loss_scale.scale
    rng = jax.random.fold_in(state.rng, state.step)
    loss_fn = _loss_function(
        state, rng, model, loss, loss_weights, total_steps, unpad, whole
    )
    vary = functools.partial(_vary, axis_name=axis_name)
    value, batch_stats, grads = _accumulated(
        jax.value_and_grad(loss_fn, has_aux=True),
        vary((storage.to_float32(state.params), state.batch_stats)),
        batch,
        rng,
        micro_batches,
        vary,
    )
    if axis_name is not None:
        grads, value, batch_stats = jax.lax.pmean(
            (grads, value, batch_stats), axis_name
        )

    if scale is not None:
        grads, value = jax.tree.map(lambda x: x / scale, (grads, value))

    after = _stepped(
        dataclasses.replace(state, batch_stats=batch_stats), grads, tx, ema_decay, rng
    )
    scalars = {
        "loss": value,
        "grad_norm": optax.tree.norm(grads),
        "lr": learning_rate(state.step),
    }
    if state.loss_scale is None:
        return after, scalars | {"is_finite": _is_finite(after)}
    scalars["lr"] = learning_rate(state.step - state.loss_scale.skipped)
    after, found = _unless_overflow(
        state, after, grads, state.loss_scale, loss_scale_window
    )
    return after, scalars | found


def _loss_function(
    state: state_lib.TrainState,
    rng: jax.Array,
    model: Forecaster,
    loss: Loss,
    loss_weights: np.ndarray,
    total_steps: int | None,
    unpad: Callable[[Any], Any] | None,
    whole: Callable[[Any], Any] | None,
) -> Callable[..., tuple[jax.Array, Any]]:
    """A function of parameters, batch statistics, a part of the batch, and a key.

    It returns the loss, scaled where `state` says so, and the new batch statistics.
    `rng` is the key of the step; the other arguments are those of `update`.
    """
    # One for all parts of a batch, so that what a loss draws is the same for each.
    loss_of = functools.partial(
        loss,
        key=jax.random.fold_in(rng, _LOSS_KEY),
        progress=None if not total_steps else state.step / total_steps,
    )
    forecast_of = functools.partial(
        _forecast, model, loss_weights, state.step, total_steps
    )

    def loss_fn(params, batch_stats, micro, key):
        params = params if whole is None else whole(params)
        variables = state_lib.with_batch_stats(params, batch_stats)
        forecast, changed, micro = forecast_of(variables, micro, key, unpad)
        value = _with_sown(loss_of, forecast, changed, micro, loss_weights)
        if state.loss_scale is not None:
            value = value * state.loss_scale.scale
        return value, changed.get("batch_stats", batch_stats)

    return loss_fn


def _with_sown(loss_of, forecast, changed, part, loss_weights) -> jax.Array:
    """The loss of a forecast, and the terms that the model adds; `()`.

    Args:
        loss_of: function of forecast, targets, weights and what is observed.
        forecast: of the examples.
        changed: collections that forecasting changed.
        part: of the batch, with the targets.
        loss_weights: of the cells.
    """
    value = loss_of(forecast, part["targets"], loss_weights, part.get("observed"))
    sown = jax.tree.leaves(changed.get("losses", {}))
    return value + sum((jnp.sum(term) for term in sown), start=jnp.zeros_like(value))


def _stepped(
    state: state_lib.TrainState,
    grads: Any,
    tx: optax.GradientTransformation,
    ema_decay: float,
    rng: jax.Array,
) -> state_lib.TrainState:
    """The state with parameters, their average and the optimiser a step further.

    Args:
        state: before the step.
        grads: gradient, not scaled.
        tx: optimiser.
        ema_decay: memory of the averaged parameters.
        rng: key of the step.
    """
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = storage.apply_updates(
        state.params, updates, jax.random.fold_in(rng, _ROUNDING_KEY)
    )
    return dataclasses.replace(
        state,
        step=state.step + 1,
        params=params,
        opt_state=opt_state,
        ema_params=_moving_average(state, params, ema_decay),
    )


def _unless_overflow(
    before: state_lib.TrainState,
    after: state_lib.TrainState,
    grads: Any,
    scale: scale_lib.LossScale,
    window: int,
) -> tuple[state_lib.TrainState, Scalars]:
    """The state after a step with a scaled loss, and what `update` says about it.

    Args:
        before: state before the step.
        after: what the step made of it.
        grads: gradient, no longer scaled.
        scale: of this step.
        window: as for `update`.
    """
    is_finite = scale_lib.all_finite(grads)
    state = dataclasses.replace(
        scale_lib.where(
            is_finite,
            dataclasses.replace(after, rng=None, loss_scale=None),
            dataclasses.replace(before, step=after.step, rng=None, loss_scale=None),
        ),
        rng=before.rng,
        loss_scale=scale_lib.following(scale, is_finite, window),
    )
    # Where the scale cannot be at fault, the data or the state are.
    is_fine = is_finite | ~scale_lib.cannot_shrink(scale)
    return state, {
        "is_finite": _is_finite(state) & is_fine,
        "loss_scale": scale.scale,
        "skipped": ~is_finite,
    }


def _forecast(model, loss_weights, step, total_steps, variables, part, key, unpad):
    """The forecast of the examples of a micro-batch, what it changed, and the examples.

    Args:
        model: forecaster.
        loss_weights: of the cells.
        step: of the training.
        total_steps: its planned length.
        variables: of the model.
        part: of the batch.
        key: of its random numbers.
        unpad: as for `update`.
    """
    rngs = {
        "dropout": hashed_key(jax.random.fold_in(examples.own_key(key), 0)),
        "sampling": jax.random.fold_in(key, 1),
    }

    def apply(part):
        teaching: dict[str, Any] = {}
        if uses_targets(model):
            teaching = _teaching(part, loss_weights, step, total_steps)
        return model.apply(
            variables,
            part["inputs"],
            train=True,
            **teaching,
            rngs=rngs,
            mutable=["losses", "batch_stats"],
        )

    if unpad is None:
        return *apply(part), part
    real = unpad(part)
    if "batch_stats" not in variables and not (draws(model) or uses_targets(model)):
        # Equal shares are faster, and no example has anything to do with another.
        forecast, changed = apply(part)
        if not changed.get("losses"):
            return unpad(forecast), changed, real
    return *apply(real), real


def _vary(tree: Any, axis_name: str | None) -> Any:
    """Arrays that `shard_map` knows to differ between the devices of an axis."""
    if axis_name is None:
        return tree
    return jax.tree.map(lambda x: jax.lax.pcast(x, axis_name, to="varying"), tree)


def _accumulated(value_and_grad, variables, batch, rng, micro_batches: int, vary):
    """Loss, batch statistics and gradient of a batch, from equal parts of it.

    Args:
        value_and_grad: function of parameters, batch statistics, a part of the batch
            and a key that returns ((loss, new statistics), gradient).
        variables: parameters and batch statistics before the step.
        batch: as for `update`.
        rng: of the step.
        micro_batches: number of parts.
        vary: makes an array one that differs between devices.
    """
    params, batch_stats = variables
    if micro_batches == 1:
        key = jax.random.fold_in(rng, 0)
        (value, batch_stats), grads = value_and_grad(params, batch_stats, batch, key)
        return value, batch_stats, grads

    def accumulate(carry, numbered_micro):
        grads, total, batch_stats = carry
        number, micro = numbered_micro
        key = jax.random.fold_in(rng, number)
        (value, batch_stats), new_grads = call_in_loop(
            value_and_grad, params, batch_stats, micro, key
        )
        grads = jax.tree.map(jnp.add, grads, new_grads)
        return (grads, total + value, batch_stats), None

    nothing = (
        jax.tree.map(jnp.zeros_like, params),
        vary(jnp.zeros((), batch["targets"].dtype)),
        batch_stats,
    )
    parts = (jnp.arange(micro_batches), split_micro_batches(batch, micro_batches))
    (grads, value, batch_stats), _ = jax.lax.scan(accumulate, nothing, parts)
    grads, value = jax.tree.map(lambda x: x / micro_batches, (grads, value))
    return value, batch_stats, grads


def _is_finite(state: state_lib.TrainState) -> jax.Array:
    """Whether everything that a step changes holds numbers only; bool `()`."""
    return scale_lib.all_finite(
        (state.params, state.batch_stats, state.opt_state, state.ema_params)
    )


def _teaching(
    batch: Mapping[str, jax.Array],
    loss_weights: np.ndarray,
    step: jax.Array,
    total_steps: int | None,
) -> dict[str, Any]:
    """What a model that uses targets is called with."""
    targets, inputs = batch["targets"], batch["inputs"]
    input_shape = (*inputs.shape[1:4], targets.shape[-1])
    return dict(
        targets=targets,
        weights=relative_weights(
            loss_weights, targets.shape[1:], batch.get("observed")
        ),
        input_weights=relative_weights(
            loss_weights, input_shape, batch.get("inputs_observed")
        ),
        step=step,
        total_steps=total_steps,
    )


def _moving_average(state: state_lib.TrainState, params: Any, decay: float) -> Any:
    """Averaged parameters after this step; early averages forget faster.

    With a constant memory the random initial parameters would dominate the average for
    the first 1 / (1 - decay) steps.
    """
    if state.ema_params is None:
        return None
    memory = jnp.minimum(decay, (1 + state.step) / (10 + state.step))
    return jax.tree.map(
        lambda mean, new: (memory * mean + (1 - memory) * new).astype(mean.dtype),
        state.ema_params,
        params,
    )
