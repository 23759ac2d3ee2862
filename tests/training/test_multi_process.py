"""Two processes on one machine train the same model as one process."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from earthformer_jax.training import loop
from earthformer_jax.training.checkpoint import Checkpoints
from tests.training import toy
from tests.training.test_resume import ROOT

PROGRAM = """
import sys
import jax
workdir, port, process = sys.argv[1], sys.argv[2], int(sys.argv[3])
jax.distributed.initialize(f"127.0.0.1:{port}", 2, process, initialization_timeout=60)
assert jax.device_count() == 4 and jax.local_device_count() == 2
from earthformer_jax.training import loop
from tests.training import toy
model, dataset = toy.ToyModel(dropout=0.0), toy.dataset()
assert loop.train(toy.config(), workdir, dataset=dataset, model=model)
assert loop.train(toy.config(), workdir, dataset=dataset, model=model)
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


@pytest.mark.slow
def test_two_processes(tmp_path):
    port = free_port()
    env = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"}
    workdir = tmp_path / "two"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(workdir), port, str(process)],
            cwd=ROOT,
            env=env,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(2)
    ]
    for process in processes:
        output = process.communicate(timeout=240)[1]
        assert process.returncode == 0, output

    # Without dropout: the batches are the same, but not the order inside them.
    model = toy.ToyModel(dropout=0.0)
    loop.train(toy.config(), tmp_path / "one", dataset=toy.dataset(), model=model)
    found, expected = (
        [json.loads(line) for line in (path / "metrics.jsonl").open()]
        for path in (workdir, tmp_path / "one")
    )
    assert [line["step"] for line in found] == [line["step"] for line in expected]
    for a, b in zip(found, expected, strict=True):
        for name in b:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-4)
    checkpoints = Checkpoints(workdir / "checkpoints")
    assert checkpoints.steps() == [28, 35]
    # The position in the data does not depend on the number of processes.
    one = Checkpoints(tmp_path / "one" / "checkpoints")
    assert checkpoints.progress(35).batches == one.progress(35).batches
