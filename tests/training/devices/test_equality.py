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
for name, way in json.loads(sys.argv[1]):
    print(json.dumps(equality.compare(name, way)))
"""


CASES = [("unet", "data x space"), ("unet", "padded"), ("predrnn", "shard_map")]


@pytest.mark.slow
def test_models_on_eight_devices():
    env = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8"}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(CASES)],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()[-len(CASES) :]
    for case, differences in zip(CASES, map(json.loads, lines), strict=True):
        assert set(differences) >= {"loss", "gradients", "batch_stats", "forecast"}
        for what, largest in differences.items():
            assert largest < 1e-5, (case, what)
