"""Forecasts and scores of a model that is not being trained."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from earthformer_jax.data.source import Batch
from earthformer_jax.metrics.contract import Metric, Scores
from earthformer_jax.metrics.ensembles.validation import MembersAndMean
from earthformer_jax.metrics.own_loss import LOSS, ForecastAndLoss
from earthformer_jax.models.contract import (
    Forecaster,
    Tokenizer,
    Variables,
    draws,
    members_of_mean,
)
from earthformer_jax.training import mesh as mesh_lib
from earthformer_jax.training.devices import padding
from earthformer_jax.training.step import relative_weights

Wait = Callable[..., Any]  # calls a function with arguments, as `StopRequest.wait` does


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def make_scorer(
    model: Forecaster, metric: Metric, mesh: jax.sharding.Mesh
) -> Callable[..., Scores]:
    """Compiles a metric of a model's forecasts.

    Args:
        model: forecaster.
        metric: of the forecasts, a `MembersAndMean` of the members that the forecast of
            the model is the mean of, or a `ForecastAndLoss` with the model's own loss.
        mesh: devices to forecast on.

    Returns:
        Function from variables and host batches to scores. The sums stay on the
        devices until all batches are done. A third argument calls what takes long, and
        may raise to end the scoring early.
    """
    everywhere = mesh_lib.replicated(mesh)
    init = jax.jit(metric.init, out_shardings=everywhere)

    def add(sums, variables, batch, size):
        if mesh.shape[mesh_lib.MODEL] > 1:
            variables = jax.lax.with_sharding_constraint(variables, everywhere)
        unpad, inputs = padding.unpadding(mesh, size), batch["inputs"]
        batch = batch if unpad is None else unpad(batch)
        if isinstance(metric, MembersAndMean):
            size = members_of_mean(model)
            forecast = model.apply(variables, batch["inputs"], size, method="members")
        else:
            forecast = model.apply(variables, inputs, train=False)
            forecast = forecast if unpad is None else unpad(forecast)
        if isinstance(metric, ForecastAndLoss):
            batch = {**batch, LOSS: _own_loss(model, variables, batch, metric.weights)}
        if isinstance(model, Tokenizer):  # the compiler encodes only once
            codes = model.apply(variables, batch["inputs"], method="encode")
            batch = {**batch, "codes": codes}
        return metric.update(sums, forecast, batch)

    compiled_add = jax.jit(
        add, donate_argnums=0, static_argnums=3, out_shardings=everywhere
    )

    def score(
        variables: Variables, batches: Iterable[Batch], wait: Wait = _call
    ) -> Scores:
        sums = init()
        for number, batch in enumerate(batches):
            size = len(batch["inputs"]) * jax.process_count()
            placed = mesh_lib.put_batch(mesh, padding.padded(mesh, batch))
            if number == 0:
                wait(compiled_add.lower(sums, variables, placed, size).compile)
            sums = compiled_add(sums, variables, placed, size)
            wait(jax.block_until_ready, sums)
        return metric.compute(sums)

    return score


def _own_loss(model, variables, batch, loss_weights) -> jax.Array:
    """The model's own loss of each example, `[b]`."""
    targets = batch["targets"]
    weights = relative_weights(loss_weights, targets.shape[1:], batch.get("observed"))
    return model.apply(
        variables, batch["inputs"], targets, weights, method="validation_loss"
    )


def make_forecaster(
    model: Forecaster,
    variables: Variables,
    mesh: jax.sharding.Mesh,
    method: str | None = None,
    **options: Any,
) -> Callable[[Batch], np.ndarray]:
    """A model with its variables as a function of host batches.

    Args:
        model: forecaster.
        variables: of the model.
        mesh: devices of this process to forecast on.
        method: of the model, "embed" or "encode"; None: the forecast.
        **options: further arguments of the method, `size` of "members".

    Returns:
        Function from a batch with "inputs" `[b, t, h, w, c]` to forecasts
        `[b, k, h, w, c]`, or what `method` gives.
    """
    everywhere = mesh_lib.replicated(mesh)
    variables = jax.device_put(variables, everywhere)
    apply = functools.partial(model.apply, method=method, **options)

    def of_examples(variables, inputs, size):
        unpad = padding.unpadding(mesh, size)
        if unpad is None:
            return apply(variables, inputs)
        if method is None and not draws(model):  # equal shares are faster
            return unpad(apply(variables, inputs))
        return apply(variables, unpad(inputs))

    compiled = jax.jit(of_examples, static_argnums=2)

    def forecast(batch: Batch) -> np.ndarray:
        inputs = {"inputs": batch["inputs"]}
        placed = mesh_lib.put_batch(mesh, padding.padded(mesh, inputs))["inputs"]
        return np.asarray(compiled(variables, placed, len(batch["inputs"])))

    return forecast
