"""Training steps and forecasts on 8 simulated devices beside those of one.

JAX_NUM_CPU_DEVICES=8 python -m tests.training.devices.equality [MODEL ...]

prints the table of docs/scaling.md: for each model and each way to divide the work the
largest differences of loss, gradients (absolute), parameters after two steps, batch
statistics and forecasts from those of one device, in float32.
"""

import dataclasses
import functools
import sys

import jax
import numpy as np

from earthformer_jax import models
from earthformer_jax.models.contract import Forecaster
from earthformer_jax.training import evaluation, settings
from earthformer_jax.training import mesh as mesh_lib
from earthformer_jax.training import state as state_lib
from tests.training.devices import steps

DEVICES, BATCH = 8, 8
FRAMES, SIZE = 2, 32

_EARTHFORMER = dict(
    base_units=16,
    num_heads=2,
    num_global_vectors=2,
    enc_depth=(1, 1),
    dec_depth=(1, 1),
    downsample=(1, 2, 2),
    attn_drop=0.1,
    proj_drop=0.1,
    ffn_drop=0.1,
)
_DROP = ("attn_drop", "proj_drop", "ffn_drop")
MODELS = {
    "earthformer, axial": ("earthformer", _EARTHFORMER | dict(enc_pattern="axial")),
    "earthformer, windows": (
        "earthformer",
        _EARTHFORMER | dict(enc_pattern="video_swin_2x4"),
    ),
    "conv_lstm": (
        "conv_lstm",
        dict(
            features=(4, 8),
            stem_features=4,
            kernels=(3, 3),
            strides=(2, 2),
            up_kernels=(4, 4),
        ),
    ),
    "unet": ("unet", dict(features=(8, 16), center_features=16)),
    "predrnn": ("predrnn", dict(num_layers=2, features=8, kernel_size=3)),
}
# Parts in space and of the state, backend, examples per step and per gradient.
WAYS = {
    "data": {},
    "space": dict(space=8),
    "data x space": dict(space=2),
    "FSDP": dict(model=4),
    "padded": dict(batch=6),
    "shard_map": dict(backend="shard_map"),
    "pmap": dict(backend="pmap"),
}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What two steps and a forecast give, as NumPy arrays.

    Attributes:
        loss: of the first step.
        gradients: of the first step.
        params: after the second step.
        batch_stats: after the second step.
        forecast: of the parameters that training began with; 0 for backends that have
            no part in it.
    """

    loss: np.ndarray
    gradients: dict
    params: dict
    batch_stats: dict
    forecast: np.ndarray


def batch_of(size: int) -> dict[str, np.ndarray]:
    """Inputs and targets `[b, t, h, w, 1]`; some of the targets are unknown."""
    rng = np.random.default_rng(0)
    shape = size, FRAMES, SIZE, SIZE, 1
    inputs, targets = rng.normal(size=(2, *shape)).astype(np.float32)
    return {
        "inputs": inputs,
        "targets": targets,
        "observed": rng.uniform(size=shape) < 0.9,
    }


def model_of(name: str, dropout: bool = True) -> Forecaster:
    """A tiny model of the table."""
    kind, options = MODELS[name]
    if not dropout:
        options = options | {key: 0.0 for key in _DROP if key in options}
    shape = FRAMES, SIZE, SIZE, 1
    return models.create_model(kind, shape, shape, **options)


@functools.cache
def initial(name: str) -> state_lib.TrainState:
    """The state before the first step, on one device."""
    create = steps.first_state(model_of(name), (FRAMES, SIZE, SIZE, 1))
    return jax.device_get(jax.jit(create)(jax.random.key(0)))


def outcome(
    name: str, devices: int, batch: int = BATCH, dropout: bool = True, **parallel
) -> Outcome:
    """Two steps of plain gradient descent, and a forecast.

    Args:
        name: of a model.
        devices: number of them.
        batch: examples.
        dropout: whether it acts.
        **parallel: settings of the devices.
    """
    config = steps.settings_of(batch, batch, **parallel)
    mesh = mesh_lib.make_mesh(config.parallel, jax.devices()[:devices])
    model, state, examples = model_of(name, dropout), initial(name), batch_of(batch)
    layout = mesh_lib.state_sharding(state, mesh)
    program = steps.descent(config, mesh, layout, model)
    own = dataclasses.replace(state, rng=jax.random.clone(state.rng))  # a step donates
    before = jax.device_put(own, layout)
    after, scalars = program.take_step(before, program.put(examples))
    gradients = jax.tree.map(
        lambda a, b: (a - np.asarray(b)) / steps.RATE, state.params, after.params
    )
    last, _ = program.take_step(after, program.put(examples))
    forecast = np.zeros(())
    if config.parallel.backend == settings.JIT and dropout:  # it is the same for all
        forecaster = evaluation.make_forecaster(model, state.variables, mesh)
        forecast = forecaster({"inputs": examples["inputs"]})
    return Outcome(
        np.asarray(scalars["loss"]),
        gradients,
        jax.device_get(last.params),
        jax.device_get(last.batch_stats),
        forecast,
    )


def has_true_gradient(path) -> bool:
    """False for biases in front of batch norms, whose gradients are rounding alone."""
    names = [entry.key for entry in path]
    return not (names[-1] == "bias" and (names[-2] == "up" or "conv" in names[-2]))


def largest_differences(found: Outcome, expected: Outcome, name: str) -> dict:
    """The largest absolute difference of each attribute; 0 where there is nothing."""

    def largest(a, b):
        def of(path, x, y):
            if name == "unet" and path and not has_true_gradient(path):
                return 0.0
            return float(np.abs(np.asarray(x) - np.asarray(y)).max())

        return max(jax.tree.leaves(jax.tree_util.tree_map_with_path(of, a, b)) or [0.0])

    return {
        field.name: largest(getattr(found, field.name), getattr(expected, field.name))
        for field in dataclasses.fields(Outcome)
    }


def compare(name: str, way: str) -> dict[str, float]:
    """The largest differences of a way to divide the work from one device."""
    options = dict(WAYS[way])
    # A program for each device draws masks of its own.
    dropout = "backend" not in options
    batch = options.get("batch", BATCH)
    return largest_differences(
        outcome(name, DEVICES, **{"dropout": dropout} | options),
        _alone(name, batch, dropout),
        name,
    )


@functools.cache
def _alone(name: str, batch: int, dropout: bool) -> Outcome:
    return outcome(name, 1, batch, dropout)


if __name__ == "__main__":
    fields = [field.name for field in dataclasses.fields(Outcome)]
    print(f"| model | divided by | {' | '.join(fields)} |")
    for model_name in sys.argv[1:] or MODELS:
        for the_way in WAYS:
            differences = compare(model_name, the_way)
            cells = " | ".join(f"{differences[field]:.1e}" for field in fields)
            print(f"| {model_name} | {the_way} | {cells} |", flush=True)
