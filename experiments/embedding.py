r"""Embeddings of days: ConvLSTM against FAConvLSTM, and FAConvLSTM part by part.

    python experiments/embedding.py                          # synthetic waves
    python experiments/embedding.py --path=ncep.nc --clusters=7
    python experiments/embedding.py --compare=parts          # ablation

The mean seasons are removed from the data: with them, k-means finds only the
seasons (adjusted Rand index 0.01, both for principal components and for all networks).
Trains autoencoders that differ only in their cells (the quick variant of
configs/climate_embedding.py) with several seeds:

    cells   ConvLSTM; FAConvLSTM of equal width, with equal parameters, and of equal
            width trained for an equal time
    parts   FAConvLSTM, complete and with each of its parts switched off in turn

and writes table.md: the error of the restored test days, k-means regimes judged by six
scores in the fields, and, for the synthetic waves, whose regimes are known, the
adjusted Rand index and how well a linear classifier reads the regime of test days from
an embedding. The same number of principal components is given for comparison. Every
training has its own folder; completed ones are not repeated, and other data, steps or
clusters need another --out.
"""

import argparse
import dataclasses
import importlib.util
import json
import logging
import pathlib
import time
from collections.abc import Mapping, Sequence

import jax
import numpy as np
import optax
import xarray as xr
from markdown_table import markdown
from paper import runs
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from earthformer_jax.data.pipeline import evaluation_batches
from earthformer_jax.data.splits import SPLITS
from earthformer_jax.metrics import clusters as cluster_lib
from earthformer_jax.reports import embedding, scoring
from earthformer_jax.run import compilation_cache, config_files
from earthformer_jax.run.parts import build
from earthformer_jax.training import evaluation, loop, mesh
from earthformer_jax.training import state as state_lib
from earthformer_jax.training import step as step_lib
from earthformer_jax.training.checkpoint import Checkpoints

ROOT = pathlib.Path(__file__).parents[1]
TIMED_STEPS = 15
PARTS = {
    "FAConvLSTM": {},
    "no axial attention": dict(cell_options=dict(attention_every=0)),
    "no squeeze-and-excitation": dict(cell_options=dict(squeeze=0)),
    "no peepholes": dict(cell_options=dict(peephole="none")),
    "one dilation": dict(cell_options=dict(dilations=(1,))),
    "no activation after mixing": dict(cell_options=dict(mix_activation=None)),
    "windows of input and state apart": dict(cell_options=dict(share_taps=False)),
    "bottleneck half as wide": dict(cell_options=dict(bottleneck=8)),
    "no attention over days": dict(heads=0),
    "no seasonal code": dict(harmonics=0),
}
COLUMNS = (
    ("parameters", "parameters", "{:,.0f}"),
    ("step_ms", "ms / step", "{:.0f}"),
    ("steps", "steps", "{:.0f}"),
    ("mse", "test MSE", "{:.3f}"),
    ("probe", "probe", "{:.3f}"),
    ("rand_index", "ARI", "{:.3f}"),
    ("silhouette", "silhouette", "{:.3f}"),
    ("davies_bouldin", "Davies-Bouldin", "{:.2f}"),
    ("calinski_harabasz", "Calinski-Harabasz", "{:.0f}"),
    ("rmse", "RMSE", "{:.3f}"),
    ("average_variance", "variance", "{:.5f}"),
    ("inter_distance", "inter-cluster", "{:.3f}"),
)


def load_module(path: pathlib.Path):
    """Imports a Python file that is not in a package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_config(a, seed: int, steps: int, model: dict):
    """The quick variant with other data, seed, steps and model options.

    Of `a`, "scale" (another variant) and "dates" (settings of the data) may be missing.
    """
    c = config_files.load(f"climate_embedding:{getattr(a, 'scale', 'quick')}")
    c.seed = seed
    c.data.path = str(a.path)
    c.data.calendar = True
    c.data.anomalies = not a.seasons
    c.data.update(getattr(a, "dates", {}))
    c.model.update(model)
    c.train.update(steps=steps, validate_every=max(steps // 2, 1), log_every=100)
    c.eval.clusters = a.clusters
    return c.lock()


def parameters(a, model: dict) -> int:
    """Number of trained parameters of a model."""
    dataset, module = build(make_config(a, 0, 1, model))
    shape = dataset.data.example()["inputs"].shape
    variables = state_lib.abstract_variables(module, shape)
    return state_lib.count_parameters(variables["params"])


def step_seconds(a, variants: dict[str, dict]) -> dict[str, float]:
    """Shortest time of a training step, by name.

    The models take turns, so that other load on the machine affects all of them alike.
    """
    steps = {name: compiled_step(a, model) for name, model in variants.items()}
    times = {name: [] for name in variants}
    for _ in range(TIMED_STEPS):
        for name, (step, state) in steps.items():
            start = time.perf_counter()
            jax.block_until_ready(step(state))
            times[name].append(time.perf_counter() - start)
    return {name: min(seconds) for name, seconds in times.items()}


def compiled_step(a, model: dict):
    """A training step, and the state to call it with."""
    config = make_config(a, 0, 1, model)
    dataset, module = build(config)
    tx = optax.adam(1e-3)
    state = state_lib.create_state(
        jax.random.key(0),
        model=module,
        tx=tx,
        input_shape=dataset.data.example()["inputs"].shape,
    )
    examples = [dataset.data.train[i] for i in range(config.train.batch_size)]
    batch = {k: np.stack([e[k] for e in examples]) for k in ("inputs", "targets")}

    def step(state):
        weights = np.asarray(dataset.data.loss_weights, np.float32)
        options = dict(model=module, tx=tx, learning_rate=lambda _: 1e-3)
        return step_lib.update(state, batch, loss_weights=weights, **options)[0]

    return jax.jit(step).lower(state).compile(), state


def wide_as(a, target: int) -> int:
    """The multiple of 8 features that gives an FAConvLSTM as many parameters."""
    widths = range(16, 257, 8)
    counts = [parameters(a, dict(cell="fa_conv_lstm", features=f)) for f in widths]
    return widths[int(np.argmin(np.abs(np.array(counts) - target)))]


def cell_variants(a) -> dict[str, tuple[dict, int]]:
    """Model options and steps by name."""
    dense, factorised = dict(cell="conv_lstm"), dict(cell="fa_conv_lstm")
    wide = factorised | dict(features=wide_as(a, parameters(a, dense)))
    seconds = step_seconds(a, dict(dense=dense, factorised=factorised))
    ratio = seconds["dense"] / seconds["factorised"]
    return {
        "ConvLSTM": (dense, a.steps),
        "FAConvLSTM, equal width": (factorised, a.steps),
        "FAConvLSTM, equal parameters": (wide, a.steps),
        "FAConvLSTM, equal time": (factorised, round(a.steps * ratio)),
    }


def kept_variants(a) -> dict[str, tuple[dict, int]]:
    """The models and their steps, which are measured once and kept.

    Steps of equal time depend on the load of the machine; measured again, they would
    no longer be those of the trainings that are done.
    """
    file = a.out / f"variants-{a.steps}.json"
    if not file.exists():
        scoring.write_json(file, cell_variants(a))
    return {name: (m, s) for name, (m, s) in json.loads(file.read_text()).items()}


def run(a, name: str, model: dict, steps: int, seed: int) -> dict:
    """Trains and scores one autoencoder; returns the numbers of its table row.

    Raises:
        Mismatch: if it was trained with another config.
    """
    folder = folder_of(a, name, seed)
    config = make_config(a, seed, steps, model)
    found = runs.kept(folder, config)
    if found is not None:
        return found
    dataset, module = build(config)
    start = time.perf_counter()
    if not loop.train(config, folder, dataset=dataset, model=module):
        raise SystemExit("stopped; run again to continue")
    seconds = time.perf_counter() - start
    variables, embed = read(folder, dataset, module)
    score = evaluation.make_scorer(module, dataset.task.metric, mesh.data_mesh())
    series = embedding.gather(dataset.task.series, embed, config.eval.batch_size)
    scores = score(
        variables, evaluation_batches(dataset.data.test, config.eval.batch_size)
    )
    result = dict(
        parameters=state_lib.count_parameters(variables["params"]),
        steps=steps,
        seconds=seconds,
        mse=scores["mse"],
        **judge(a, series, series.embeddings),
    )
    return runs.keep(folder, config, result)


def folder_of(a, name: str, seed: int) -> pathlib.Path:
    """The workdir of a training."""
    return a.out / name.replace(" ", "_").replace(",", "") / str(seed)


def read(folder: pathlib.Path, dataset, module):
    """Variables of the best checkpoint, and the function from a batch to embeddings."""
    shape = dataset.data.example()["inputs"].shape
    like = state_lib.abstract_variables(module, shape)
    everywhere = mesh.replicated(mesh.data_mesh())
    variables, _ = Checkpoints(folder / "checkpoints").restore_variables(
        "best", mesh.abstract(like, everywhere)
    )
    args = module, jax.device_get(variables), mesh.data_mesh()
    return variables, evaluation.make_forecaster(*args, method="embed")


def judge(a, series: embedding.Series, points: np.ndarray) -> dict[str, float]:
    """Scores of the regimes found from points `[n, d]`, one point per frame."""
    judged = embedding.judge(series, points[series.kept], a.clusters)
    result = {k: v["mean"] for k, v in judged["in the fields"].items()}
    truth = known_regimes(a, series)
    if truth is not None:
        training, test = (series.split == SPLITS.index(s) for s in ("train", "test"))
        found = [
            cluster_lib.agreement(
                cluster_lib.k_means(points, a.clusters, seed, fit=training), truth
            )
            for seed in range(embedding.SEEDS)
        ]
        classify = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        classify.fit(points[training], truth[training])
        result["rand_index"] = float(np.mean(found))
        result["probe"] = float(
            balanced_accuracy_score(truth[test], classify.predict(points[test]))
        )
    return result


def known_regimes(a, series: embedding.Series) -> np.ndarray | None:
    """Regimes of all frames, if the file contains them."""
    if not a.path:
        return None
    with xr.open_dataset(a.path) as file:
        if "regime" not in file:
            return None
        return file["regime"].sel(time=series.dates).values


def components(a) -> dict:
    """The table row of principal components."""
    config = make_config(a, 0, 1, dict(cell="conv_lstm"))
    dataset, _ = build(config)
    width = config.model.embedding

    def blank(batch):
        return np.zeros((*np.shape(batch["targets"])[:2], width), np.float32)

    series = embedding.gather(dataset.task.series, blank, config.eval.batch_size)
    found = embedding.Components(series, width)
    metric = dataset.task.metric
    sums = metric.init()
    for batch in evaluation_batches(dataset.data.test, config.eval.batch_size):
        sums = metric.update(sums, found.restore(batch), batch)
    points = found.scores(series.fields)
    judged = dataclasses.replace(
        series,
        embeddings=points,
        frame=series.frame[series.kept],
        split=series.split[series.kept],
        time=series.time[series.kept],
        kept=np.arange(len(points)),
    )
    return dict(mse=metric.compute(sums)["mse"], **judge(a, judged, points))


def table(
    rows: Mapping[str, Sequence[Mapping[str, float]]],
    columns: Sequence[tuple[str, str, str]] = COLUMNS,
) -> str:
    """Markdown: mean, and standard deviation where several results of a row differ.

    Args:
        rows: by name, results that have some of the columns.
        columns: key, head and format of each; those that no result has are left out.
    """
    columns = [c for c in columns if any(c[0] in r for x in rows.values() for r in x)]
    heads = ["", *(head for _, head, _ in columns)]
    lines = []
    for name, results in rows.items():
        cells = [name]
        for key, _, form in columns:
            values = [r[key] for r in results if key in r]
            text = form.format(np.mean(values)) if values else ""
            if len(values) > 1 and np.std(values) > 0:
                text += f" ± {form.format(np.std(values))}"
            cells.append(text)
        lines.append(cells)
    return markdown(heads, lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Runs a comparison and writes its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--compare", choices=("cells", "parts"), default="cells")
    parser.add_argument(
        "--path", default="", help="NetCDF file; default: synthetic waves"
    )
    parser.add_argument(
        "--seasons", action="store_true", help="keep the mean seasons in the data"
    )
    parser.add_argument("--clusters", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--out", type=pathlib.Path, default=None)
    a = parser.parse_args(arguments)
    a.out = a.out or pathlib.Path("runs", f"embedding-{a.compare}")
    a.out.mkdir(parents=True, exist_ok=True)
    if not a.path:
        a.path = a.out / "waves.nc"
        if not a.path.exists():
            load_module(ROOT / "experiments" / "wave_regimes.py").make(8, 0).to_netcdf(
                a.path
            )
    logging.basicConfig(level=logging.WARNING)
    compilation_cache.cache_compilations()
    if a.compare == "cells":
        variants = kept_variants(a)
    else:
        base = dict(cell="fa_conv_lstm")
        variants = {name: (base | more, a.steps) for name, more in PARTS.items()}
    rows = {"principal components": [components(a)]}
    seconds = step_seconds(a, {name: model for name, (model, _) in variants.items()})
    for name, (model, steps) in variants.items():
        cost = dict(step_ms=1e3 * seconds[name])
        rows[name] = []
        for seed in range(a.seeds):
            try:
                rows[name].append(cost | run(a, name, model, steps, seed))
            except runs.Mismatch as error:
                parser.error(str(error))
            print(f"{name}, seed {seed}: done", flush=True)
        (a.out / "table.md").write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
