"""Plans for machines that are not at hand, in a process that simulates their devices.

The number of simulated devices has to be set before JAX starts. The process,
`python -m earthformer_jax.run.planning.described`, reads one JSON object from its
standard input and writes one to its standard output.
"""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import ml_collections

from earthformer_jax.profiling import machines
from earthformer_jax.run.planning import making
from earthformer_jax.run.planning.making import MemoryPlan, Try
from earthformer_jax.run.planning.step import StepMemory
from earthformer_jax.settings import ConfigError
from earthformer_jax.training import workdir as workdir_lib


def make(
    config: ml_collections.ConfigDict, workdir: pathlib.Path, machine: str
) -> MemoryPlan:
    """The plan of a training on a described machine.

    Args:
        config: the whole config.
        workdir: as for `making.make`.
        machine: as for `machines.parse`.

    Raises:
        ConfigError: as `making.make`, or if there is no such machine.
    """
    count = machines.parse(machine).count
    request = dict(
        config=json.loads(workdir_lib.to_json(config)),
        workdir=str(workdir.absolute()),
        machine=machine,
    )
    child = subprocess.run(
        [sys.executable, "-m", __name__],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(count)},
    )
    try:
        answer = json.loads(child.stdout)
    except ValueError:
        last = (child.stderr.strip().splitlines() or [""])[-1]
        raise ConfigError(
            f"--plan_devices={machine}: the process that compiles for {count} "
            f"simulated devices ended with status {child.returncode}: {last}"
        ) from None
    if "error" in answer:
        raise ConfigError(*answer["error"])
    return from_json(answer)


def from_json(values: Mapping[str, Any]) -> MemoryPlan:
    """A plan from the values of `MemoryPlan.to_json`."""
    made = {k: v for k, v in values.items() if k not in ("fits", "peak")}
    made["step"] = StepMemory(**made["step"])
    made["tries"] = tuple(Try(**one) for one in made["tries"])
    for name in ("input_shape", "target_shape", "advice", "notes"):
        made[name] = tuple(made[name])
    return MemoryPlan(**made)


def _answer(request: Mapping[str, Any]) -> dict[str, Any]:
    config = ml_collections.ConfigDict(request["config"]).lock()
    machine = machines.parse(request["machine"])
    try:
        return making.make(config, pathlib.Path(request["workdir"]), machine).to_json()
    except ConfigError as error:
        return {"error": error.problems}


def main() -> None:
    """Answers one request; whatever else is printed goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    json.dump(_answer(json.load(sys.stdin)), answers)
    answers.close()


if __name__ == "__main__":
    main()
