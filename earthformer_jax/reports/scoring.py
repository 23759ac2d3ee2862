"""What all reports share: all forecasts scored in one pass, and JSON files."""

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np

from earthformer_jax.data.pipeline import evaluation_batches
from earthformer_jax.data.source import Batch, Forecast

# The order of forecasts in files and tables; others follow.
ORDER = ("model", "persistence", "damped_persistence", "lim", "ceiling")

Watch = Callable[[Batch, Mapping[str, np.ndarray]], None]


def evaluate(
    dataset,
    forecasts: Mapping[str, Forecast],
    batch_size: int,
    watch: Watch | None = None,
) -> dict[str, dict]:
    """Runs all forecasts over the test examples once.

    Args:
        dataset: with the examples `test` and a `metric`.
        forecasts: by name; each maps a batch to `[b, k, h, w, c]` in model units.
        batch_size: examples per call of a forecast.
        watch: is shown every batch and its forecasts by name, as arrays of this
            machine.

    Returns:
        scores by name, in the order of reports.
    """
    metric = dataset.metric
    update = jax.jit(metric.update)
    names = [n for n in ORDER if n in forecasts]
    names += [n for n in forecasts if n not in ORDER]
    states = {name: metric.init() for name in names}
    for batch in evaluation_batches(dataset.test, batch_size):
        fields = {name: np.asarray(forecasts[name](batch)) for name in names}
        for name in names:
            states[name] = update(states[name], fields[name], batch)
        if watch is not None:
            watch(batch, fields)
    return {name: metric.compute(state) for name, state in states.items()}


def write_json(path: Path, content: Mapping) -> None:
    """Writes JSON in one step; what is not finite becomes null."""
    unfinished = path.with_name(f".{path.name}.part")
    text = json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False)
    unfinished.write_text(text + "\n", encoding="utf-8")
    os.replace(unfinished, path)


def _finite(value):
    if isinstance(value, Mapping):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
