"""Whether a data set has what the settings of a training ask it for."""

from earthformer_jax.data.dataset import Dataset
from earthformer_jax.metrics.contract import scalar_scores
from earthformer_jax.models.contract import Forecaster
from earthformer_jax.settings import INT32_MOST, ConfigError
from earthformer_jax.training.settings import Settings
from earthformer_jax.training.setup.monitor import monitored


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
