r"""Every model on four data sets, through the ordinary command, in one table each.

    python experiments/zoo.py                  # small models, hours on two CPU cores
    python experiments/zoo.py --configs=moving_mnist,sevir
    python experiments/zoo.py --configs=enso --models=unet,earthformer --variant=quick
    python experiments/zoo.py --paces          # afterwards, on an idle machine

Runs `python -m earthformer_jax.main --config=configs/CONFIG.py:VARIANT,MODEL` for each
model in turn and writes OUT/VARIANT/CONFIG.md: the test scores from scores.json, and
the number of parameters and the median time of a training step from the log; the peak
memory is that of the whole process. Completed runs are not repeated; --paces measures
time and memory of all models again, in runs of a few steps.
Small variants show how models behave when trained for minutes, not which one is best. A
model whose steps take very long is given fewer steps (`SHORTENED`).
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

from markdown_table import markdown

from earthformer_jax import models
from earthformer_jax.reports import scoring

ROOT = pathlib.Path(__file__).parents[1]
# Columns by config: score, heading, format.
_FRAMES = (
    ("mse", "MSE", "{:.2f}"),
    ("mae", "MAE", "{:.1f}"),
    ("ssim", "SSIM", "{:.3f}"),
)
SCORES = {
    "nbody_mnist": _FRAMES,
    "moving_mnist": _FRAMES,
    "sevir": (
        ("csi_m", "CSI-M", "{:.3f}"),
        ("csi_74", "CSI-74", "{:.3f}"),
        ("csi_133", "CSI-133", "{:.3f}"),
        ("bias_m", "bias", "{:.2f}"),
        ("mse", "MSE", "{:.4f}"),
    ),
    "enso": (
        ("c_nino34_m", "C-Nino3.4-M", "{:.3f}"),
        ("c_nino34_wm", "C-Nino3.4-WM", "{:.3f}"),
        ("mse", "MSE (K²)", "{:.3f}"),
    ),
}
# Overrides by config and model.
SHORTENED = {
    ("enso", "e3d_lstm"): dict(steps=300, simulated_steps=200, validate_every=150),
    ("sevir", "e3d_lstm"): dict(steps=300, validate_every=150),
}

# A short run of each model: enough steps for a median, and little to score.
PACE = dict(steps=30, log_every=5, simulated_steps=0, validate_every=30)
FEW_EXAMPLES = {
    "enso": dict(twin_validation=16, twin_test=16),
    "nbody_mnist": dict(validation=4, test=4),
    "moving_mnist": dict(validation=4, test=4),
    "sevir": dict(twin_validation=4, twin_test=4),
}


def command_line(config: str, variant: str, model: str, folder: pathlib.Path) -> list:
    """The ordinary training command."""
    return [
        *(sys.executable, "-m", "earthformer_jax.main", f"--workdir={folder}"),
        f"--config={ROOT / 'configs' / config}.py:{variant},{model}",
    ]


def execute(command: list, log: pathlib.Path) -> dict:
    """Runs a command; the pace comes from its log, the peak memory from the system."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed; see {log}")
    paces = [float(x) for x in re.findall(r"([\d.e-]+) s/step", log.read_text())]
    return dict(
        seconds_per_step=statistics.median(paces) if paces else None,
        peak_mib=usage.ru_maxrss / 1024,
    )


def run(config: str, variant: str, model: str, out: pathlib.Path) -> dict:
    """Trains and scores one model; returns the numbers of its row."""
    folder = out / f"{config}-{model}"
    result_file = folder / "result.json"
    if result_file.exists():
        return json.loads(result_file.read_text())
    command = command_line(config, variant, model, folder)
    if variant == "quick":
        command += options("train", SHORTENED.get((config, model), {}))
    result = execute(command, folder / "log.txt")
    parameters = re.search(r"([\d,]+) parameters", (folder / "log.txt").read_text())
    result |= dict(
        parameters=int(parameters[1].replace(",", "")) if parameters else 0,
        forecasts=json.loads((folder / "scores.json").read_text())["forecasts"],
    )
    scoring.write_json(result_file, result)
    return result


def measure_pace(config: str, variant: str, model: str, out: pathlib.Path) -> dict:
    """Measures step time and peak memory again, to replace those of the training."""
    result_file = out / f"{config}-{model}" / "result.json"
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        command = command_line(config, variant, model, folder / "run")
        command += options("train", PACE) + options("data", FEW_EXAMPLES[config])
        result = json.loads(result_file.read_text())
        result |= execute(command, folder / "log.txt")
    scoring.write_json(result_file, result)
    return result


def options(part: str, changes: dict) -> list[str]:
    """Changes to a config as command-line arguments."""
    return [f"--config.{part}.{key}={value}" for key, value in changes.items()]


def table(config: str, results: dict[str, dict]) -> str:
    """Markdown table: a row for each model and each reference forecast."""
    scores = SCORES[config]
    heads = ["model", *(h for _, h, _ in scores), "parameters", "s / step", "peak MiB"]
    rows = []
    for name, result in results.items():
        cells = [form.format(result["forecasts"]["model"][k]) for k, _, form in scores]
        pace = result["seconds_per_step"]
        cells += [
            f"{result['parameters']:,}" if result["parameters"] else "",
            f"{pace:.2f}" if pace else "",
            f"{result['peak_mib']:,.0f}",
        ]
        rows.append([name, *cells])
    references = next(iter(results.values()))["forecasts"]
    for name in [n for n in references if n != "model"]:
        cells = [form.format(references[name][k]) for k, _, form in scores]
        rows.append([f"*{name}*", *cells, "", "", ""])
    return markdown(heads, rows) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Runs all models and writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    forecasters = [n for n in models.names() if n not in models.RESTORERS]
    parser.add_argument("--configs", default=",".join(SCORES))
    parser.add_argument("--models", default=",".join(forecasters))
    parser.add_argument("--variant", default="quick")
    parser.add_argument("--paces", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/zoo"))
    a = parser.parse_args(arguments)
    a.out = a.out.absolute() / a.variant
    for config in a.configs.split(","):
        if config not in SCORES:
            parser.error(f"--configs={config}: expected some of {', '.join(SCORES)}")
        results = {}
        for model in a.models.split(","):
            if model not in forecasters:
                parser.error(f"--models={model}: expected {', '.join(forecasters)}")
            results[model] = run(config, a.variant, model, a.out)
            if a.paces and model != "persistence":
                results[model] = measure_pace(config, a.variant, model, a.out)
            print(config, model, "done", flush=True)
            (a.out / f"{config}.md").write_text(table(config, results))
        print(table(config, results), flush=True)


if __name__ == "__main__":
    main()
