"""What training remembers in addition to its state, as it lies in a checkpoint."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

_ADDED = {"validation_due": False}  # absent in checkpoints of earlier versions


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
        validation_due: whether the validation after this step was put off, because
            training was asked to stop.
    """

    step: int = 0
    batches: Any = None
    best_step: int | None = None
    best_score: float | None = None
    validations_since_best: int = 0
    unlogged: list[dict[str, float]] = dataclasses.field(default_factory=list)
    validation_due: bool = False


def from_metadata(fields: Any, step: int) -> Progress:
    """The progress in the metadata of a checkpoint.

    Args:
        fields: as they were read, the fields of `Progress`.
        step: of the checkpoint, from the name of its folder.

    Raises:
        ValueError: if a field is missing or has an impossible value, or if the progress
            is of another step.
    """
    if not isinstance(fields, Mapping):
        raise ValueError("it has no progress")
    fields = _ADDED | dict(fields)
    for field in dataclasses.fields(Progress):
        if field.name not in fields:
            raise ValueError(f"its progress has no {field.name}")
        value = fields[field.name]
        if not _ACCEPTED[field.name](value):
            raise ValueError(f"its progress has {field.name}={value!r}")
    progress = Progress(
        **{f.name: fields[f.name] for f in dataclasses.fields(Progress)}
    )
    if progress.step != step:
        raise ValueError(f"its progress is that of step {progress.step}")
    return progress


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


_ACCEPTED: dict[str, Callable[[Any], bool]] = {
    "step": _is_count,
    "batches": lambda value: value is None or isinstance(value, Mapping),
    "best_step": lambda value: value is None or _is_count(value),
    "best_score": lambda value: (
        value is None or (isinstance(value, int | float) and math.isfinite(value))
    ),
    "validations_since_best": _is_count,
    "unlogged": lambda value: (
        isinstance(value, list) and all(isinstance(row, Mapping) for row in value)
    ),
    "validation_due": lambda value: isinstance(value, bool),
}
