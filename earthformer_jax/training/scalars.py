"""Scalars of the steps, read from the devices so late that no device has to wait."""

import math
from typing import Any

import jax
import numpy as np

from earthformer_jax.training.monitoring.speed import Speed
from earthformer_jax.training.progress import ProgressBar
from earthformer_jax.training.records import Records

Row = dict[str, Any]


class NonFiniteError(RuntimeError):
    """The loss, its gradient or the state of training is no longer a number."""


class ScalarLog:
    """Averages scalars over intervals of steps and records them one interval late.

    While interval n + 1 is dispatched, the devices work on interval n: reading its
    scalars at the end of n + 1 does not interrupt them.
    """

    def __init__(
        self,
        records: Records,
        bar: ProgressBar,
        unlogged: list[Row],
        speed: Speed | None = None,
    ):
        """Continues an interval that began before a restart, with its rows so far.

        `speed` is recorded at the end of each interval.
        """
        self._speed = speed
        self._records = records
        self._bar = bar
        self._current = list(unlogged)
        self._complete: list[Row] = []

    def add(self, step: int, scalars: dict[str, jax.Array]) -> None:
        """Notes the scalars of a step; they may not be computed yet."""
        self._current.append({"step": step} | scalars)

    def end_interval(self) -> None:
        """Records the previous interval; the next call records the current one."""
        self._record_complete()
        self._complete, self._current = self._current, []

    def catch_up(self) -> list[Row]:
        """Waits for the last step and records every complete interval.

        Returns:
            The rows of the interval that is not complete, as plain numbers.

        Raises:
            NonFiniteError: if a loss, a gradient norm or the state after a step is not
                finite.
        """
        self._record_complete()
        self._current = _read(self._current)
        return self._current

    def _record_complete(self) -> None:
        rows, self._complete = _read(self._complete), []
        if not rows:
            return
        scores = _summary(rows)
        self._records.write(rows[-1]["step"], "train", scores)
        if self._speed is not None and (speed := self._speed.read(rows[-1]["step"])):
            self._records.write(rows[-1]["step"], "speed", speed)
            scores["data_wait"] = speed["data_wait"]
        self._bar.update(rows[-1]["step"], scores)


def _summary(rows: list[Row]) -> Row:
    """Means of an interval; those that a float16 overflow left out count nothing."""
    taken = [row for row in rows if "loss" in row]
    scores = {
        name: float(np.mean([row[name] for row in taken]))
        for name in ("loss", "grad_norm")
        if taken
    }
    scores["lr"] = rows[-1]["lr"]
    if "loss_scale" in rows[-1]:
        scores["loss_scale"] = rows[-1]["loss_scale"]
        scores["skipped"] = float(sum(row["skipped"] for row in rows))
    return scores


def _read(rows: list[Row]) -> list[Row]:
    """Rows as Python numbers; waits until they are computed.

    Steps that a scaled loss left out have neither loss nor gradient norm.
    """
    rows = jax.device_get(rows)
    finite = [bool(row.pop("is_finite", True)) for row in rows]
    rows = [
        {name: int(v) if name == "step" else float(v) for name, v in row.items()}
        for row in rows
    ]
    for row, is_finite in zip(rows, finite, strict=True):
        if is_finite and row.get("skipped"):
            for name in ("loss", "grad_norm"):
                row.pop(name, None)
            continue
        if math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"]) and is_finite:
            continue
        what = f"the loss is {row['loss']:g} and its gradient norm {row['grad_norm']:g}"
        if not is_finite:
            what += ", and the parameters or the optimiser's state are not finite,"
        if row.get("skipped"):
            what += f" with the loss scaled by {row['loss_scale']:g} only,"
        raise NonFiniteError(
            f"{what} at step {row['step']} (learning rate {row['lr']:g}); it was not "
            "saved. Look for missing values in the data, or try a smaller "
            "config.optim.lr, config.optim.weight_decay or config.optim.clip_norm with "
            "another --workdir, since this one belongs to its config"
        )
    return rows
