"""The report of a trained model: what is scored, and what names and explains it."""

import dataclasses
import functools
import json
import pathlib
from typing import Any

import jax
import ml_collections

from earthformer_jax.data.dataset import Dataset
from earthformer_jax.data.splits import SPLITS
from earthformer_jax.data.state import DataState
from earthformer_jax.models.contract import (
    Embedder,
    Tokenizer,
    draws,
    members_of_mean,
    trains_members,
)
from earthformer_jax.models.ensemble import Ensemble
from earthformer_jax.run import config as config_lib
from earthformer_jax.run import workdir as workdir_lib
from earthformer_jax.run.distributed.forecasting import Together
from earthformer_jax.run.probabilities import spread
from earthformer_jax.run.trained import TrainedModel
from earthformer_jax.training import mesh as mesh_lib
from earthformer_jax.training.state import count_parameters
from earthformer_jax.training.workdir import to_json


def report(
    trained: TrainedModel,
    dataset: Dataset,
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    label: str,
) -> dict[str, Any]:
    """Writes scores, figures and the page; the other processes of a job `assist`.

    Args:
        trained: the model.
        dataset: with the test split.
        config: the whole config of the evaluation.
        workdir: of the training.
        label: names the files, see `label`; "": those of the training.

    Returns:
        what scores.json holds.
    """
    from earthformer_jax import reports  # slow to import; forecasts do not need it

    options = config.eval
    settings = reports.Settings(
        options.batch_size,
        options.clusters,
        label=label,
        write_forecasts=options.write_forecasts,
    )
    together = _together(trained, options, dataset)
    scores = reports.report(
        dataset.task,
        dataclasses.replace(dataset.data, test=together.shared(dataset.data.test)),
        _functions(trained, options, together),
        workdir,
        settings,
        about=_about(trained, config, workdir),
    )
    together.done()
    return scores


def label(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    dataset: Dataset,
    state: DataState | None,
    protocol: str,
) -> str:
    """What names the scores of another protocol or other data; "" if neither.

    Args:
        config: the whole config of the evaluation.
        workdir: of the training.
        dataset: of the config.
        state: of the data of the training; None: the workdir has none.
        protocol: name of a protocol other than that of the training; "": none.

    Raises:
        ConfigError: if the workdir has no config.
    """
    now = dataset.data.state
    if state is not None and state.checksums and now is not None:
        is_same = not state.differences(now(), SPLITS)
    else:
        is_same = workdir_lib.has_same_data(config, workdir)
    name = "" if is_same else workdir_lib.data_name(config)
    return "-".join(filter(None, (name, protocol)))


def assist(
    trained: TrainedModel, dataset: Dataset, config: ml_collections.ConfigDict
) -> None:
    """Reads and forecasts for the first process of a job, which makes the report.

    Args:
        trained: the same model.
        dataset: the same.
        config: the whole config of the evaluation.
    """
    _together(trained, config.eval, dataset).serve()


def _together(
    trained: TrainedModel, options: ml_collections.ConfigDict, dataset: Dataset
) -> Together:
    """What a report asks for, to be computed by all processes of the job."""
    from earthformer_jax.training import evaluation  # slow; forecasts do not need it

    make = functools.partial(
        evaluation.make_forecaster,
        trained.model,
        jax.device_get(trained.variables),
        mesh_lib.data_mesh(jax.local_devices()),
    )
    functions = {"forecast": make()}
    if isinstance(trained.model, Ensemble):
        functions["members"] = make(method="members")
    elif draws(trained.model) and options.members > 1:
        functions["members"] = make(method="members", size=options.members)
    for kind, method in ((Embedder, "embed"), (Tokenizer, "encode")):
        if isinstance(trained.model, kind):
            functions[method] = make(method=method)
    return Together(functions, axes={"members": 1}, source=dataset.data.test)


def _functions(
    trained: TrainedModel, options: ml_collections.ConfigDict, together: Together
):
    """The model as functions, and its members if it has any."""
    # Slow to import, and not needed for forecasts.
    from earthformer_jax.reports.probabilities.scoring import Remembered
    from earthformer_jax.reports.scoring import (
        MeanOfFirst,
        MeanOfMembers,
        ModelFunctions,
    )

    ask = together.asked
    more: dict[str, Any] = {}
    forecast = ask("forecast")
    if isinstance(trained.model, Ensemble):
        more = {"members": ask("members"), "size": trained.model.size}
        forecast = MeanOfMembers(more["members"])
    elif draws(trained.model) and options.members > 1:
        members = Remembered(ask("members"))
        more = {
            "members": members,
            "size": options.members,
            "spread": spread.used(trained.variables),
        }
        if trains_members(trained.model):
            first = members_of_mean(trained.model)
            if first <= options.members:  # they need not be made twice
                forecast = MeanOfFirst(members, first)
    has = functools.partial(isinstance, trained.model)
    return ModelFunctions(
        forecast=forecast,
        embed=ask("embed") if has(Embedder) else None,
        encode=ask("encode") if has(Tokenizer) else None,
        step=trained.step,
        **more,
    )


def _about(
    trained: TrainedModel, config: ml_collections.ConfigDict, workdir: pathlib.Path
):
    """What the page says of the model and its run."""
    from earthformer_jax.reports.page.about import About

    saved = workdir_lib.read_config(workdir)
    return About(
        model=config_lib.model_label(config),
        parameters=count_parameters(trained.variables["params"]),
        config=json.loads(to_json(config)),
        changed=[line.split(":")[0] for line in workdir_lib.differences(saved, config)],
        workdir=str(workdir),
        step=trained.step,
        complete=trained.complete,
        device=jax.local_devices()[0].device_kind,
    )
