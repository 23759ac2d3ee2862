"""Models on 8 devices give what one device gives; the table is in docs/scaling.md."""

import json
import os
import subprocess
import sys

import pytest

from tests.training.test_resume import ROOT

PROGRAM = """
import json, sys
from tests.training.devices import equality
name, way = sys.argv[1:]
print(json.dumps(equality.compare(name, way)))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, way",
    [("unet", "data x space"), ("unet", "padded"), ("predrnn", "shard_map")],
)
def test_a_model_on_eight_devices(name, way):
    env = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8"}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, name, way],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert run.returncode == 0, run.stderr
    differences = json.loads(run.stdout.splitlines()[-1])
    assert set(differences) >= {"loss", "gradients", "batch_stats", "forecast"}
    for what, largest in differences.items():
        assert largest < 1e-5, what
