"""The checkpoint of an ensemble, made of those of its members."""

import dataclasses
import json
import logging
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from earthformer_jax.data import state as data_state
from earthformer_jax.data.state import DataState
from earthformer_jax.models.contract import Variables
from earthformer_jax.models.ensemble import MEMBER
from earthformer_jax.run.start import BASE
from earthformer_jax.run.trained import TrainedModel
from earthformer_jax.training import mesh as mesh_lib
from earthformer_jax.training import workdir as workdir_lib
from earthformer_jax.training.checkpoint import (
    CheckpointError,
    Checkpoints,
    Progress,
)
from earthformer_jax.training.plan import make_plan
from earthformer_jax.training.settings import TrainSettings

logger = logging.getLogger(__name__)


def begin(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    state: Callable[[], DataState] | None,
) -> None:
    """Keeps the config and what the model must know of its data.

    The config of a smaller ensemble is kept until the larger one is combined, since it
    is that of the checkpoint.

    Args:
        config: the whole config of the ensemble.
        workdir: of the ensemble.
        state: makes the state of its data; None: there is none.
    """
    if jax.process_index() > 0:
        return
    if not Checkpoints(workdir / "checkpoints").steps():
        workdir_lib.write_config(config, workdir)
    if state is not None and not (workdir / data_state.FILE).exists():
        state().write(workdir)


def stacked(
    folders: Sequence[pathlib.Path],
    which: str,
    like: Variables,
    base: Mapping[str, Any] | None = None,
) -> tuple[Variables, list[Progress]]:
    """The variables of an ensemble, on the host, and the progress of its members.

    Args:
        folders: workdirs of the members.
        which: "best" or "last", as `Checkpoints.restore_variables`.
        like: shapes and types of the variables of the ensemble.
        base: constants of the simple forecast that all members correct, in place of
            those that they were trained with, which may be of a part of the training
            months; None: they keep theirs.

    Raises:
        CheckpointError: if a member has no checkpoint that can be used.
    """
    everywhere = mesh_lib.replicated(mesh_lib.data_mesh())
    of_member = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype, sharding=everywhere),
        {kind: tree[MEMBER] for kind, tree in like.items()},
    )
    found, progress = [], []
    for folder in folders:
        checkpoints = Checkpoints(folder / "checkpoints")
        variables, _ = checkpoints.restore_variables(which, of_member)
        found.append(jax.device_get(variables))
        progress.append(checkpoints.progress(checkpoints.steps()[-1]))
    if base is not None:
        for variables in found:
            variables["batch_stats"] = {**variables["batch_stats"], BASE: dict(base)}
    arrays = jax.tree.map(lambda *leaves: np.stack(leaves), *found)
    return {kind: {MEMBER: tree} for kind, tree in arrays.items()}, progress


def combine(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    folders: Sequence[pathlib.Path],
    like: Variables,
    base: Mapping[str, Any] | None = None,
) -> None:
    """Writes the best variables of every member as one checkpoint of the ensemble.

    It has the number of the most steps that a member was trained for. Nothing is
    written if that is there already.

    Args:
        config: the whole config of the ensemble.
        workdir: of the ensemble.
        folders: workdirs of the members, which are complete.
        like: shapes and types of the variables of the ensemble.
        base: as for `stacked`.

    Raises:
        CheckpointError: if a checkpoint cannot be read or written.
    """
    variables, progress = stacked(folders, "best", like, base)
    longest = max(progress, key=lambda x: x.step)
    fields = json.loads(workdir_lib.to_json(config))
    with Checkpoints(workdir / "checkpoints", fields) as checkpoints:
        if _holds(checkpoints, longest.step, variables):
            logger.info("the ensemble is complete already")
        else:
            checkpoints.supersede()
            everywhere = mesh_lib.replicated(mesh_lib.data_mesh())
            state = {
                "step": jnp.asarray(longest.step, jnp.int32),
                "params": variables["params"],
                "batch_stats": variables.get("batch_stats", {}),
            }
            checkpoints.save(
                jax.device_put(state, everywhere),
                Progress(
                    step=longest.step,
                    best_step=longest.step,
                    validations_since_best=longest.validations_since_best,
                ),
            )
            logger.info(
                "%d members are combined: the forecast is the mean of theirs, each "
                "with its best weights",
                len(folders),
            )
    if jax.process_index() == 0:
        workdir_lib.write_config(config, workdir)


def _holds(checkpoints: Checkpoints, step: int, variables: Variables) -> bool:
    """Whether the newest checkpoint is of a step and has these variables."""
    if checkpoints.steps()[-1:] != [step]:
        return False
    try:
        saved, _ = checkpoints.restore_variables("last")
    except CheckpointError:
        return False
    a, b = (dict(jax.tree_util.tree_leaves_with_path(x)) for x in (saved, variables))
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def are_complete(
    folders: Sequence[pathlib.Path], train: TrainSettings, examples: int
) -> bool:
    """Whether no member has steps left; one whose folder was deleted has none.

    Args:
        folders: workdirs of the members.
        train: settings of the training.
        examples: size of the training split of members that do not say so themselves.
    """
    for folder in folders:
        checkpoints = Checkpoints(folder / "checkpoints")
        if not folder.exists():
            continue
        if not (steps := checkpoints.steps()):
            return False
        state = data_state.read(folder)
        plan = make_plan(train, state.examples["train"] if state else examples)
        if not plan.is_complete(checkpoints.progress(steps[-1])):
            return False
    return True


def of_members(
    trained: TrainedModel,
    folders: Sequence[pathlib.Path],
    train: TrainSettings,
    examples: int,
    like: Variables,
    which: str,
) -> TrainedModel:
    """An ensemble that knows whether its members are complete.

    The checkpoint holds the best variables of every member; those of their last steps
    are read from the members.

    Args:
        trained: what the checkpoint of the ensemble holds.
        folders: workdirs of the members.
        train: settings of the training.
        examples: size of the training split.
        like: shapes and types of the variables of the ensemble.
        which: "best" or "last".
    """
    complete = are_complete(folders, train, examples)
    trained = dataclasses.replace(trained, complete=complete)
    if which == "best":
        return trained
    stats = trained.variables.get("batch_stats", {}).get(MEMBER, {})
    base = jax.tree.map(lambda x: x[0], stats.get(BASE)) if BASE in stats else None
    variables, _ = stacked(folders, which, like, base)
    return dataclasses.replace(trained, variables=jax.device_put(variables))
