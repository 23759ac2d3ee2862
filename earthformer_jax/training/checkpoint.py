"""Checkpoints: written in the background, checked when read, never lost.

A checkpoint is a folder `checkpoints/<step>` that is written under another name and
renamed when it is complete, so that an interrupted save leaves no partial checkpoint.
It holds the state and, in its metadata, a `Progress`: the position in the data and the
best validation so far. Sizes and checksums of its files (`training.checksums`) are
compared before they are used. A folder that cannot be read is never deleted.
"""

import concurrent.futures
import contextlib
import dataclasses
import logging
import pathlib
import re
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint.experimental.v1 as ocp
from jax.experimental import multihost_utils

from earthformer_jax.training import state as state_lib
from earthformer_jax.training.disk import checksums, matching, orbax_log
from earthformer_jax.training.disk.progress import Progress, from_metadata
from earthformer_jax.training.precision import storage

logger = logging.getLogger(__name__)

_STATE = "state"
_KEPT = 2  # newest checkpoints to keep, in addition to their best ones
_ALONE = 30.0  # seconds that a process of a job that failed waits for a running save
_SAVING = ".saving"
_DELETING = ".deleting"
_UNREADABLE = ".unreadable"
_UNFINISHED = ".orbax-checkpoint-tmp"  # Orbax's name of a save in progress
_METADATA = "_CHECKPOINT_METADATA"  # Orbax's file with the progress
# Beside the progress; earlier versions wrote neither.
_HAS_CHECKSUMS, _CONFIG = "has_checksums", "config"

_Metadata = tuple[dict[str, Any], Progress, Mapping[str, Any] | None]


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be used; the message says what to do."""


class UnreadableError(CheckpointError):
    """A checkpoint that is incomplete or damaged."""


class MismatchError(CheckpointError):
    """A checkpoint of another model or optimiser."""


class Checkpoints:
    """The checkpoints of a workdir; a context that exits when the last one is on disk.

    The two newest ones are kept, and the best one that each of them knows. Every
    process of a multi-process job makes the same calls.

    Args:
        folder: of the checkpoints.
        config: of the training, kept in each checkpoint as `config` returns it.
    """

    def __init__(self, folder: pathlib.Path, config: Mapping[str, Any] | None = None):
        self._config = config
        self._folder = pathlib.Path(folder).absolute()
        self._best: dict[int, int | None] = {}  # readable step -> its best step
        # Of a file with this path, time and size; Orbax takes long to read it.
        self._known: dict[tuple[pathlib.Path, int, int], _Metadata] = {}
        self._saving: tuple[int, concurrent.futures.Future[None]] | None = None
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        orbax_log.drop_details()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if kind is None or jax.process_count() == 1:
            self.wait()
        elif self._saving is not None:  # the others need not come here
            (_, finished), self._saving = self._saving, None
            concurrent.futures.wait([finished], _ALONE)

    def path(self, step: int) -> pathlib.Path:
        """Where the checkpoint of a step is or would be."""
        return self._folder / f"{step:08d}"

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, ascending."""
        if not self._folder.is_dir():
            return []
        names = (path.name for path in self._folder.iterdir())
        return sorted(int(n) for n in names if re.fullmatch("[0-9]{8,}", n))

    def save(self, state: Any, progress: Progress) -> None:
        """Starts to save; returns when the state may be overwritten.

        Args:
            state: pytree of arrays.
            progress: its `step` names the checkpoint.
        """
        self.wait()
        step, metadata = progress.step, dataclasses.asdict(progress)
        replaces = step in self._best
        saving = self._saving_path(step)
        with self._writing():
            if jax.process_index() == 0 and saving.exists():
                shutil.rmtree(saving)
            response = ocp.save_checkpointables_async(
                str(saving),
                {_STATE: state},
                custom_metadata=metadata
                | {_HAS_CHECKSUMS: True, _CONFIG: self._config},
            )
        finished = self._thread.submit(self._finish, step, response, replaces)
        self._saving = step, finished
        self._best[step] = progress.best_step

    def wait(self) -> None:
        """Waits until the running save is on disk, then deletes superseded ones."""
        if self._saving is None:
            return
        (step, finished), self._saving = self._saving, None
        with self._writing():
            finished.result()
        if jax.process_count() > 1:  # the first process has renamed it
            multihost_utils.sync_global_devices(f"checkpoint {step}")
        if jax.process_index() == 0:
            self._metadata(step)  # nothing is deleted unless this one can be read
            self._prune()

    def _finish(self, step: int, response: ocp.AsyncResponse, replaces: bool) -> None:
        """Waits for Orbax, adds the checksums, and gives the checkpoint its name."""
        response.result()
        if jax.process_index() > 0:
            return
        path, saving = self.path(step), self._saving_path(step)
        checksums.write(saving)
        if path.exists():
            if replaces:
                path.rename(_vacant(path, _DELETING))
            else:
                _move_aside(path)
        saving.rename(path)

    def _saving_path(self, step: int) -> pathlib.Path:
        return self._folder / f"{step:08d}{_SAVING}"

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise CheckpointError(
                f"no checkpoint could be written to {self._folder}: {_reason(error)}; "
                "once it can, the same command continues from the one before"
            ) from error

    def progress(self, step: int) -> Progress:
        """Reads only the progress of a checkpoint.

        Raises:
            UnreadableError: if the checkpoint is incomplete or damaged.
        """
        return self._metadata(step)[1]

    def config(self, step: int) -> Mapping[str, Any] | None:
        """The config a checkpoint was trained with; None if it does not say so.

        Raises:
            UnreadableError: if the checkpoint is incomplete or damaged.
        """
        return self._metadata(step)[2]

    def restore(self, step: int, like: Any) -> tuple[Any, Progress]:
        """Reads one checkpoint.

        Args:
            step: of the checkpoint.
            like: abstract state (`jax.ShapeDtypeStruct` with shardings).

        Returns:
            The state, laid out as `like` says, and the progress.

        Raises:
            UnreadableError: if the checkpoint is incomplete or damaged.
            MismatchError: if it holds another tree or other shapes than `like`.
        """
        saved, progress, _ = self._verified(step)
        _check_match(self.path(step), saved, like)
        state = self._load_state(step, saved, like)
        self._check_without_checksums(step, state, getattr(state, "step", step))
        self._best[step] = progress.best_step
        return state, progress

    def restore_latest(self, like: Any) -> tuple[Any, Progress] | None:
        """Reads the newest readable checkpoint; None if there is no checkpoint at all.

        Warns about every newer one that is skipped.

        Raises:
            CheckpointError: if there are checkpoints but none can be read.
            MismatchError: as `restore`.
        """
        self._report_others()
        unreadable = []
        for step in reversed(self.steps()):
            try:
                restored = self.restore(step, like)
            except UnreadableError as error:
                unreadable.append(str(error))
                continue
            for problem in unreadable:
                logger.warning("%s; using %s instead", problem, self.path(step))
            self.supersede(step)
            return restored
        if unreadable:
            raise self._nothing_left(unreadable)
        return None

    def restore_variables(
        self, which: str, like: Any = None, averaged: bool = True
    ) -> tuple[dict[str, Any], Progress]:
        """Reads what a forecast needs, without the state of the optimiser.

        Args:
            which: "last", or "best" as known to the newest readable checkpoint.
            like: abstract variables {"params": ..., "batch_stats": ...} with shardings;
                None: those that the checkpoint holds, on the default device.
            averaged: read the averaged parameters if the checkpoint has them.

        Returns:
            The variables, and the progress of the checkpoint they come from.

        Raises:
            CheckpointError: if there is no readable checkpoint.
            MismatchError: if it holds another model.
        """
        unreadable, existed = [], set(self.steps())
        for step in self._candidates(which, unreadable):
            try:
                variables, progress = self._variables(step, like, averaged)
            except UnreadableError as error:
                if step in existed and not self.path(step).exists():
                    # A training that goes on has just deleted it.
                    return self.restore_variables(which, like, averaged)
                unreadable.append(str(error))
                continue
            for problem in unreadable:
                logger.warning("%s; using %s instead", problem, self.path(step))
            return variables, progress
        if unreadable:
            raise self._nothing_left(unreadable)
        raise CheckpointError(f"{self._folder} holds no checkpoint: train first")

    def _nothing_left(self, unreadable: list[str]) -> CheckpointError:
        return CheckpointError(
            "\n".join(unreadable) + "\nno other checkpoint is left: move "
            f"{self._folder} away to train from the beginning, or use another workdir"
        )

    def supersede(self, newest: int | None = None) -> None:
        """Lets checkpoints of an earlier run be superseded by those of this one.

        Args:
            newest: only those of earlier steps; None: all.
        """
        for step in self.steps():
            if newest is None or step < newest:
                with contextlib.suppress(UnreadableError):
                    self._best[step] = self.progress(step).best_step

    def _candidates(self, which: str, unreadable: list[str]) -> list[int]:
        """Steps to try, the preferred one first."""
        candidates = []
        for step in reversed(self.steps()):
            try:
                best = self.progress(step).best_step
            except UnreadableError as error:
                unreadable.append(str(error))
                continue
            candidates += [best, step] if which == "best" else [step]
        return list(dict.fromkeys(s for s in candidates if s is not None))

    def _variables(
        self, step: int, like: Any, averaged: bool
    ) -> tuple[dict[str, Any], Progress]:
        saved, progress, _ = self._verified(step)
        averaged = averaged and saved.get("ema_params") is not None
        source = "ema_params" if averaged else "params"
        if like is None:
            like = _abstract(saved)
        wanted = {source: like["params"], "batch_stats": like.get("batch_stats", {})}
        if averaged:
            wanted[source] = storage.as_averaged(like["params"])
        sharding = jax.tree.leaves(like)[0].sharding
        wanted["step"] = jax.ShapeDtypeStruct((), jnp.int32, sharding=sharding)
        _check_match(self.path(step), {k: saved.get(k) for k in wanted}, wanted)
        rest = jax.tree.map(lambda _: ocp.PLACEHOLDER, saved)
        loaded = self._load(step, rest | wanted)
        found = {name: loaded[name] for name in wanted}
        self._check_without_checksums(step, found, found["step"])
        params = storage.cast_like(loaded[source], like["params"])
        variables = state_lib.with_batch_stats(params, loaded["batch_stats"])
        return variables, progress

    def _verified(self, step: int) -> _Metadata:
        """As `_metadata`, after a look at every file of the checkpoint."""
        path = self.path(step)
        if (path / checksums.FILE).exists():
            with _reading(path):
                checksums.verify(path)
        return self._metadata(step)

    def _metadata(self, step: int) -> _Metadata:
        """Tree of array descriptions, progress, and config if there is one."""
        path, key = self.path(step), None
        with contextlib.suppress(OSError):
            status = (path / _METADATA).stat()
            key = path, status.st_mtime_ns, status.st_size
        if key in self._known:
            return self._known[key]
        found = self._read_metadata(step)
        if key is not None:
            self._known[key] = found
        return found

    def _read_metadata(self, step: int) -> _Metadata:
        path = self.path(step)
        with _reading(path), orbax_log.silenced():
            has_checksums = (path / checksums.FILE).exists()
            if has_checksums:
                checksums.verify(path, only=[_METADATA])
            metadata = ocp.checkpointables_metadata(str(path))
            saved = metadata.metadata.get(_STATE)
            if saved is None:
                raise ValueError("its arrays cannot be read")
            fields: Any = metadata.custom_metadata
            progress = from_metadata(fields, step)
            if fields.get(_HAS_CHECKSUMS) and not has_checksums:
                raise ValueError(f"{checksums.FILE} is missing")
            return saved, progress, fields.get(_CONFIG)

    def _check_without_checksums(self, step: int, state: Any, counted: Any) -> None:
        """What can be said about a checkpoint of an earlier version."""
        path = self.path(step)
        if (path / checksums.FILE).exists():
            return
        logger.warning("%s has no checksums: only its form can be checked", path)
        with _reading(path):
            if int(counted) != step:
                raise ValueError(f"its arrays are those of step {int(counted)}")
            for name, leaf in matching.named_leaves(state):
                if not bool(jnp.isfinite(leaf).all()):
                    raise ValueError(f"{name} is not finite")

    def _load_state(self, step: int, saved: Mapping[str, Any], like: Any) -> Any:
        """As `_load`; a field that an earlier version did not have stays empty."""
        if not isinstance(like, state_lib.TrainState) or "loss_scale" in saved:
            return self._load(step, like)
        fields = {f.name: getattr(like, f.name) for f in dataclasses.fields(like)}
        del fields["loss_scale"]
        return dataclasses.replace(like, **self._load(step, fields))

    def _load(self, step: int, like: Any) -> Any:
        path = self.path(step)
        with _reading(path), orbax_log.silenced():
            return ocp.load_checkpointables(str(path), {_STATE: like})[_STATE]

    def _report_others(self) -> None:
        """Names what lies among the checkpoints and is not used."""
        for path in self._unfinished():
            logger.warning("%s was not finished and is ignored", path)
        for path in self._folder.iterdir() if self._folder.is_dir() else []:
            if not re.match("[0-9]{8}", path.name) and path.is_dir():
                logger.warning("%s does not have a checkpoint's name: ignored", path)

    def _unfinished(self) -> list[pathlib.Path]:
        """What interrupted saves have left."""
        found = [*self._folder.glob(f"*{_UNFINISHED}")]
        return found + [*self._folder.glob(f"*{_SAVING}")]

    def _prune(self) -> None:
        """Deletes superseded checkpoints, of those this process wrote or read."""
        steps = [step for step in self.steps() if step in self._best]
        newest = steps[-_KEPT:]
        kept = {*newest, *(self._best[step] for step in newest)}
        try:
            for step in set(steps) - kept:
                del self._best[step]
                self.path(step).rename(_vacant(self.path(step), _DELETING))
            for path in [*self._folder.glob(f"*{_DELETING}*"), *self._unfinished()]:
                shutil.rmtree(path)
        except OSError as error:
            logger.warning("an old checkpoint could not be deleted: %s", error)


def _move_aside(path: pathlib.Path) -> None:
    """Renames a checkpoint that could not be read, to make room for a new one."""
    target = path.rename(_vacant(path, _UNREADABLE))
    logger.warning("%s was moved to %s", path, target)


def _vacant(path: pathlib.Path, suffix: str) -> pathlib.Path:
    """The path with a suffix, and a number if that is taken."""
    number, target = 1, path.with_name(path.name + suffix)
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}{suffix}-{number}")
    return target


def _reason(error: BaseException) -> str:
    """The first line of the error that caused the others."""
    while below := error.__cause__ or error.__context__:
        error = below
    of_system = re.search(r"([^:]+) \[os_error_code", str(error))
    if of_system:  # at the end of a long line about TensorStore
        return of_system[1].strip()
    return (str(error).splitlines() or [""])[0][:160] or type(error).__name__


@contextlib.contextmanager
def _reading(path: pathlib.Path) -> Iterator[None]:
    """Turns whatever goes wrong with a file into an `UnreadableError`."""
    try:
        yield
    except PermissionError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    except (MemoryError, jax.errors.JaxRuntimeError):
        raise  # a fault of the machine, not of the file
    except Exception as error:
        raise UnreadableError(
            f"checkpoint {path} is incomplete or damaged ({_reason(error)})"
        ) from error


def _abstract(saved: Mapping[str, Any]) -> dict[str, Any]:
    """The variables that a checkpoint holds, to be read onto the default device."""
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return {
        name: jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here),
            saved.get(name) or {},
        )
        for name in ("params", "batch_stats")
    }


def _check_match(path: pathlib.Path, saved: Any, like: Any) -> None:
    """Rejects a checkpoint whose arrays differ in name, shape or type from `like`."""
    message = matching.mismatch(saved, like)
    if message:
        raise MismatchError(f"checkpoint {path} {message}")
    if matching.is_narrower(saved, like):
        logger.info("%s has moments or averages in bfloat16, read as float32", path)
