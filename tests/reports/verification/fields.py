"""A small task with a verification, for tests of sums by block."""

import dataclasses

import numpy as np

from earthformer_jax.data.dataset import Channel, Data, Display
from earthformer_jax.data.leaks import Spans
from earthformer_jax.data.task import ForecastFrames
from earthformer_jax.metrics import precipitation
from earthformer_jax.metrics.precipitation import RainScores

IN_LEN, OUT_LEN, SIDE = 2, 3, 8
TASK = ForecastFrames(
    metric=RainScores(thresholds=(16, 74)),
    verification=precipitation.verification(thresholds=(16, 74), pools=(1, 4)),
    mse_units="(code / 255)^2",
)


@dataclasses.dataclass(frozen=True)
class Fields:
    """Random fields of 0 to 1, with whatever an example also has."""

    count: int
    seed: int = 0
    more: tuple = ()

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        i = range(self.count)[i]
        rng = np.random.default_rng([self.seed, i])
        fields = rng.uniform(size=(IN_LEN + OUT_LEN, SIDE, SIDE, 1)).astype(np.float32)
        observed = rng.uniform(size=(OUT_LEN, SIDE, SIDE, 1)) < 0.9
        example = {"inputs": fields[:IN_LEN], "targets": fields[IN_LEN:]}
        return example | {"observed": observed} | {k: v[i] for k, v in self.more}


def data(count, seed=0, spans=None, **more):
    """Data whose test split has so many examples."""
    source = Fields(count, seed, tuple(more.items()))
    return Data(
        name="fields",
        description="random fields",
        train=source,
        validation=source,
        test=source,
        loss_weights=np.ones((1, 1, 1, 1)),
        display=Display((Channel("VIL"),), "5 min"),
        spans={}
        if spans is None
        else {**dict.fromkeys(("train", "validation"), _NONE)} | {"test": spans},
    )


_NONE = Spans(*(np.zeros(0, np.int64) for _ in range(3)))


def half(batch):
    """Half of the truth."""
    return 0.5 * np.asarray(batch["targets"])


def persistence(batch):
    """The last frame."""
    return np.repeat(np.asarray(batch["inputs"])[:, -1:], OUT_LEN, axis=1)


FORECASTS = {"model": half, "persistence": persistence}
