"""Tasks: what a model has to do, and how the results are scored.

The type of a task is its kind: `reports.score` selects the report by it.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from earthformer_jax.data.source import Batch, Source
from earthformer_jax.metrics.contract import Metric
from earthformer_jax.metrics.verification import Verification

Forecast = Callable[[Batch], np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """The attributes that all tasks have in common.

    Attributes:
        metric: streaming score of forecasts, used for validation and reports.
        references: reference forecasts by name; each maps a batch to
            `[b, k, h, w, c]` in the units the model sees.
        verification: the sums that an evaluation keeps of every forecast, and the
            scores that are made of them.
        mse_units: the units "mse" is reported in.
        gaussians: references whose normal distribution is known, by name; each has,
            for "field" and any index that is scored ("nino34"), a function from a batch
            to mean and standard deviation `[2, b, k, h, w, c]` in the units the model
            sees.
        protocol: `protocol`, the name of the one that the data follow, and
            `protocol_sha256`, a checksum of its definition; {} if they follow none.
    """

    metric: Metric
    references: Mapping[str, Forecast] = dataclasses.field(default_factory=dict)
    verification: Verification = dataclasses.field(default_factory=Verification)
    mse_units: str = "(model units)^2"
    protocol: Mapping[str, str] = dataclasses.field(default_factory=dict)
    gaussians: Mapping[str, Mapping[str, Forecast]] = dataclasses.field(
        default_factory=dict
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForecastFrames(Task):
    """Forecast the next frames."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForecastNino(Task):
    """Forecast sea surface temperature anomalies and the Niño3.4 index.

    Attributes:
        nino_weights: weights `[h, w]` of the monthly index, summing to 1.
        ocean: bool `[h, w]`, False on land.
        index_months: months that the scored index is averaged over, 1 or 3.
    """

    nino_weights: np.ndarray
    ocean: np.ndarray
    index_months: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class RestoreFrames(Task):
    """Restore frames from maps of codes.

    Needs a model of codes, see `models.contract.Tokenizer`; the batches that its metric
    is given have "codes" as well, integers `[b, t, h, w]`.
    """


class SeriesSource(Source, Protocol):
    """Every frame of a series, in windows that may overlap.

    An example also has `frame` int `[t]`, the number of each frame in the series,
    `split` int `[t]`, the number of its split (-1: none), and `central` bool `[t]`,
    True for each frame of the series in exactly one window.

    Attributes:
        frame_count: number of frames of the series that are in a window.
    """

    @property
    def frame_count(self) -> int: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbedSeries(Task):
    """Restore the inputs from embeddings, and embed every frame of a series.

    Needs a model with embeddings, see `models.contract.Embedder`.

    Attributes:
        series: the series to embed.
    """

    series: SeriesSource
