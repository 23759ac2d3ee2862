"""The compiled step writes the new state into the memory of the old one."""

import jax
import numpy as np
import pytest

from earthformer_jax.run.planning.step import shard_bytes
from earthformer_jax.training import settings
from earthformer_jax.training.devices.prepared import prepare
from tests.training import toy


@pytest.mark.parametrize(
    ("devices", "parallel"),
    [(1, {}), (4, dict(model=2)), (4, dict(backend="shard_map"))],
    ids=["one", "parts", "shard_map"],
)
def test_every_byte_of_the_state(devices, parallel):
    config = settings.from_config(
        {
            "train": dict(batch_size=8, micro_batch=4, steps=2),
            "optim": dict(ema_decay=0.9),
            "parallel": parallel,
        }
    )
    data = toy.dataset()
    example = data.data.example()
    model = toy.ToyModel(batch_norm="backend" not in parallel)
    ready = prepare(config, data, model, example, jax.devices()[:devices])
    batch = {k: np.asarray(example[k]) for k in ("inputs", "targets")}
    take_step = ready.program.take_step
    program = take_step.lower(ready.like, ready.program.batch_like(batch)).compile()
    reused = program.memory_analysis().alias_size_in_bytes
    assert reused == shard_bytes(ready.like)
