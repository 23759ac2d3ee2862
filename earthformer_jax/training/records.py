"""The record of a training: metrics.jsonl and TensorBoard.

metrics.jsonl holds one JSON object per line, {"step": 100, "train/loss": 0.5, ...},
and nothing that depends on the clock: training that was interrupted and continued
writes the same bytes as training that was not. Everything is written by the thread that
calls, so that a full disk is an error there.
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

logger = logging.getLogger(__name__)

# Classes that protobuf makes at run time.
_Event: Any = vars(event_pb2)["Event"]
_SessionLog: Any = vars(event_pb2)["SessionLog"]


class Records:
    """Writes scores by step; a context that closes its files.

    Only the first process of a multi-process job writes.
    """

    def __init__(self, workdir: pathlib.Path, step: int, writes: bool = True):
        """Opens the record of a training that continues after `step`.

        Lines about later steps are dropped, because those steps are taken again. Before
        a training that begins anew (step 0), an earlier record is kept under another
        name.
        """
        self._files: tuple[TextIO, EventsWriter] | None = None
        if writes:
            path = workdir / "metrics.jsonl"
            if step == 0:
                _set_aside(path)
            _keep_lines(path, step)
            # Two records that begin in the same second must not share a file.
            board = EventsWriter(
                str(workdir.absolute() / "events"), f".{os.getpid()}.{step}"
            )
            if step:
                session = _SessionLog(status=_SessionLog.START)
                board.write_event(_Event(step=step + 1, session_log=session))
            self._files = path.open("a"), board

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, kind, *exception) -> None:
        if self._files is None:
            return
        # After an error, another one about the same disk would hide the first.
        with (
            contextlib.suppress(*[OSError] if kind else []),
            contextlib.ExitStack() as all,
        ):
            for file in self._files:
                all.callback(file.close)
            self.flush()

    def write(self, step: int, prefix: str, scores: Mapping[str, Any]) -> None:
        """Adds one line.

        Args:
            step: optimiser steps taken.
            prefix: "train" or "validation".
            scores: numbers, or lists of numbers (one per lead time).
        """
        if self._files is None:
            return
        lines, board = self._files
        named = {f"{prefix}/{name}": _plain(value) for name, value in scores.items()}
        lines.write(json.dumps({"step": step} | named) + "\n")
        for name, value in named.items():
            if isinstance(value, int | float):
                summary = scalar(name, value)
                board.write_event(
                    _Event(wall_time=time.time(), step=step, summary=summary)
                )

    def flush(self) -> None:
        """Puts everything on disk, before a checkpoint that relies on it."""
        if self._files is not None:
            lines, board = self._files
            lines.flush()
            os.fsync(lines.fileno())
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
        if step:
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
