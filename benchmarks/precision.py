"""Training curves and steps in float32, bfloat16 and float16, side by side.

    python benchmarks/precision.py --config custom:quick,unet --steps 200
    python benchmarks/precision.py --config enso:quick --pairs 10 --seeds
    python benchmarks/precision.py --cases enso nbody --pairs 7

Trains a config once for each type and seed, and compares the validations; then takes
steps of all types in turn. Times of steps are those of the processor, of all threads
together, which other programs on the machine hardly change. --cases times forward
passes and training steps of Earthformers of the published sizes instead (`cases`, batch
2).
"""

import argparse
import json
import pathlib
import statistics
import sys
import tempfile
import time

import jax
import numpy as np

sys.path[0] = str(pathlib.Path(__file__).parents[1])

from benchmarks import cases, machine, worker_jax  # noqa: E402
from earthformer_jax.interop import official  # noqa: E402
from earthformer_jax.run.api import load_config  # noqa: E402
from earthformer_jax.run.run import Run  # noqa: E402
from earthformer_jax.training.devices.prepared import prepare  # noqa: E402
from earthformer_jax.training.settings import from_config  # noqa: E402


def curve(config, folder: pathlib.Path) -> dict:
    """The validations of a training, and its losses by interval of steps."""
    Run(config, folder).train()
    rows = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
    score = f"validation/{config.train.monitor or 'mse'}"
    return {
        "loss": [row["train/loss"] for row in rows if "train/loss" in row],
        "validation": [row[score] for row in rows if score in row],
        "skipped": sum(row.get("train/skipped", 0) for row in rows),
    }


def compare(curves: dict[str, list[dict]]) -> dict[str, dict]:
    """For each type what its validations differ from those of the first type by.

    Args:
        curves: by type, one of each seed.

    Returns:
        by type "best", the mean over seeds of the best validation; "spread", the
        standard deviation over seeds; "difference" to the first type, the mean over
        seeds; "noise", the standard deviation of that mean if seeds were drawn anew
        for each type; "curve", the largest relative difference of the mean curves.
    """
    first = next(iter(curves.values()))
    found = {}
    for name, runs in curves.items():
        best, of_first = ([min(x["validation"]) for x in y] for y in (runs, first))
        means = [np.mean([x["validation"] for x in y], axis=0) for y in (runs, first)]
        noise = np.sqrt((np.var(best, ddof=1) + np.var(of_first, ddof=1)) / len(best))
        found[name] = dict(
            best=statistics.mean(best),
            spread=statistics.stdev(best),
            difference=statistics.mean(best) - statistics.mean(of_first),
            noise=float(noise),
            curve=float(np.max(np.abs(means[0] / means[1] - 1))),
            skipped=sum(x["skipped"] for x in runs),
        )
    return found


def steps(configs: dict, pairs: int) -> dict[str, dict]:
    """Seconds of the processor for a step of each type, taken in turn."""
    programs, seconds = {}, {name: [] for name in configs}
    for name, config in configs.items():
        run, settings = Run(config, "unused"), from_config(config)
        data = run.dataset.data
        ready = prepare(settings, run.dataset, run.model, data.example())
        examples = [data.train[i] for i in range(settings.train.batch_size)]
        names = ("inputs", "targets")
        batch = ready.program.put(
            {k: np.stack([x[k] for x in examples]) for k in names}
        )
        state = ready.create(ready.key)
        program = ready.program.take_step.lower(state, batch).compile()
        programs[name] = [program, program(state, batch)[0], batch]
    for _ in range(pairs):
        for name, kept in programs.items():
            start = time.process_time()
            kept[1], _ = jax.block_until_ready(kept[0](kept[1], kept[2]))
            seconds[name].append(time.process_time() - start)
    return _medians(seconds)


def passes(case: str, types: list[str], pairs: int) -> dict[str, dict[str, dict]]:
    """As `steps`, for "forward" and "train" of one of `cases.CASES`."""
    batch, found = jax.device_put(cases.example(case, 2)), {}
    for mode in ("forward", "train"):
        programs, seconds = {}, {name: [] for name in types}
        for name in types:
            dropout = cases.DROPOUT if mode == "train" else 0.0
            model = official.earthformer_from_config(cases.options(case, dropout))
            model = model.clone(dtype=name)
            params = worker_jax.random_params(model)
            if mode == "forward":
                function, arguments = jax.jit(model.apply), [{"params": params}]
                arguments.append(batch["inputs"])
            else:
                one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
                function, state = worker_jax.training_step(model, params, one)
                arguments = [state, batch]
            programs[name] = function.lower(*arguments).compile(), arguments
        for turn in range(pairs + 1):
            for name, (program, arguments) in programs.items():
                start = time.process_time()
                result = jax.block_until_ready(program(*arguments))
                if turn:  # the first one is not measured
                    seconds[name].append(time.process_time() - start)
                if mode == "train":
                    arguments[0] = result[0]  # the state was donated
        found[mode] = _medians(seconds)
    return found


def _medians(seconds: dict[str, list[float]]) -> dict[str, dict]:
    """By type, the median and that of the ratio to the first type of the same turn."""
    base = np.array(seconds[next(iter(seconds))])
    return {
        name: dict(seconds=float(np.median(x)), ratio=float(np.median(x / base)))
        for name, x in ((name, np.array(x)) for name, x in seconds.items())
    }


def measure(config: str, types: list[str], seeds: list[int], length: int, pairs: int):
    """All numbers of a config."""
    changes = {}
    if length:
        changes = {"train.steps": length, "train.validate_every": max(length // 5, 1)}

    def made(name: str, seed: int):
        return load_config(config, changes | {"precision.compute": name, "seed": seed})

    found = {"config": config, "machine": machine.describe()}
    if seeds:
        curves = {name: [] for name in types}
        with tempfile.TemporaryDirectory() as folder:
            for seed in seeds:
                for name in types:
                    where = pathlib.Path(folder, f"{name}_{seed}")
                    curves[name].append(curve(made(name, seed), where))
        found |= {"curves": curves, "compared": compare(curves)}
    if pairs:
        found["steps"] = steps({x: made(x, 0) for x in types}, pairs)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="custom:quick,unet")
    parser.add_argument("--types", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=0, help="0: those of the config")
    parser.add_argument("--pairs", type=int, default=0, help="steps of each type")
    parser.add_argument("--cases", nargs="*", default=[], choices=[*cases.CASES])
    parser.add_argument("--out", type=pathlib.Path, help="a .json file")
    args = parser.parse_args()
    if args.cases:
        found = {"machine": machine.describe()}
        for case in args.cases:
            for mode, rows in passes(case, args.types, args.pairs).items():
                found[f"{case} {mode}"] = rows
                print(f"{case} {mode}: {rows}", flush=True)
    else:
        found = measure(args.config, args.types, args.seeds, args.steps, args.pairs)
    for part in ("compared", "steps"):
        for name, row in found.get(part, {}).items():
            words = "  ".join(f"{key} {value:.4g}" for key, value in row.items())
            print(f"{name:9} {words}", flush=True)
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
