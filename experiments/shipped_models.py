r"""The small trained models that come with the package, made again.

    python experiments/shipped_models.py --sst=kaplan_pacific_ssta_1856_2014.nc
    python experiments/shipped_models.py --only=nbody-mnist
    python experiments/shipped_models.py --check     # are the files what is said here?

Trains each model with the settings of `RECIPES` (a quarter of an hour on two idle CPU
cores; a killed run resumes, a completed one is not repeated), scores it and simple
references on its test split, and writes earthformer_jax/pretrained/NAME.efx, which
contains its model card, and docs/pretrained.md with all cards. Where a recipe has
several settings, each is trained first on a part of the training period, and what comes
after it, before the test period, chooses. The test split is used for the scores of the
chosen one alone.

Intervals are the central 95 % of 1,000 bootstrap samples: of single test examples, or,
where they are windows of one series, of blocks of consecutive windows.
"""

import argparse
import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
from shipped_recipes import RECIPES, Recipe, Score

import earthformer_jax as ef
from earthformer_jax import pretrained
from earthformer_jax.data.references import persistence
from earthformer_jax.data.source import Source
from earthformer_jax.data.task import Forecast, Task
from earthformer_jax.forecast import archive as archive_lib
from earthformer_jax.metrics import bootstrap
from earthformer_jax.reports import intervals, scoring
from earthformer_jax.run.config import completed, explicit
from earthformer_jax.run.forecasting import exporting
from earthformer_jax.run.run import Run
from earthformer_jax.run.trained import TrainedModel
from earthformer_jax.training.workdir import config_hash

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / "docs" / "pretrained.md"
LABELS = {
    "model": "**model**",
    "persistence": "persistence",
    "damped_persistence": "damped persistence",
    "lim": "LIM",
    "oscillator": "recharge oscillator",
    "lim_memory": "LIM with the memory of Niño3.4",
    "lim_field_memory": "LIM with the memory of fields",
    "lim_hidden": "LIM with hidden states",
}
SAMPLES = 1000  # of the bootstrap
SHARE = 0.95  # of the samples that are inside an interval
MOST_BYTES = 2_000_000
TESTED = 4  # examples of the self-test
TOLERANCE = 1e-4


def measured(
    recipe: Recipe, task: Task, examples: Source, forecasts: Mapping[str, Forecast]
) -> dict[str, Any]:
    """Scores with their intervals, and how far the model is ahead of the references.

    Returns:
        {"scores": {heading: {forecast: [value, low, high]}}, "ahead": {heading:
        {reference: [value, low, high]}}}; "ahead" is the gain of the model, positive
        where it is better.
    """
    sums = intervals.block_sums(task.metric, examples, forecasts, recipe.block)
    sampled = {
        name: intervals.sampled_scores(task.metric, own, SAMPLES, seed=0)
        for name, own in sums.items()
    }
    scores, ahead = {}, {}
    for score in recipe.scores:
        values = {name: np.array([*map(score.of, x)]) for name, x in sampled.items()}
        scores[score.heading] = {name: rounded(x) for name, x in values.items()}
        ours, sign = values.pop("model"), 1 if score.higher_is_better else -1
        ahead[score.heading] = {
            n: rounded(sign * (ours - x)) for n, x in values.items()
        }
    return {"scores": scores, "ahead": ahead}


def rounded(values: np.ndarray) -> list[float]:
    """A score and its interval, in plain numbers."""
    limits = bootstrap.interval(values, SHARE)
    return [round(float(x), 6) for x in (values[0], *limits)]


def make(name: str, recipe: Recipe, path: str, workdir: pathlib.Path) -> None:
    """Trains and scores a model, and writes its file."""
    validated = {}
    if recipe.chosen_by is not None:
        for i, tried in enumerate(recipe.settings):
            config = recipe.configure(tried, path, choosing=True)
            run = completely_trained(config, workdir / f"{name}-choice-{i}")
            validated[tried] = validation(run, recipe.chosen_by)
    setting = chosen(recipe, validated)
    run = completely_trained(recipe.configure(setting, path), workdir / name)
    trained, dataset = run.load(), run.dataset
    test, task = dataset.data.test, dataset.task
    out_len, *_, channels = trained.target_shape
    forecasts: dict[str, Forecast] = {
        "model": lambda batch: np.asarray(trained(batch["inputs"])),
        "persistence": persistence(out_len, channels),
        **{key: task.references[key] for key in LABELS if key in task.references},
    }
    state = dataset.data.state
    assert state is not None, f"{name} has no state of its data"
    shipped = dataclasses.replace(
        trained, config=recipe.configure(setting), state=state()
    )
    packed = exporting.pack(shipped, program=False)
    facts = {
        "parameters": sum(x.size for x in jax.tree.leaves(trained.variables["params"])),
        **({"validation": validated} if validated else {}),
        **measured(recipe, task, test, forecasts),
    }
    metadata = {**packed.metadata, "facts": facts}
    del metadata["created"]  # equal models are equal files
    metadata["card"] = card(name, recipe, metadata)
    archive_lib.write(
        pretrained.path(name),
        dataclasses.replace(
            packed, metadata=metadata, self_test=self_test(trained, test)
        ),
    )


def completely_trained(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> Run:
    """A run, trained to its end; ends the program if it was interrupted."""
    run = Run(config, workdir)
    if not run.train():
        raise SystemExit("interrupted; the same command resumes training")
    return run


def validation(run: Run, score: Score) -> float:
    """A score of a trained model on its validation split."""
    trained, dataset = run.load(), run.dataset
    forecasts = {"model": lambda batch: np.asarray(trained(batch["inputs"]))}
    found = scoring.evaluate(
        dataset.task.metric,
        dataset.data.validation,
        forecasts,
        run.config.eval.batch_size,
    )
    return score.of(found["model"])


def chosen(recipe: Recipe, validated: Mapping[str, float]) -> str:
    """The setting with the best score on the validation split."""
    if recipe.chosen_by is None:
        return next(iter(recipe.settings))
    best = max if recipe.chosen_by.higher_is_better else min
    return best(validated, key=validated.__getitem__)


def choice(recipe: Recipe, facts: Mapping[str, Any]) -> list[str]:
    """The sentence of a card that says how its settings were chosen, if they were."""
    score = recipe.chosen_by
    if score is None:
        return []
    tried = " and ".join(
        f"{name} ({value:.{score.decimals}f})"
        for name, value in facts["validation"].items()
    )
    return [f"Settings were chosen by {score.heading} on {recipe.choosing}: {tried}."]


def self_test(trained: TrainedModel, examples: Source) -> dict[str, np.ndarray]:
    """Inputs and forecasts of a few test examples, in the units of the model."""
    numbers = np.linspace(0, len(examples) - 1, TESTED).astype(int)
    inputs = np.stack([examples[int(i)]["inputs"] for i in numbers])
    return {"model_inputs": inputs, "model_forecast": np.asarray(trained(inputs))}


def hash_of(config: Mapping[str, Any]) -> str:
    """SHA-256 of a config of plain values."""
    return config_hash(ml_collections.ConfigDict(dict(config)))


def follows(recipe: Recipe, held: archive_lib.Archive) -> bool:
    """Whether a model was trained with the config of its recipe.

    Fields that have been added to configs since then have their defaults, and an
    empty one is what it stands for.
    """
    setting = chosen(recipe, held.metadata["facts"].get("validation", {}))
    is_whole = held.metadata["config_hash"] == hash_of(held.config)
    now, then = (
        explicit(completed(config)).to_dict()
        for config in (
            recipe.configure(setting),
            ml_collections.ConfigDict(dict(held.config)),
        )
    )
    return is_whole and hash_of(now) == hash_of(then)


def command(name: str, recipe: Recipe) -> str:
    """The command that makes a model again."""
    file = f" --{recipe.option}={recipe.file}" if recipe.file else ""
    return f"python experiments/shipped_models.py --only={name}{file}"


def problems(name: str, recipe: Recipe) -> list[str]:
    """What is wrong with the file of a model; empty if it is what the recipe says."""
    path = pretrained.path(name)
    if not path.exists():
        return [f"{path} does not exist"]
    found = []
    if path.stat().st_size > MOST_BYTES:
        found.append(f"{path} has {path.stat().st_size} bytes, more than {MOST_BYTES}")
    held = archive_lib.read(path)
    if not follows(recipe, held):
        found.append(f"{path} holds another config than its recipe; make it again")
    if held.metadata["card"] != card(name, recipe, held.metadata):
        found.append(f"{path} holds another card than its recipe; make it again")
    test = held.self_test or {}
    error = np.abs(ef.load(name)(test["model_inputs"]) - test["model_forecast"]).max()
    if not error < TOLERANCE:
        found.append(f"{path}: its forecast differs by {error:.2g} from the stored one")
    return found


def page() -> str:
    """docs/pretrained.md: the cards in the files."""
    files = [archive_lib.read(pretrained.path(name)) for name in RECIPES]
    return "\n".join([INTRODUCTION, *(file.metadata["card"] for file in files)])


def card(name: str, recipe: Recipe, metadata: Mapping[str, Any]) -> str:
    """The card of a model, in Markdown.

    Args:
        name: of the model.
        recipe: how it is made.
        metadata: of its file.
    """
    facts, data = metadata["facts"], metadata["data"]
    heads = [score.heading for score in recipe.scores]
    rows = ["| | " + " | ".join(heads) + " |", "| --- " * (len(heads) + 1) + "|"]
    for name_of, label in LABELS.items():
        if name_of in facts["scores"][heads[0]]:
            cells = [
                shown(facts["scores"][score.heading][name_of], score.decimals)
                for score in recipe.scores
            ]
            rows.append(f"| {label} | " + " | ".join(cells) + " |")
    judged = [score for score in recipe.scores if score.judged]
    use = ["```bash", recipe.use, "```", ""] if recipe.use else []
    return "\n".join(
        [
            f"## {recipe.title}: `{name}`",
            "",
            *use,
            f"**Data.** {recipe.data}",
            "",
            f"**Split.** {data}.",
            "",
            "**Scores on test** (in brackets the central 95 % of bootstrap samples):",
            "",
            *rows,
            "",
            "The model is, by",
            "",
            *(verdict(score, facts["ahead"][score.heading]) for score in judged),
            "",
            f"**Limits.** {recipe.limits}",
            "",
            f"**Made by** `{command(name, recipe)}`: an Earthformer of "
            f"{facts['parameters']:,} parameters after {metadata['step']:,} steps, one "
            f"seed; SHA-256 of the config `{metadata['config_hash'][:16]}…`.",
            *choice(recipe, facts),
            "",
        ]
    )


def shown(value: list[float], decimals: int) -> str:
    """ "0.52 (0.41 to 0.63)"."""
    point, low, high = (f"{x:.{decimals}f}".replace("-", "−") for x in value)
    return f"{point} ({low} to {high})"


def verdict(score: Score, ahead: Mapping[str, list[float]]) -> str:
    """A sentence: is the model better than the references?"""
    said = []
    for name, label in LABELS.items():
        if name not in ahead:
            continue
        gain, low, high = ahead[name]
        if low > 0:
            said.append(f"better than {label} by {shown(ahead[name], score.decimals)}")
        elif high < 0:
            by = shown([-gain, -high, -low], score.decimals)
            said.append(f"worse than {label} by {by}")
        else:
            by = shown(ahead[name], score.decimals)
            said.append(f"as good as {label} within the interval (gain {by})")
    return f"- {score.heading}: {'; '.join(said)}"


INTRODUCTION = """# Models in the package

Three small models come with the package, each a file of less than 2 MB, so that a
first forecast needs no training:

```python
import earthformer_jax as ef

model = ef.load("nbody-mnist")
forecast = model(model.data.test[0]["inputs"][None])
```

They show how the package is used, and a training can begin with their weights
(`--init_from`). They are as good as minutes on two CPU cores allow; each card says
where a simple reference is better. A file holds weights, config, statistics of the
training data, the card, and a few inputs with their forecast.
`python experiments/shipped_models.py` makes files and page; with `--check` it compares
them with what it would make.
"""


def main() -> None:
    """Makes the models that are asked for, or checks all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", default="runs/shipped", type=pathlib.Path)
    parser.add_argument("--only", default="", help="names, separated by commas")
    parser.add_argument("--sst", default="", help="the file of enso-sst")
    parser.add_argument("--page", action="store_true", help="write the page only")
    parser.add_argument("--check", action="store_true", help="write nothing")
    given = parser.parse_args()
    wanted = given.only.split(",") if given.only else list(RECIPES)
    if unknown := set(wanted) - set(RECIPES):
        parser.error(f"--only: unknown {sorted(unknown)}; known: {', '.join(RECIPES)}")
    if given.check:
        found = [line for name in wanted for line in problems(name, RECIPES[name])]
        if PAGE.read_text() != page():
            found.append(f"{PAGE} differs from the cards; run --page")
        raise SystemExit("\n".join(found) or 0)
    for name in [] if given.page else wanted:
        path = getattr(given, RECIPES[name].option, "")
        if RECIPES[name].file and not path:
            parser.error(f"{name} needs --{RECIPES[name].option}=FILE")
        make(name, RECIPES[name], path, given.workdir)
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
