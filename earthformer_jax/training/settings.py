"""What every training has beside its data and its model: the sections of a config.

The defaults are those of table 10 of the paper, and of the official implementation
where the table is silent.

Reference:
    Gao et al. 2022, Earthformer, https://arxiv.org/abs/2207.05833, appendix A.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from earthformer_jax import losses
from earthformer_jax.checks import inherited
from earthformer_jax.data.source import NUM_THREADS
from earthformer_jax.settings import (
    DECAY,
    FRACTION,
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
from earthformer_jax.training.precision.policy import PrecisionSettings

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
        precision: types of numbers.
    """

    seed: int = setting(0, at_least(0, UINT32_MOST))
    optim: OptimSettings = OptimSettings()
    train: TrainSettings = TrainSettings()
    eval: EvalSettings = EvalSettings()
    parallel: ParallelSettings = ParallelSettings()
    precision: PrecisionSettings = PrecisionSettings()


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
        config: `seed` and the sections `optim`, `train`, `eval`, `parallel` and
            `precision`. Other entries are not looked at.

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
