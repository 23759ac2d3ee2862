"""Data sets whose frames are restored in place of being forecast.

A VQ-VAE is trained on any data set: the inputs and the targets of an example, one after
the other, are the sequence that it encodes and restores. The calendar and other
channels that are inputs only are left out.
"""

import dataclasses
import functools

import numpy as np

from earthformer_jax.data.dataset import Data, Dataset
from earthformer_jax.data.source import Example, Source
from earthformer_jax.data.state import DataState
from earthformer_jax.data.task import EmbedSeries, ForecastFrames, RestoreFrames
from earthformer_jax.metrics.codes import RestorationScores
from earthformer_jax.metrics.pixel import PixelError

# Arrays of an example about inputs and targets; all others are kept as they are.
_OBSERVED = ("inputs_observed", "observed")
MODELS = ("vq_vae",)


def to_restore(dataset: Dataset, codebook_size: int) -> Dataset:
    """The same data with every frame as input and as target.

    Args:
        dataset: whose frames are forecast; where the targets are the inputs already
            (`out_len=0`), they are the frames.
        codebook_size: number of codes, whose use is scored.
    """
    data, task = dataset.data, dataset.task
    in_len = 0 if isinstance(task, EmbedSeries) else len(data.example()["inputs"])
    sources = {
        name: WholeSequences(source, in_len)
        for name in ("train", "validation", "test", "simulated")
        if (source := getattr(data, name)) is not None
    }
    weights = np.asarray(data.loss_weights)
    if weights.ndim == 4:  # of the leads; a frame is a target at each of them
        weights = weights.mean(axis=0, keepdims=True)
    whole = dataclasses.replace(data, **sources, loss_weights=weights, bases={})
    if data.state is not None:
        state = functools.cache(functools.partial(_state, data, whole))
        whole = dataclasses.replace(whole, state=state)
    is_frames = isinstance(task, ForecastFrames | EmbedSeries)
    metric = task.metric if is_frames else PixelError(weights)
    scores = RestorationScores(metric, codebook_size)
    return Dataset(whole, RestoreFrames(metric=scores, mse_units=task.mse_units))


@dataclasses.dataclass(frozen=True, eq=False)
class WholeSequences:
    """Examples whose inputs and targets are all frames of another source's.

    Attributes:
        source: of examples that are forecast.
        in_len: number of their input frames; 0: their targets are all frames.
    """

    source: Source
    in_len: int

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Example:
        return _whole(self.source[index], self.in_len)


def _whole(example: Example, in_len: int) -> Example:
    """Joins inputs and targets; unknown targets become 0, the mean in model units."""
    targets = example["targets"]
    observed = example.get("observed")
    if observed is not None:
        targets = np.where(observed, targets, np.zeros((), targets.dtype))
    frames = targets
    if in_len:
        inputs = example["inputs"][..., : targets.shape[-1]]
        frames = np.concatenate([inputs, targets])
    whole = {**example, "inputs": frames, "targets": frames}
    known = [example.get(name) for name in _OBSERVED]
    for name in _OBSERVED:
        whole.pop(name, None)
    if any(x is not None for x in known):
        before, after = known
        parts = [np.ones(targets.shape, bool) if after is None else after]
        if in_len:
            shape = frames[:in_len].shape
            parts.insert(0, np.ones(shape, bool) if before is None else before)
        whole["observed"] = np.concatenate(parts)
    return whole


def _state(data: Data, whole: Data) -> DataState:
    """What is kept of the data: that of the forecasts, with the shapes of these."""
    example = whole.example()
    assert data.state is not None
    return dataclasses.replace(
        data.state(),
        input_shape=example["inputs"].shape,
        target_shape=example["targets"].shape,
    )
