"""Test forecasts beside the truth in one NetCDF file: what the scores were made of."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from earthformer_jax.data.dataset import Channel, Data
from earthformer_jax.data.forecasting.beginnings import Beginnings, Variable
from earthformer_jax.data.pipeline import evaluation_batches
from earthformer_jax.data.readers import times
from earthformer_jax.data.readers.times import Times
from earthformer_jax.data.source import Selected, Source
from earthformer_jax.data.task import EmbedSeries, Forecast, RestoreFrames, Task
from earthformer_jax.forecast import writing
from earthformer_jax.forecast.chunks import Chunk
from earthformer_jax.forecast.outline import Outline
from earthformer_jax.reports.scoring import is_dated

TRUTH = "truth"
WITHOUT_FORECASTS = (EmbedSeries, RestoreFrames)


def check(task: Task, number: int) -> None:
    """Refuses to write forecasts of a task that has none.

    Args:
        task: what is asked.
        number: of test examples whose forecasts are wanted.

    Raises:
        ValueError: if forecasts are wanted of a task that restores its inputs.
    """
    if number and isinstance(task, WITHOUT_FORECASTS):
        raise ValueError(
            f"write_forecasts={number}: the task {type(task).__name__} restores its "
            "inputs and has no forecasts; expected 0"
        )


def write(
    path: Path,
    data: Data,
    forecasts: Mapping[str, Forecast],
    number: int,
    batch_size: int,
    attributes: Mapping[str, str],
) -> None:
    """Writes forecasts and the truth, completely or not at all.

    Every channel of every forecast is a variable, "VIL_model", beside "VIL_truth", in
    the units that figures show; NaN where nothing was observed. If the examples have
    dates, they are the times of the file; otherwise it counts frames.

    Args:
        path: of the NetCDF file.
        data: whose first test examples are forecast.
        forecasts: by name; each maps a batch to `[b, k, h, w, c]` in model units.
        number: of examples, at most; there may be fewer.
        batch_size: examples per call of a forecast.
        attributes: global attributes of the file.

    Raises:
        OSError: if it cannot be written.
    """
    examples = Selected(data.test, np.arange(min(number, len(data.test))))
    channels = data.display.channels[: data.test[0]["targets"].shape[-1]]
    beginnings = _beginnings(data, examples, channels, [TRUTH, *forecasts])
    steps = len(data.test[0]["targets"])
    outline = Outline(beginnings, steps, several=True, attributes=dict(attributes))
    writing.write(path, outline, _chunks(examples, forecasts, batch_size))


def _chunks(
    examples: Source, forecasts: Mapping[str, Forecast], batch_size: int
) -> Iterator[Chunk]:
    """Truth and forecasts side by side in the channels."""
    first = 0
    for batch in evaluation_batches(examples, batch_size):
        real = np.asarray(batch.get("valid", np.ones(len(batch["targets"]), bool)))
        observed = batch.get("observed", True)
        truth = np.where(observed, batch["targets"], np.float32(np.nan))
        made = [np.asarray(forecast(batch)) for forecast in forecasts.values()]
        values = np.concatenate([truth, *made], axis=-1)[real].astype(np.float32)
        # How much of their inputs was filled is not known of examples.
        filled = np.full(len(values), np.nan, np.float32)
        yield Chunk(first, 0, values, filled)
        first += len(values)


def _beginnings(
    data: Data, examples: Source, channels: tuple[Channel, ...], names: list[str]
) -> Beginnings:
    """Times, places and variables of the examples."""
    scale = np.array([x.scale for x in channels] * len(names), np.float32)
    offset = np.array([x.offset for x in channels] * len(names), np.float32)
    variables = tuple(
        Variable(
            f"{channel.name}_{name}",
            channel.units,
            long_name=f"{channel.name}, "
            + ("as observed" if name == TRUTH else f"forecast by {name}"),
        )
        for name in names
        for channel in channels
    )
    in_len = len(examples[0]["inputs"])
    reference, following = _moments(data, examples, in_len)
    return Beginnings(
        label=data.description,
        windows=examples,
        last=np.full(len(examples), in_len - 1, np.int64),
        reference=reference,
        following=following,
        variables=variables,
        decode=lambda x, _: x * scale + offset,
        latitude=data.coordinates.get("latitude"),
        longitude=data.coordinates.get("longitude"),
        south_first=data.display.south_first,
        coordinates={"example": np.arange(len(examples))},
    )


def _moments(data: Data, examples: Source, in_len: int):
    """Times of the last inputs, and of what follows; None without dates."""
    if not is_dated(data):
        return None, None
    every = np.stack([examples[i]["time"] for i in range(len(examples))])

    def following(i: int, count: int) -> Times:
        return times.of_minutes(every[i, in_len : in_len + count])

    return times.of_minutes(every[:, in_len - 1]), following
