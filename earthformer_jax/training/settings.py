"""What every training has beside its data and its model: the sections of a config.

The defaults are those of table 10 of the paper, and of the official implementation
where the table is silent.

Reference:
    Gao et al. 2022, Earthformer, https://arxiv.org/abs/2207.05833, appendix A.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from earthformer_jax import losses
from earthformer_jax.checks import inherited
from earthformer_jax.data.dataset import Dataset
from earthformer_jax.data.source import NUM_THREADS
from earthformer_jax.losses.contract import Loss
from earthformer_jax.metrics.contract import Metric, scalar_scores
from earthformer_jax.metrics.ensembles.validation import CRPS, MembersAndMean
from earthformer_jax.metrics.own_loss import LOSS, ForecastAndLoss
from earthformer_jax.models.contract import (
    Forecaster,
    own_loss,
    trains_members,
    validates_own_loss,
)
from earthformer_jax.settings import (
    DECAY,
    FRACTION,
    INT32_MOST,
    NOT_NEGATIVE,
    PATH,
    POSITIVE,
    TEXT,
    UINT32_MOST,
    ConfigError,
    at_least,
    choice,
    qualified,
    setting,
    settings_from,
)
from earthformer_jax.training.monitoring import trackers

JIT, SHARD_MAP, PMAP = "jit", "shard_map", "pmap"


@dataclasses.dataclass(frozen=True)
class OptimSettings:
    """AdamW, its learning rate, and the average of the parameters.

    Attributes:
        lr: learning rate after the warm-up.
        weight_decay: decoupled weight decay (AdamW), in units of the learning rate.
        warmup_fraction: share of the steps with a rising rate.
        warmup_min_ratio: rate of the first step, in units of lr.
        min_lr_ratio: rate at the end, in units of lr.
        clip_norm: largest global gradient norm; 0: no clipping.
        b1: memory of Adam's mean gradient.
        b2: memory of Adam's mean squared gradient.
        eps: added to the root of Adam's mean squared gradient.
        ema_decay: memory of the averaged parameters; 0: none.
    """

    lr: float = setting(1e-3, POSITIVE)
    weight_decay: float = setting(1e-5, NOT_NEGATIVE)
    warmup_fraction: float = setting(0.2, FRACTION)
    warmup_min_ratio: float = setting(0.0, FRACTION)
    min_lr_ratio: float = setting(1e-3, FRACTION)
    clip_norm: float = setting(1.0, NOT_NEGATIVE)
    b1: float = setting(0.9, DECAY)
    b2: float = setting(0.999, DECAY)
    eps: float = setting(1e-8, POSITIVE)
    ema_decay: float = setting(0.0, DECAY)


def option_of(loss: str, name: str) -> Any:
    """The field of an option of a loss, with its default and accepted values."""
    return inherited(losses.loss_class(loss), name)


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """The training loop.

    Fields marked `free` may change when training continues in the same workdir: they
    alter what is written and when, not what is learned.

    Attributes:
        batch_size: examples per optimiser step.
        micro_batch: examples per gradient; the gradients add up.
        loss: what is minimised (`losses`); empty (default): the model's own terms alone
            for a model that has all of its loss itself, afcrps for one that forecasts
            several members in training, otherwise mse.
        loss_alpha: of afcrps: 1 for the fair CRPS, 0 for that of the members as they
            are.
        loss_delta: of huber: largest error that counts as small, in model units.
        loss_level: of pinball: level of the quantile that is forecast.
        loss_thresholds: of b_mse: rising, in the units that the data are shown in;
            empty (default): those of the events that the data set is scored by.
        loss_factors: of b_mse: of the error from each threshold on; empty (default):
            2, 4, 8, ..., doubled at each.
        loss_absolute: of b_mse: share of the absolute error that is added.
        loss_amplitude: of facl: share of the training, at its end, with amplitudes
            alone.
        epochs: passes through the training split, to which `simulated_steps` are added.
        steps: optimiser steps in all; 0: from epochs. A training can be continued with
            more, or fewer than planned; its schedule then follows the new number.
        simulated_steps: first steps, on simulated examples only.
        simulated_fraction: share of simulated examples afterwards.
        validate_every: steps between validations; 0: an epoch.
        early_stop_patience: validations without improvement before training stops; 0:
            never.
        monitor: validation score that selects the best checkpoint; empty (default):
            crps for a model that is trained with members, loss for one that has all of
            its loss itself, otherwise mse.
        monitor_mode: whether a small or a large score is good.
        log_every: steps between lines of the log.
        checkpoint_every: steps between checkpoints; 0: at validations.
        init_from: a workdir, an exported model (.efx), or a file of official weights,
            whose weights training begins with as far as they fit; empty (default): new
            ones.
        num_threads: threads that read examples; 0: none.
        num_workers: processes that read examples; 0: none.
        trackers: services that are told the records as well, wandb (Weights & Biases),
            mlflow, or both, separated by a comma; empty (default): none.
    """

    batch_size: int = setting(64, at_least(1))
    micro_batch: int = setting(16, at_least(1))
    loss: str = setting("", choice("", *losses.names()))
    loss_alpha: float = option_of("afcrps", "alpha")
    loss_delta: float = option_of("huber", "delta")
    loss_level: float = option_of("pinball", "level")
    loss_thresholds: tuple[float, ...] = option_of("b_mse", "thresholds")
    loss_factors: tuple[float, ...] = option_of("b_mse", "factors")
    loss_absolute: float = option_of("b_mse", "absolute")
    loss_amplitude: float = option_of("facl", "amplitude")
    epochs: float = setting(100.0, NOT_NEGATIVE)
    steps: int = setting(0, at_least(0))
    simulated_steps: int = setting(0, at_least(0))
    simulated_fraction: float = setting(0.0, FRACTION)
    validate_every: int = setting(0, at_least(0))
    early_stop_patience: int = setting(20, at_least(0), free=True)
    monitor: str = setting("", TEXT)
    monitor_mode: str = setting("min", choice("min", "max"))
    log_every: int = setting(20, at_least(1), free=True)
    checkpoint_every: int = setting(0, at_least(0), free=True)
    init_from: str = setting("", PATH)
    num_threads: int = setting(NUM_THREADS, at_least(0), free=True)
    num_workers: int = setting(0, at_least(0), free=True)
    trackers: str = setting("", trackers.NAMES, free=True)

    def check(self) -> None:
        """Refuses values that are possible one by one but not together.

        Raises:
            ConfigError: naming them.
        """
        problems = []
        if self.batch_size % self.micro_batch:
            problems.append(
                f"micro_batch={self.micro_batch} does not divide "
                f"batch_size={self.batch_size}"
            )
        if not self.steps and not self.epochs:
            problems.append("epochs=0 and steps=0: expected one of them to be above 0")
        if self.steps and self.simulated_steps > self.steps:
            problems.append(
                f"simulated_steps={self.simulated_steps} exceeds steps={self.steps}"
            )
        if problems:
            raise ConfigError(*problems)


@dataclasses.dataclass(frozen=True)
class EvalSettings:
    """Forecasts and scores of a trained model.

    Attributes:
        batch_size: examples per forecast batch.
        checkpoint: which checkpoint is scored.
        clusters: regimes that embeddings are sorted into.
        members: members of each forecast of a model that draws, from which its
            probabilities are scored; fewer than 2: they are not.
        spread: whether the departures of members from their mean are those of the
            training, or multiplied by factors fitted on the validation split.
        write_forecasts: of so many test examples, the first, the model's forecasts,
            those of the references and the truth are written into forecasts.nc.
    """

    batch_size: int = setting(16, at_least(1), free=True)
    checkpoint: str = setting("best", choice("best", "last"), free=True)
    clusters: int = setting(7, at_least(2), free=True)
    members: int = setting(16, at_least(0), free=True)
    spread: str = setting("fitted", choice("fitted", "as_trained"), free=True)
    write_forecasts: int = setting(0, at_least(0), free=True)


@dataclasses.dataclass(frozen=True)
class ParallelSettings:
    """How the devices share the work; none of it changes what is learned.

    Each batch is divided into devices / space parts, and each part is computed by
    `space` devices.

    Attributes:
        backend: program of a training step: jit, one for all devices, which the
            compiler divides; shard_map or pmap, one for each device, which averages
            with the others.
        space: parts that each field is divided into along its height, or along its
            width where the height is not divisible, for fields too large for a device.
        model: parts that parameters, their averages and the state of the optimiser are
            divided into, for models too large for a device.
    """

    backend: str = setting(JIT, choice(JIT, SHARD_MAP, PMAP), free=True)
    space: int = setting(1, at_least(1), free=True)
    model: int = setting(1, at_least(1), free=True)

    def check(self) -> None:
        """Refuses values that are possible one by one but not together.

        Raises:
            ConfigError: naming them.
        """
        if self.backend != JIT and self.space * self.model > 1:
            raise ConfigError(
                f"backend={self.backend!r} divides batches only, but "
                f"space={self.space} and model={self.model}; expected backend={JIT!r}, "
                "or 1 for both"
            )


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything of a config but its data and its model.

    Attributes:
        seed: seed of initial parameters, dropout and data order.
        optim: the optimiser.
        train: the training loop.
        eval: forecasts and scores.
        parallel: how the devices share the work.
    """

    seed: int = setting(0, at_least(0, UINT32_MOST))
    optim: OptimSettings = OptimSettings()
    train: TrainSettings = TrainSettings()
    eval: EvalSettings = EvalSettings()
    parallel: ParallelSettings = ParallelSettings()


_OPTION = "loss_"  # what options of a loss begin with among the settings

SECTIONS: dict[str, type[Any]] = {
    field.name: type(field.default)
    for field in dataclasses.fields(Settings)
    if dataclasses.is_dataclass(field.default)
}

# These may change when training continues in the same workdir.
FREE_TO_CHANGE = frozenset(
    f"{section}.{field.name}"
    for section, settings in SECTIONS.items()
    for field in dataclasses.fields(settings)
    if field.metadata.get("free")
)


def from_config(config: Mapping[str, Any]) -> Settings:
    """Checked settings of a config; what it leaves out has its default.

    Args:
        config: `seed` and the sections `optim`, `train`, `eval` and `parallel`. Other
            entries are not looked at.

    Raises:
        ConfigError: naming every field that is unknown or has a value that is not
            accepted.
    """
    made, problems = {}, []
    settings = Settings()
    for name, section in SECTIONS.items():
        values = config.get(name, {})
        try:
            made[name] = settings_from(section, values, f"config.{name}")
        except ConfigError as error:
            names = {*values, *(field.name for field in dataclasses.fields(section))}
            problems += [qualified(p, f"config.{name}.", names) for p in error.problems]
    try:
        seed = {"seed": config["seed"]} if "seed" in config else {}
        settings = settings_from(Settings, seed | made, "a config")
    except ConfigError as error:
        problems += [qualified(p, "config.", ["seed"]) for p in error.problems]
    if problems:
        raise ConfigError(*problems)
    return settings


def make_loss(train: TrainSettings, model: Forecaster, dataset: Dataset) -> Loss:
    """The loss that a model is trained with.

    Args:
        train: names the loss, and its options `loss_alpha` and so on.
        model: to train.
        dataset: gives thresholds of b_mse and their units.

    Raises:
        ConfigError: if the model cannot be trained with this loss, an option of another
            one is set, or the data have no thresholds, or several units.
    """
    defaults = {f.name: f.default for f in dataclasses.fields(train)}
    given = {k: getattr(train, k) for k in defaults if k.startswith(_OPTION)}
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    try:
        name = losses.choose(
            train.loss,
            own_loss=own_loss(model),
            takes_members=trains_members(model),
        )
        has = {field.name for field in dataclasses.fields(losses.loss_class(name))}
        wrong = [
            f"{k}={value!r} is not an option of loss={name!r}; expected the default, "
            f"{defaults[k]!r}"
            for k, value in given.items()
            if k.removeprefix(_OPTION) not in has and value != defaults[k]
        ]
        if wrong:
            raise ConfigError(*wrong)
        options = {k.removeprefix(_OPTION): value for k, value in given.items()}
        options = {k: value for k, value in options.items() if k in has}
        if "thresholds" in has:
            options |= _units(name, options["thresholds"], dataset)
        try:
            return losses.create_loss(name, **options)
        except ConfigError as error:
            raise ConfigError(
                *(qualified(p, _OPTION, options) for p in error.problems)
            ) from error
    except ConfigError as error:
        raise ConfigError(
            *(qualified(p, "config.train.", defaults) for p in error.problems)
        ) from error


def _units(
    name: str, thresholds: Sequence[float], dataset: Dataset
) -> dict[str, tuple[float, ...]]:
    """Thresholds of a loss in the units that data are shown in, and these units.

    Raises:
        ConfigError: if there are no thresholds, or several units.
    """
    data, channels = dataset.data, dataset.data.display.channels
    units = list(dict.fromkeys(channel.units for channel in channels))
    if len(units) > 1:
        raise ConfigError(
            f"loss={name!r} compares all channels with the same thresholds, but those "
            f"of {data.name!r} are in {', '.join(units)}; expected targets in one unit"
        )
    of_scores = getattr(dataset.task.metric, "thresholds", ())
    if not thresholds and not of_scores:
        raise ConfigError(
            f"loss_thresholds=(): {data.name!r} has no thresholds of its own; expected "
            f"rising numbers{f' in {units[0]}' if units[0] else ''} for loss={name!r}"
        )
    return dict(
        thresholds=tuple(map(float, thresholds or of_scores)),
        scale=tuple(channel.scale for channel in channels),
        offset=tuple(channel.offset for channel in channels),
    )


def default_monitor(*, of_members: bool = False, own_loss: bool = False) -> str:
    """The validation score that selects the best checkpoint if none is named.

    The error of a mean does not see the spread of members: a model that begins with the
    weights of a network without noise would be best before its first step. Nor does the
    error of the most probable frames say how good probabilities of codes are.

    Args:
        of_members: whether the model is trained with members.
        own_loss: whether it tells its own loss.
    """
    return CRPS if of_members else LOSS if own_loss else "mse"


def monitored(
    train: TrainSettings, dataset: Dataset, model: Forecaster | None
) -> tuple[str, Metric]:
    """The validation score that selects the best checkpoint, and its metric.

    Args:
        train: settings of the training.
        dataset: data to learn from, and the task with its metric.
        model: that is trained; None: one with a single forecast.
    """
    of_members = model is not None and trains_members(model)
    own = model is not None and validates_own_loss(model)
    metric = dataset.task.metric
    if of_members or own:
        weights = np.asarray(dataset.data.loss_weights, np.float64)
        metric = (MembersAndMean if of_members else ForecastAndLoss)(metric, weights)
    return train.monitor or default_monitor(of_members=of_members, own_loss=own), metric


def check_parts(parallel: ParallelSettings, count: int) -> None:
    """Refuses parts of fields and parameters that the devices cannot be divided into.

    Args:
        parallel: settings of the devices.
        count: number of devices of all processes.

    Raises:
        ConfigError: naming the settings and how to change them.
    """
    parts = parallel.space * parallel.model
    if count % parts:
        raise ConfigError(
            f"config.parallel.space={parallel.space} times config.parallel.model="
            f"{parallel.model} does not divide the number of devices, {count}; "
            "expected numbers whose product does, or other devices "
            f"(JAX_NUM_CPU_DEVICES={parts} on a CPU)"
        )


def check_fields(parallel: ParallelSettings, shapes: Sequence[Sequence[int]]) -> None:
    """Refuses parts of fields that cannot be divided into so many.

    Args:
        parallel: settings of the devices.
        shapes: of fields `(t, h, w, c)`.

    Raises:
        ConfigError: naming the setting and the field.
    """
    for _, height, width, _ in shapes:
        if height % parallel.space and width % parallel.space:
            raise ConfigError(
                f"config.parallel.space={parallel.space} divides neither the height "
                f"nor the width of fields of {height} x {width} cells; expected a "
                "number that does"
            )


def check_devices(settings: Settings, count: int, processes: int = 1) -> None:
    """Refuses to divide work in a way that the devices cannot.

    Args:
        settings: of the run.
        count: number of devices of all processes.
        processes: number of processes.

    Raises:
        ConfigError: naming the settings and how to change them.
    """
    parallel, train = settings.parallel, settings.train
    check_parts(parallel, count)
    problems = []
    if parallel.backend != JIT and train.micro_batch % count:
        problems.append(
            f"config.train.micro_batch={train.micro_batch} cannot be shared equally by "
            f"{count} devices, as config.parallel.backend={parallel.backend!r} needs; "
            f"use a multiple of their number, or config.parallel.backend={JIT!r}"
        )
    batches = {
        "train.micro_batch": train.micro_batch,
        "eval.batch_size": settings.eval.batch_size,
    }
    problems += [
        f"config.{name}={size} cannot be shared equally by {processes} processes; use "
        "a multiple of their number"
        for name, size in batches.items()
        if size % processes
    ]
    if count // processes % (parallel.space * parallel.model):
        problems.append(
            f"config.parallel.space={parallel.space} times config.parallel.model="
            f"{parallel.model} does not divide the {count // processes} devices of "
            "each process; expected numbers whose product does"
        )
    if problems:
        raise ConfigError(*problems)


def check_dataset(
    settings: Settings, dataset: Dataset, model: Forecaster | None = None
) -> None:
    """Refuses settings that ask a data set for something it does not have.

    Args:
        settings: of the run.
        dataset: data to learn from, and the task with its metric.
        model: to train; None: one with a single forecast.

    Raises:
        ConfigError: naming the field, or the split that is empty.
    """
    data, train = dataset.data, settings.train
    problems = [
        f"the {split} split of {data.name!r} is empty: nothing to "
        f"{'train on' if split == 'train' else 'validate with'}"
        for split in ("train", "validation")
        if len(getattr(data, split)) == 0
    ]
    if data.simulated is None:
        problems += [
            f"config.train.{name}={getattr(train, name)}, but {data.name!r} has no "
            "simulated examples; expected 0"
            for name in ("simulated_steps", "simulated_fraction")
            if getattr(train, name)
        ]
    if not train.steps and len(data.train):
        seen = train.epochs * len(data.train)
        if seen < train.batch_size and not train.simulated_steps:
            problems.append(
                f"config.train.batch_size={train.batch_size} is more than the "
                f"{len(data.train)} training examples of {train.epochs:g} epochs; "
                "expected less, or config.train.steps"
            )
        if seen / train.batch_size > INT32_MOST:
            problems.append(
                f"config.train.epochs={train.epochs:g}: expected at most {INT32_MOST} "
                f"steps of {train.batch_size} examples"
            )
    monitor, metric = monitored(train, dataset, model)
    scores = scalar_scores(metric)
    if monitor not in scores:
        problems.append(
            f"config.train.monitor={monitor!r} is not a score of {data.name!r}; "
            f"expected one of {', '.join(scores)}"
        )
    if problems:
        raise ConfigError(*problems)
