"""Global attributes of forecasts: what they are, and which model made them."""

import contextlib
import datetime
import hashlib
from importlib import metadata
from typing import Protocol

import ml_collections

from earthformer_jax.data.forecasting.beginnings import Beginnings
from earthformer_jax.data.readers import times
from earthformer_jax.data.state import DataState
from earthformer_jax.models.contract import Forecaster, Variables
from earthformer_jax.run.config import model_label
from earthformer_jax.run.forecasting import members as members_lib
from earthformer_jax.training.workdir import config_hash

REFERENCES = {"earthformer": "Gao et al. 2022, https://arxiv.org/abs/2207.05833"}


class Trained(Protocol):
    """What is used here of a trained model (`run.trained.TrainedModel`)."""

    @property
    def config(self) -> ml_collections.ConfigDict: ...
    @property
    def state(self) -> DataState | None: ...
    @property
    def step(self) -> int: ...
    @property
    def model(self) -> Forecaster: ...
    @property
    def variables(self) -> Variables: ...


def describe(trained: Trained, found: Beginnings, members: int = 0) -> dict[str, str]:
    """Attributes of the forecasts that a model makes.

    Args:
        trained: the model.
        found: what the forecasts begin from.
        members: number of members of each forecast; 0: the one best forecast.

    Returns:
        `title`, `source`, `history` and, where known, `references` of CF; the version
        of the package, a hash of the config, the training data with their period and
        fingerprint; `input_notes`: how the input was changed to fit the training; and,
        of members, how many there are, where they come from, and whether their spread
        was scaled.
    """
    state, model = trained.state, trained.config.model.name
    assert state is not None
    number = package_version()
    version = f"earthformer_jax {number}".strip()
    after = f" after {trained.step} training steps" if trained.step else ""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    made = {
        "title": "Forecast of " + ", ".join(x.name for x in found.variables),
        "source": f"{model_label(trained.config)} of {version}{after}",
        "history": f"{now} {version}: forecast from {found.label}",
        "references": REFERENCES.get(model, ""),
        "earthformer_jax_version": number,
        "config_hash": config_hash(trained.config),
        "training_data": state.description,
        "training_period": _training_period(state),
        "data_fingerprint": fingerprint(state),
        "input_notes": "; ".join(found.notes),
    }
    if members:
        made |= members_lib.describe(trained.model, trained.variables, members)
    return {name: text for name, text in made.items() if text}


def fingerprint(state: DataState) -> str:
    """SHA-256 in hexadecimal of the checksums of all splits; "" if there are none."""
    if not state.checksums:
        return ""
    digest = hashlib.sha256()
    for split in sorted(state.checksums):
        digest.update(f"{split}:".encode())
        digest.update(state.checksums[split].astype("<u8").tobytes())
    return digest.hexdigest()


def package_version() -> str:
    """Of the installed package; "" for a copy that is not installed."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version("earthformer-jax")
    return ""


def _training_period(state: DataState) -> str:
    if "train" not in state.minutes:
        return ""
    return "..".join(times.text(minute) for minute in state.minutes["train"])
