"""Checkpoints: written in the background, checked when read, never lost.

A checkpoint is a folder `checkpoints/<step>` that Orbax writes under another name and
renames when it is complete, so that an interrupted save leaves no partial checkpoint.
It holds the state and, in its metadata, a `Progress`: the position in the data and the
best validation so far. A folder that cannot be read is never deleted.
"""

import contextlib
import dataclasses
import functools
import logging
import pathlib
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint.experimental.v1 as ocp

from earthformer_jax.training import state as state_lib

logger = logging.getLogger(__name__)

_STATE = "state"
_KEPT = 2  # newest checkpoints to keep, in addition to their best ones
_SHOWN = 5  # differing parameters named in a message
_DELETING = ".deleting"
_UNREADABLE = ".unreadable"
_UNFINISHED = ".orbax-checkpoint-tmp"  # Orbax's name of a save in progress


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be used; the message says what to do."""


class UnreadableError(CheckpointError):
    """A checkpoint that is incomplete or damaged."""


class MismatchError(CheckpointError):
    """A checkpoint of another model or optimiser."""


@dataclasses.dataclass
class Progress:
    """What training remembers in addition to its state.

    Attributes:
        step: optimiser steps taken.
        batches: state of the batch iterator after the last batch that was used.
        best_step: step of the best validation so far.
        best_score: its monitored score.
        validations_since_best: validations without improvement.
        unlogged: scalars of the steps since the last line of the log, oldest first.
    """

    step: int = 0
    batches: Any = None
    best_step: int | None = None
    best_score: float | None = None
    validations_since_best: int = 0
    unlogged: list[dict[str, float]] = dataclasses.field(default_factory=list)


class Checkpoints:
    """The checkpoints of a workdir; a context that exits when the last one is on disk.

    The two newest ones are kept, and the best one that each of them knows. Every
    process of a multi-process job makes the same calls.
    """

    def __init__(self, folder: pathlib.Path):
        self._folder = pathlib.Path(folder).absolute()
        self._best: dict[int, int | None] = {}  # readable step -> its best step
        self._saving: ocp.AsyncResponse | None = None
        for name in ("absl", "asyncio"):
            logging.getLogger(name).addFilter(_is_worth_reading)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception) -> None:
        self.wait()

    def path(self, step: int) -> pathlib.Path:
        """Where the checkpoint of a step is or would be."""
        return self._folder / f"{step:08d}"

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, ascending."""
        if not self._folder.is_dir():
            return []
        return sorted(int(p.name) for p in self._folder.iterdir() if p.name.isdigit())

    def save(self, state: Any, progress: Progress) -> None:
        """Starts to save; returns when the state may be overwritten.

        Args:
            state: pytree of arrays.
            progress: its `step` names the checkpoint.
        """
        self.wait()
        path = self.path(progress.step)
        if jax.process_index() == 0 and path.exists():
            _move_aside(path)
        self._saving = ocp.save_checkpointables_async(
            str(path), {_STATE: state}, custom_metadata=dataclasses.asdict(progress)
        )
        self._best[progress.step] = progress.best_step

    def wait(self) -> None:
        """Waits until the running save is on disk, then deletes superseded ones."""
        if self._saving is None:
            return
        saving, self._saving = self._saving, None
        try:
            saving.result()
        except Exception as error:
            raise CheckpointError(
                f"no checkpoint could be written to {self._folder}: {error}"
            ) from error
        if jax.process_index() == 0:
            self._prune()

    def progress(self, step: int) -> Progress:
        """Reads only the progress of a checkpoint.

        Raises:
            UnreadableError: if the checkpoint is incomplete or damaged.
        """
        return self._metadata(step)[1]

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
        saved, progress = self._metadata(step)
        _check_match(self.path(step), saved, like)
        state = self._load(step, like)
        self._best[step] = progress.best_step
        return state, progress

    def restore_latest(self, like: Any) -> tuple[Any, Progress] | None:
        """Reads the newest readable checkpoint; None if there is no checkpoint at all.

        Warns about every newer one that is skipped.

        Raises:
            CheckpointError: if there are checkpoints but none can be read.
            MismatchError: as `restore`.
        """
        for path in self._folder.glob(f"*{_UNFINISHED}"):
            logger.warning("%s was not finished and is ignored", path)
        unreadable = []
        for step in reversed(self.steps()):
            try:
                restored = self.restore(step, like)
            except UnreadableError as error:
                unreadable.append(str(error))
                continue
            for problem in unreadable:
                logger.warning("%s; using %s instead", problem, self.path(step))
            self._remember_older(step)
            return restored
        if unreadable:
            raise self._nothing_left(unreadable)
        return None

    def restore_variables(
        self, which: str, like: Any
    ) -> tuple[dict[str, Any], Progress]:
        """Reads what a forecast needs, without the state of the optimiser.

        Args:
            which: "last", or "best" as known to the newest readable checkpoint.
            like: abstract variables {"params": ..., "batch_stats": ...} with shardings.

        Returns:
            The variables, with averaged parameters if the checkpoint has them, and the
            progress of the checkpoint they come from.

        Raises:
            CheckpointError: if there is no readable checkpoint.
            MismatchError: if it holds another model.
        """
        unreadable = []
        for step in self._candidates(which, unreadable):
            try:
                variables, progress = self._variables(step, like)
            except UnreadableError as error:
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

    def _remember_older(self, newest: int) -> None:
        """Lets checkpoints of an earlier run be superseded by those of this one."""
        for step in self.steps():
            if step < newest:
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

    def _variables(self, step: int, like: Any) -> tuple[dict[str, Any], Progress]:
        saved, progress = self._metadata(step)
        source = "params" if saved.get("ema_params") is None else "ema_params"
        wanted = {source: like["params"], "batch_stats": like.get("batch_stats", {})}
        _check_match(self.path(step), {k: saved[k] for k in wanted}, wanted)
        rest = jax.tree.map(lambda _: ocp.PLACEHOLDER, saved)
        loaded = self._load(step, rest | wanted)
        variables = state_lib.with_batch_stats(loaded[source], loaded["batch_stats"])
        return variables, progress

    def _metadata(self, step: int) -> tuple[dict[str, Any], Progress]:
        """Tree of array descriptions, and the progress."""
        path = self.path(step)
        with _reading(path), _quiet():
            metadata = ocp.checkpointables_metadata(str(path))
            saved = metadata.metadata.get(_STATE)
            if saved is None:
                raise ValueError("its arrays cannot be read")
            progress: Any = metadata.custom_metadata
            return saved, Progress(**progress)

    def _load(self, step: int, like: Any) -> Any:
        path = self.path(step)
        with _reading(path), _quiet():
            return ocp.load_checkpointables(str(path), {_STATE: like})[_STATE]

    def _prune(self) -> None:
        """Deletes superseded checkpoints, of those this process wrote or read."""
        steps = [step for step in self.steps() if step in self._best]
        newest = steps[-_KEPT:]
        kept = {*newest, *(self._best[step] for step in newest)}
        for step in set(steps) - kept:
            del self._best[step]
            self.path(step).rename(f"{self.path(step)}{_DELETING}")
        for path in self._folder.glob(f"*{_DELETING}"):
            shutil.rmtree(path)


def _move_aside(path: pathlib.Path) -> None:
    """Renames a checkpoint that could not be read, to make room for a new one."""
    target = path.with_name(path.name + _UNREADABLE)
    number = 1
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}{_UNREADABLE}-{number}")
    path.rename(target)
    logger.warning("%s was moved to %s", path, target)


@contextlib.contextmanager
def _reading(path: pathlib.Path) -> Iterator[None]:
    """Turns whatever goes wrong with a file into an `UnreadableError`."""
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError):
        raise  # a fault of the machine, not of the file
    except Exception as error:
        cause: BaseException = error
        while below := cause.__cause__ or cause.__context__:
            cause = below
        reason = (str(cause).splitlines() or [""])[0][:160] or type(cause).__name__
        raise UnreadableError(
            f"checkpoint {path} is incomplete or damaged ({reason})"
        ) from error


def _is_worth_reading(record: logging.LogRecord) -> bool:
    """Drops the dozens of lines that Orbax logs about saves and damaged files."""
    if record.name == "asyncio":
        return "tensorstore_spec" not in record.getMessage()
    return record.levelno >= logging.WARNING or "orbax" not in record.pathname


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences what Orbax logs about files; errors become one message of ours."""
    absl_logger = logging.getLogger("absl")
    level, hook = absl_logger.level, sys.unraisablehook
    absl_logger.setLevel(logging.ERROR)
    sys.unraisablehook = functools.partial(_ignore_closed_loop, hook)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
        # Not after an error: threads of a failed read keep complaining for a while.
        sys.unraisablehook = hook
    finally:
        absl_logger.setLevel(level)


def _ignore_closed_loop(hook: Callable[[Any], None], unraisable: Any) -> None:
    """Drops the complaint of a reading thread whose event loop has ended."""
    if str(unraisable.exc_value) != "Event loop is closed":
        hook(unraisable)


def _check_match(path: pathlib.Path, saved: Any, like: Any) -> None:
    """Rejects a checkpoint whose arrays differ in name, shape or type from `like`."""
    there, here = _describe(saved), _describe(like)
    names = [
        name
        for name in dict.fromkeys([*here, *there])
        if here.get(name) != there.get(name)
    ]
    if not names:
        return
    of_model = [name for name in names if not name.startswith("opt_state/")]
    names = of_model or names
    lines = [
        f"  {name}: {there.get(name, 'absent')} there, {here.get(name, 'absent')} here"
        for name in names[:_SHOWN]
    ]
    if len(names) > _SHOWN:
        lines.append(f"  and {len(names) - _SHOWN} more")
    raise MismatchError(
        f"checkpoint {path} belongs to another "
        f"{'model' if of_model else 'optimiser'}; {len(names)} arrays differ:\n"
        + "\n".join(lines)
        + "\nuse the config it was trained with, or another workdir"
    )


def _describe(tree: Any) -> Mapping[str, str]:
    """{"params/z_proj/kernel": "float32 (64, 128)", ...}"""
    described = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.eval_shape(jax.random.key_data, leaf)
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        described[name] = f"{leaf.dtype} {tuple(leaf.shape)}"
    return described
