"""The loss that the settings, the model and the data ask for."""

import dataclasses
from collections.abc import Sequence

from earthformer_jax import losses
from earthformer_jax.data.dataset import Dataset
from earthformer_jax.losses.contract import Loss
from earthformer_jax.models.contract import Forecaster, own_loss, trains_members
from earthformer_jax.settings import ConfigError, qualified
from earthformer_jax.training.settings import TrainSettings

_OPTION = "loss_"  # what options of a loss begin with among the settings


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
