"""The record of a training: metrics.jsonl, speed.jsonl, TensorBoard and trackers.

metrics.jsonl holds one JSON object per line, {"step": 100, "train/loss": 0.5, ...},
and nothing that depends on the clock: training that was interrupted and continued
writes the same bytes as training that was not. What does depend on it, such as steps
per second, is in speed.jsonl, in the same form. Everything is written by the thread
that calls, so that a full disk is an error there.
"""

import contextlib
import json
import logging
import math
import os
import pathlib
import time
from collections.abc import Mapping
from typing import Any, TextIO

import numpy as np
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2
from tensorboardX.summary import scalar

from earthformer_jax.training.monitoring.trackers import Trackers

logger = logging.getLogger(__name__)

METRICS, SPEED = "metrics.jsonl", "speed.jsonl"

# Classes that protobuf makes at run time.
_Event: Any = vars(event_pb2)["Event"]
_SessionLog: Any = vars(event_pb2)["SessionLog"]


class Records:
    """Writes scores by step; a context that closes its files.

    Only the first process of a multi-process job writes.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        step: int,
        writes: bool = True,
        trackers: Trackers | None = None,
    ):
        """Opens the record of a training that continues after `step`.

        Lines about later steps are dropped, because those steps are taken again. Before
        a training that begins anew (step 0), an earlier record is kept under another
        name. `trackers` are told the numbers as well.
        """
        self._files: tuple[Mapping[str, TextIO], EventsWriter] | None = None
        self._trackers = trackers
        if writes:
            if step == 0:
                _set_aside(workdir / METRICS)
            for name in (METRICS, SPEED):
                _keep_lines(workdir / name, step)
            # Two records that begin in the same second must not share a file.
            board = EventsWriter(
                str(workdir.absolute() / "events"), f".{os.getpid()}.{step}"
            )
            if step:
                session = _SessionLog(status=_SessionLog.START)
                board.write_event(_Event(step=step + 1, session_log=session))
            lines = {name: (workdir / name).open("a") for name in (METRICS, SPEED)}
            self._files = lines, board

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, kind, *exception) -> None:
        if self._trackers is not None:
            self._trackers.close(failed=kind is not None)
        if self._files is None:
            return
        lines, board = self._files
        # After an error, another one about the same disk would hide the first.
        with (
            contextlib.suppress(*[OSError] if kind else []),
            contextlib.ExitStack() as all,
        ):
            for file in (*lines.values(), board):
                all.callback(file.close)
            self.flush()

    def write(self, step: int, prefix: str, scores: Mapping[str, Any]) -> None:
        """Adds one line.

        Args:
            step: optimiser steps taken.
            prefix: "train" or "validation"; "speed" for what depends on the clock.
            scores: numbers, or lists of numbers (one per lead time).
        """
        if self._files is None:
            return
        lines, board = self._files
        named = {f"{prefix}/{name}": _plain(value) for name, value in scores.items()}
        file = lines[SPEED if prefix == "speed" else METRICS]
        file.write(json.dumps({"step": step} | named) + "\n")
        numbers = {k: v for k, v in named.items() if isinstance(v, int | float)}
        if self._trackers is not None:
            self._trackers.log(step, numbers)
        for name, value in numbers.items():
            summary = scalar(name, value)
            board.write_event(_Event(wall_time=time.time(), step=step, summary=summary))

    def flush(self) -> None:
        """Puts everything on disk, before a checkpoint that relies on it."""
        if self._files is not None:
            lines, board = self._files
            for file in lines.values():
                file.flush()
                os.fsync(file.fileno())
            board.flush()


def _plain(value: Any) -> Any:
    """JSON numbers; values that are not finite become null."""
    if np.ndim(value):
        return [_plain(v) for v in value]
    value = float(value)
    return value if math.isfinite(value) else None


def _set_aside(path: pathlib.Path) -> None:
    """Renames a record that holds steps although there is no checkpoint."""
    if not path.exists() or not path.stat().st_size:
        return
    number = 1
    while (kept := path.with_name(f"metrics-old-{number}.jsonl")).exists():
        number += 1
    path.rename(kept)
    logger.warning(
        "there is no checkpoint, so training begins anew; the earlier %s was kept as "
        "%s",
        path,
        kept.name,
    )


def _keep_lines(path: pathlib.Path, step: int) -> None:
    """Drops the lines about steps after `step`, and a last line cut short."""
    if not path.exists():
        if step and path.name == METRICS:
            logger.warning("%s is gone: it begins again after step %d", path, step)
        return
    lines, kept, damaged = path.read_text(errors="replace").splitlines(True), [], 0
    for line in lines:
        if not line.endswith("\n"):
            continue
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            damaged += 1
    if damaged:
        logger.warning("%d damaged lines of %s were dropped", damaged, path)
    if kept == lines:
        return
    shorter = path.with_suffix(".tmp")
    with shorter.open("w") as file:
        file.writelines(kept)
        file.flush()
        os.fsync(file.fileno())
    shorter.replace(path)
