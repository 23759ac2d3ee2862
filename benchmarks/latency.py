r"""From the start of the process to the first forecast of a trained model.

    python benchmarks/latency.py
    python benchmarks/latency.py --models runs/mine nbody_mnist:paper --rounds 5

Runs the command `--mode=forecast` in processes of their own, in three states that take
turns, round by round:

    cold     nothing is kept from earlier processes
    cache    JAX finds compiled programs by what tracing the model gives
    kept     forecasts are found without tracing (`run.programs.kept`)

A model is a workdir, an exported file, a model that comes with the package, or a config
such as enso:paper, whose model is exported with random weights. CPU
seconds are those of all threads; on a machine with other work they vary less than the
time that passes. Prints a Markdown table of medians; --out writes JSON.
"""

import argparse
import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).parents[1]
sys.path[0] = str(ROOT)

from benchmarks import machine, report  # noqa: E402

STATES = ("cold", "cache", "kept")
# What a process runs; without what is kept, unless the state is "kept".
_COMMAND = """
import runpy
{without}
runpy.run_module("earthformer_jax.main", run_name="__main__", alter_sys=True)
"""
_WITHOUT = "from earthformer_jax.run.programs import kept; kept.find = lambda: None"


def untrained(name: str, folder: pathlib.Path) -> pathlib.Path:
    """Exports the model of a config with random weights."""
    import jax
    import numpy as np

    from earthformer_jax.run import config_files
    from earthformer_jax.run.config import completed
    from earthformer_jax.run.forecasting import exporting
    from earthformer_jax.run.parts import load_data, make_model
    from earthformer_jax.run.trained import TrainedModel
    from earthformer_jax.training.state import abstract_variables

    config = completed(config_files.load(name))
    dataset = load_data(config)
    make_state = dataset.data.state
    if make_state is None:
        raise SystemExit(f"{name}: its data have no state that could be exported")
    state = make_state()
    model = make_model(config, state.input_shape, state.target_shape)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda x: rng.normal(0, 0.02, x.shape).astype(x.dtype),
        abstract_variables(model, state.input_shape),
    )
    trained = TrainedModel(
        model=model,
        variables=variables,
        config=config,
        state=state,
        open_dataset=lambda: dataset,
        step=0,
        complete=True,
    )
    path = folder / f"{name.replace(':', '-').replace(',', '-')}.efx"
    return exporting.export(trained, path, program=False)


def call(arguments: Sequence[str], cache: pathlib.Path, state: str) -> dict[str, float]:
    """Seconds of a process that forecasts: those that pass, and those of the CPU.

    Args:
        arguments: of the command.
        cache: folder of compiled programs.
        state: one of `STATES`.
    """
    if state == "cold":
        shutil.rmtree(cache, ignore_errors=True)
    code = _COMMAND.format(without="" if state == "kept" else _WITHOUT)
    # With the large pages that the command starts itself anew to get.
    environment = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"} | os.environ
    environment |= {"JAX_COMPILATION_CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, "--mode=forecast", "--nofigures", *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )
    passed = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"the forecast failed:\n{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return dict(seconds=passed, cpu=used)


def measure(model: str, rounds: int, folder: pathlib.Path) -> dict:
    """Seconds of a model in every state, and whether the forecasts are the same."""
    if pathlib.Path(model).is_dir():
        given = f"--workdir={model}"
    elif ":" in model:
        given = f"--model={untrained(model, folder)}"
    else:
        given = f"--model={model}"
    found = {state: [] for state in STATES}
    warm, outputs = folder / "warm", {}
    for number in range(-1, rounds):  # before the first round the folder is filled
        for state in STATES:
            outputs[state] = folder / f"{state}.nc"
            cache = folder / "cold" if state == "cold" else warm
            arguments = [given, f"--output={outputs[state]}", "--overwrite"]
            seconds = call(arguments, cache, state)
            if number >= 0:
                found[state].append(seconds)
                print(f"{model} {state}: {seconds}", file=sys.stderr, flush=True)
    return dict(model=model, seconds=found, equal=are_equal(outputs.values()))


def are_equal(paths) -> bool:
    """Whether files hold the same values, bit for bit."""
    import xarray as xr

    first, *others = [xr.load_dataset(path) for path in paths]
    return all(first.equals(other) for other in others)


def table(rows: Sequence[dict]) -> str:
    """Medians as Markdown; ratios are medians of those within a round."""
    columns = {"model": lambda row: row["model"]}
    for state in STATES:
        for heading, key in ((f"{state} CPU s", "cpu"), (f"{state} s", "seconds")):
            columns[heading] = lambda row, state=state, key=key: report.seconds(
                statistics.median(x[key] for x in row["seconds"][state])
            )
    for state in STATES[1:]:
        columns[f"{state} / cold, CPU"] = lambda row, state=state: (
            f"{ratio(row, state, 'cpu'):.2f}"
        )
    columns["same values"] = lambda row: "yes" if row["equal"] else "no"
    return report.table(columns, rows)


def ratio(row: dict, state: str, key: str) -> float:
    """Median of the ratios of a state to "cold" within a round."""
    pairs = zip(row["seconds"][state], row["seconds"]["cold"], strict=True)
    return statistics.median(a[key] / b[key] for a, b in pairs)


def main(arguments: list[str] | None = None) -> None:
    """Runs the measurements requested on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    models = ("enso:paper", "nbody_mnist:paper")
    parser.add_argument("--models", nargs="+", default=models)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=pathlib.Path, help="JSON file")
    a = parser.parse_args(arguments)
    if a.rounds < 1:
        parser.error(f"--rounds must be positive, got {a.rounds}")
    rows = []
    for model in a.models:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(model, a.rounds, pathlib.Path(folder)))
    load = os.getloadavg()[0]
    print(f"{report.machine_line(machine.describe())}, load {load:.1f}")
    print(table(rows))
    if a.out:
        made = {"machine": machine.describe(), "load": load, "rows": rows}
        a.out.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
