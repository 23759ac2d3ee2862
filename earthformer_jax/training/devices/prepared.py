"""What a training needs of its settings, its data and its model before it begins."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from earthformer_jax.data.dataset import Dataset
from earthformer_jax.data.source import Example
from earthformer_jax.metrics.contract import Metric
from earthformer_jax.models.contract import Forecaster
from earthformer_jax.training import mesh as mesh_lib
from earthformer_jax.training.devices.programs import Program, make_program
from earthformer_jax.training.optimizer import make_optimizer
from earthformer_jax.training.plan import Plan, make_plan
from earthformer_jax.training.settings import Settings
from earthformer_jax.training.setup.loss import make_loss
from earthformer_jax.training.setup.monitor import monitored
from earthformer_jax.training.state import TrainState, create_state


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A training before its first step: nothing is compiled or computed yet.

    Attributes:
        mesh: of the devices.
        plan: when it logs, validates, saves and ends.
        metric: of the validation.
        learning_rate: of a step.
        key: of the whole training.
        create: makes the state from the key, laid out; to compile.
        layout: sharding of each leaf of the state.
        like: shapes, types and shardings of the state.
        program: of a step.
    """

    mesh: jax.sharding.Mesh
    plan: Plan
    metric: Metric
    learning_rate: Callable[[Any], Any]
    key: jax.Array
    create: Any
    layout: TrainState
    like: TrainState
    program: Program


def prepare(
    settings: Settings,
    dataset: Dataset,
    model: Forecaster,
    example: Example,
    devices: Sequence[Any] | None = None,
) -> Prepared:
    """Prepares a training, or the plan of one.

    Args:
        settings: of the training.
        dataset: data to learn from, and the task with its metric.
        model: forecaster of the examples.
        example: of the data set; its shapes count.
        devices: that batches are laid over; default: all devices.

    Raises:
        ConfigError: if the devices cannot be divided as the settings say, or the model
            cannot be trained with the loss.
    """
    mesh, data = mesh_lib.make_mesh(settings.parallel, devices), dataset.data
    monitor, metric = monitored(settings.train, dataset, model)
    plan = make_plan(settings.train, len(data.train), monitor)
    tx, learning_rate = make_optimizer(settings.optim, plan.total_steps)
    init = functools.partial(
        create_state,
        model=model,
        tx=tx,
        input_shape=example["inputs"].shape,
        ema=settings.optim.ema_decay > 0,
        loss_scale=settings.precision.first_scale,
    )
    key = jax.random.key(settings.seed)
    shapes = jax.eval_shape(init, key)
    layout = mesh_lib.state_sharding(shapes, mesh)
    program = make_program(
        settings,
        mesh,
        layout,
        model=model,
        tx=tx,
        learning_rate=learning_rate,
        loss_weights=np.asarray(data.loss_weights, np.float32),
        loss=make_loss(settings.train, model, dataset),
        ema_decay=settings.optim.ema_decay,
        total_steps=plan.total_steps,
    )
    return Prepared(
        mesh=mesh,
        plan=plan,
        metric=metric,
        learning_rate=learning_rate,
        key=key,
        create=jax.jit(init, out_shardings=layout),
        layout=layout,
        like=mesh_lib.abstract(shapes, layout),
        program=program,
    )
