"""The data set and the model of a config, made and checked."""

import functools
import pathlib
from collections.abc import Callable

import jax
import ml_collections
import numpy as np

from earthformer_jax import data, models
from earthformer_jax.data.dataset import Dataset
from earthformer_jax.data.state import DataState
from earthformer_jax.data.task import ForecastFrames
from earthformer_jax.models import bases, remat
from earthformer_jax.models.contract import Forecaster, Variables
from earthformer_jax.models.ensemble import Ensemble
from earthformer_jax.profiling.planes import convolved_planes
from earthformer_jax.run import config as config_lib
from earthformer_jax.run import memory
from earthformer_jax.run.command_line import as_config_error
from earthformer_jax.run.ensembles import members
from earthformer_jax.run.programs.kept import Programs
from earthformer_jax.run.tokenizers import restoring
from earthformer_jax.settings import ConfigError
from earthformer_jax.training import state as state_lib
from earthformer_jax.training.precision import policy
from earthformer_jax.training.settings import ParallelSettings

# Settings of the data that a base needs where a data set has them.
BASE_NEEDS = {
    "damped_persistence": {"anomalies": True},
    "lim": {"calendar": True},
    "lim_field_memory": {"calendar": True, "memory": True},
    "lim_hidden": {"calendar": True, "memory": True},
}

MakeParts = Callable[[ml_collections.ConfigDict], tuple[Dataset, Forecaster]]


def load_data(
    config: ml_collections.ConfigDict, state: DataState | None = None
) -> Dataset:
    """The data set of a config; a VQ-VAE has its frames as inputs and targets.

    Args:
        config: the whole config.
        state: of the data that a model was trained on; None: the data are new.

    Raises:
        ConfigError: with the reason, if it cannot be made.
    """
    known = () if state is None else (state,)
    with as_config_error(f"data {config.data.name!r}", "data", config.data):
        dataset = data.load(config.data, None, *known)
        if config.model.name not in restoring.MODELS:
            return dataset
        return restoring.to_restore(dataset, config.model.codebook_size)


def build(config: ml_collections.ConfigDict) -> tuple[Dataset, Forecaster]:
    """The data set and the model of a config.

    Raises:
        ConfigError: with the reason, if one of them cannot be made.
    """
    dataset = load_data(config)
    check_base(config, dataset)
    model = make_model(config, *example_shapes(config, dataset))
    check_report(config, dataset, model)
    return dataset, model


def example_shapes(
    config: ml_collections.ConfigDict, dataset: Dataset
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of the inputs `(t, h, w, c)` and the targets `(k, h, w, c)` of a data set.

    Raises:
        ConfigError: with the reason, if there is no example.
    """
    with as_config_error(f"data {config.data.name!r}", "data", config.data):
        example = dataset.data.example()
    return example["inputs"].shape, example["targets"].shape


def make_model(
    config: ml_collections.ConfigDict,
    input_shape: tuple[int, ...],
    target_shape: tuple[int, ...],
) -> Forecaster:
    """The model of a config, for inputs `(t, h, w, c)` and targets `(k, h, w, c)`.

    With `model.remat=auto` it computes nothing again, which is only about training.

    Raises:
        ConfigError: with the reason, if it cannot be made.
    """
    options = policy.model_options(config)
    name = options.pop("name")
    if options.get("remat") == remat.AUTO:
        options["remat"] = remat.NAMES[0]
    with as_config_error(f"model {name!r}", "model", config.model):
        return models.create_model(
            name, input_shape=input_shape, target_shape=target_shape, **options
        )


def check_base(config: ml_collections.ConfigDict, dataset: Dataset) -> None:
    """Rejects a base of a hybrid model that the data set cannot give.

    Raises:
        ConfigError: with the setting that is missing, or the bases that there are.
    """
    base = config.model.get("base", "")
    if base not in bases.names():  # none, or one that `make_model` refuses
        return
    given = f"config.model.base={base}"
    if config.data.get("out_len") == 0:
        raise ConfigError(
            f"{given} is for forecasts; with config.data.out_len=0 the targets are the "
            "inputs"
        )
    missing = [
        f"config.data.{field}={value}"
        for field, value in BASE_NEEDS.get(base, {}).items()
        if config.data.get(field, value) != value
    ]
    if missing:
        raise ConfigError(f"{given} needs {' and '.join(missing)}")
    offered = [*bases.LEARNS_NOTHING, *dataset.data.bases]
    if base not in offered:
        raise ConfigError(
            f"{given}: data {dataset.data.name!r} have no such forecast; expected one "
            f"of {', '.join(offered)}"
        )


def check_levels(
    parallel: ParallelSettings,
    model: Forecaster,
    variables: Variables,
    input_shape: tuple[int, ...],
) -> None:
    """Refuses more parts of fields than the coarsest level of a model has rows for.

    A convolution compares each row with its neighbours, which the device before or
    behind has. Where devices without a row lie between, gradients came out wrong.

    Args:
        parallel: settings of the devices.
        model: the checked model.
        variables: shapes and types of the model's variables.
        input_shape: `(t, h, w, c)`.

    Raises:
        ConfigError: with a number of parts that is possible.
    """
    parts = parallel.space
    if parts == 1:
        return
    axis = 0 if input_shape[1] % parts == 0 else 1
    inputs = jax.ShapeDtypeStruct((1, *input_shape), np.float32)
    planes = convolved_planes(model.apply, variables, inputs)
    coarse = [plane for plane in planes if plane[axis] % parts]
    if not coarse:
        return
    height, width = min(coarse)
    words = ("rows", "columns")[axis]
    most = max(n for n in range(1, parts) if not any(x[axis] % n for x in planes))
    raise ConfigError(
        f"config.parallel.space={parts}: the model has convolutions on a level of "
        f"{height} x {width} cells, whose {words} {parts} devices cannot share "
        f"equally; expected at most {most}, which divides the {words} of all levels"
    )


def check_report(
    config: ml_collections.ConfigDict, dataset: Dataset, model: Forecaster
) -> None:
    """Rejects a model whose forecasts could not be reported.

    Raises:
        ConfigError: with the reason.
    """
    from earthformer_jax import reports  # slow to import; forecasts do not need it

    with as_config_error(f"model {config.model.name!r}", "data", config.data):
        reports.check(dataset.task, model)
    if isinstance(dataset.task, ForecastFrames):  # whose sums are kept
        with as_config_error("Task.verification"):
            reports.archive.check(dataset.task.verification)
    with as_config_error("evaluation", "eval", config.eval):
        reports.fields.check(dataset.task, config.eval.write_forecasts)


def check_same_data(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    state: DataState,
    open_dataset: Callable[[], Dataset],
) -> None:
    """Refuses to continue a training with other data.

    Args:
        config: the whole config.
        workdir: of the training.
        state: of the data that it was started with.
        open_dataset: gives the data set of the config, in the units of the training.

    Raises:
        ConfigError: with what differs.
    """
    try:
        now = open_dataset().data.state
        different = state.differences(now()) if now else []
    except ConfigError as error:  # nothing here is what was trained on
        different = list(error.problems)
    if not different:
        return
    as_new = load_data(members.whole(config)).data.state
    lines = (state.differences(as_new()) if as_new else []) or different
    raise ConfigError(
        f"{workdir} was started with other data:"
        + "".join(f"\n  {line}" for line in lines)
        + "\nuse another --workdir, or the same data to continue"
    )


def check_model(
    config: ml_collections.ConfigDict,
    model: Forecaster,
    input_shape: tuple[int, ...],
    target_shape: tuple[int, ...],
    *,
    trained: bool = False,
    programs: Programs | None = None,
) -> Variables:
    """Rejects a model that cannot forecast targets of a shape.

    Args:
        config: the whole config.
        model: the model.
        input_shape: (t, h, w, c) of an example.
        target_shape: (k, h, w, c) of an example.
        trained: it has been checked before its training, so that only its variables are
            wanted; tracing a forecast takes long.
        programs: which know the variables of trained models.

    Returns:
        shapes and types of the model's variables.

    Raises:
        ConfigError: with the reason.
    """
    name = config.model.name
    memory.check_attention(config, model)
    try:
        make = functools.partial(state_lib.abstract_variables, model, input_shape)
        if trained and programs is not None:
            return programs.variables(model, input_shape, make)
        variables = make()
        if trained:
            return variables
        apply = functools.partial(model.apply, train=False)
        inputs = jax.ShapeDtypeStruct((1, *input_shape), np.float32)
        forecast = jax.eval_shape(apply, variables, inputs).shape[1:]
    except (ValueError, TypeError) as error:
        raise ConfigError(f"model {name!r}: {error}") from error
    if forecast != target_shape:
        raise ConfigError(
            f"model {name!r} forecasts {forecast} but the targets are "
            f"{target_shape} (time, height, width, channels)"
        )
    return variables


def summarize(config: ml_collections.ConfigDict) -> str:
    """The layers and costs of a config's model, or of a member of an ensemble, as text.

    Raises:
        ConfigError: if the config, its data or its model cannot be used.
    """
    from earthformer_jax.profiling import summary  # slow

    config_lib.check(config)
    dataset, model = build(config)
    shapes = example_shapes(config, dataset)
    if isinstance(model, Ensemble):
        model = model.member
    title = f"{config_lib.model_label(config)} on {dataset.data.name}"
    return summary.describe(model, *shapes, title)
