"""The record of a training: metrics.jsonl and TensorBoard.

metrics.jsonl holds one JSON object per line, {"step": 100, "train/loss": 0.5, ...},
and nothing that depends on the clock: training that was interrupted and continued
writes the same bytes as training that was not.
"""

import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any, TextIO

import numpy as np
import tensorboardX


class Records:
    """Writes scores by step; a context that closes its files.

    Only the first process of a multi-process job writes.
    """

    def __init__(self, workdir: pathlib.Path, step: int, writes: bool = True):
        """Opens the record of a training that continues after `step`.

        Lines about later steps are dropped, because those steps are taken again.
        """
        self._files: tuple[TextIO, tensorboardX.SummaryWriter] | None = None
        if writes:
            path = workdir / "metrics.jsonl"
            _keep_lines(path, step)
            board = tensorboardX.SummaryWriter(
                str(workdir), purge_step=step + 1 if step else None
            )
            self._files = path.open("a"), board

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, *exception) -> None:
        if self._files is not None:
            self.flush()
            for file in self._files:
                file.close()

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
                board.add_scalar(name, value, step)

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


def _keep_lines(path: pathlib.Path, step: int) -> None:
    """Drops the lines about steps after `step`, and a last line cut short."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines(keepends=True):
        try:
            if line.endswith("\n") and json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    shorter = path.with_suffix(".tmp")
    shorter.write_text("".join(kept))
    shorter.replace(path)
