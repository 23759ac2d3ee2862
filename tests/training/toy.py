"""A model and a data set that train in seconds, and a program that trains them.

python -m tests.training.toy WORKDIR [section.field=value ...]
"""

import dataclasses
import json
import sys

import flax.linen as nn
import jax.numpy as jnp
import ml_collections
import numpy as np

from earthformer_jax.data.dataset import Data, Dataset
from earthformer_jax.data.task import ForecastFrames

SHAPE = (3, 4, 4, 1)


@dataclasses.dataclass(frozen=True)
class ToySource:
    """Example i is noise from seed (seed, i); its targets are a map of its inputs."""

    size: int
    seed: int = 0
    bad_from: int | None = None  # examples from here on hold NaN

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        rng = np.random.default_rng((self.seed, index))
        inputs = rng.normal(size=SHAPE).astype(np.float32)
        targets = np.tanh(inputs[::-1] + 0.5 * inputs[:1])
        if self.bad_from is not None and index >= self.bad_from:
            inputs = np.full_like(inputs, np.nan)
        return {
            "inputs": inputs,
            "targets": targets,
            "start_month": np.int32(index % 12),
        }


@dataclasses.dataclass(frozen=True)
class ToyMetric:
    """Mean squared error, and its root for each lead."""

    def init(self):
        return {"error": jnp.zeros(SHAPE[0]), "count": jnp.zeros(())}

    def update(self, sums, forecast, batch):
        valid = batch["valid"]
        error = jnp.square(forecast - batch["targets"]).mean(axis=(2, 3, 4))
        return {
            "error": sums["error"] + jnp.where(valid[:, None], error, 0).sum(axis=0),
            "count": sums["count"] + valid.sum(),
        }

    def merge(self, a, b):
        return {name: a[name] + b[name] for name in a}

    def compute(self, sums):
        error = np.asarray(sums["error"], np.float64)
        error = error / max(float(sums["count"]), 1)
        return {"mse": float(error.mean()), "rmse_by_lead": list(np.sqrt(error))}


class ToyModel(nn.Module):
    """A small network with dropout and, on request, everything a model may have."""

    features: int = 8
    dropout: float = 0.1
    batch_norm: bool = False
    sown_loss: float = 0.0
    has_unused: bool = False

    @nn.compact
    def __call__(self, inputs, *, train=False):
        b, t, h, w, c = inputs.shape
        x = inputs.reshape(b, t * h * w * c)
        x = nn.Dense(self.features, name="first")(x)
        if self.batch_norm:
            x = nn.BatchNorm(use_running_average=not train, name="batch_norm")(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(nn.gelu(x))
        x = nn.LayerNorm(name="norm")(x)
        if self.has_unused:
            self.param("global_vectors", nn.initializers.ones, (2, 3))
        if self.sown_loss:
            self.sow("losses", "constant", jnp.float32(self.sown_loss))
        x = nn.Dense(t * h * w * c, name="last")(x)
        return x.reshape(b, t, h, w, c)


class PupilModel(nn.Module):
    """Forecasts a parameter; in training a share of the targets, larger with steps."""

    uses_targets = True

    @nn.compact
    def __call__(self, inputs, *, train=False, targets=None, step=None, **_):
        level = self.param("level", nn.initializers.ones, ())
        forecast = jnp.broadcast_to(level, inputs.shape)
        return forecast + step * targets if train else forecast


class MembersModel(nn.Module):
    """In training two members, a parameter apart, and a term of its own."""

    draws = True

    @nn.compact
    def __call__(self, inputs, *, train=False):
        apart = self.param("apart", nn.initializers.constant(2.0), ())
        self.sow("losses", "constant", jnp.float32(5.0))
        return jnp.stack([inputs, inputs + apart]) if train else inputs


class StillModel(nn.Module):
    """Persistence, which has no parameters."""

    @nn.compact
    def __call__(self, inputs, *, train=False):
        return jnp.broadcast_to(inputs[:, -1:], inputs.shape)


def dataset(**changes) -> Dataset:
    """48 training and 10 validation examples."""
    defaults = dict(
        name="toy",
        description="toy examples, 48 / 10 / 4",
        train=ToySource(48, seed=1),
        validation=ToySource(10, seed=2),
        test=ToySource(4, seed=3),
        loss_weights=np.ones((1, 4, 4, 1), np.float32),
        simulated=ToySource(10_000, seed=4),
    )
    return Dataset(Data(**(defaults | changes)), ForecastFrames(metric=ToyMetric()))


def config(**changes) -> ml_collections.ConfigDict:
    """A complete config; changes such as `train__steps=3`."""
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.data = dict(name="toy", in_len=SHAPE[0], out_len=SHAPE[0])
    c.model = dict(name="toy", features=8)
    c.optim = dict(
        lr=1e-2,
        weight_decay=1e-2,
        warmup_fraction=0.2,
        warmup_min_ratio=0.0,
        min_lr_ratio=1e-3,
        clip_norm=1.0,
        b1=0.9,
        b2=0.999,
        eps=1e-8,
        ema_decay=0.9,
    )
    c.train = dict(
        batch_size=8,
        micro_batch=4,
        epochs=5.0,
        steps=0,
        simulated_steps=5,
        simulated_fraction=0.25,
        validate_every=7,
        early_stop_patience=0,
        monitor="mse",
        monitor_mode="min",
        log_every=4,
        checkpoint_every=0,
        num_threads=1,
        num_workers=0,
    )
    c.eval = dict(batch_size=4, checkpoint="best", clusters=7)
    for name, value in changes.items():
        section, field = name.split("__") if "__" in name else (None, name)
        (c[section] if section else c)[field] = value
    return c.lock()


if __name__ == "__main__":
    import logging

    from earthformer_jax.training import loop

    logging.basicConfig(level=logging.INFO, force=True)
    overrides = dict(argument.split("=") for argument in sys.argv[2:])
    loop.train(
        config(**{name: json.loads(value) for name, value in overrides.items()}),
        sys.argv[1],
        dataset=dataset(),
        model=ToyModel(),
    )
