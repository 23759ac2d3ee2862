"""A trained model as one file that others can use: with this package, or only JAX."""

import datetime
import functools
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import jax.typing
import numpy as np
import pandas as pd

from earthformer_jax import data
from earthformer_jax.data.forecasting.encoding import Encoding
from earthformer_jax.data.readers import times
from earthformer_jax.data.state import DataState
from earthformer_jax.forecast import archive, physical
from earthformer_jax.forecast import program as program_lib
from earthformer_jax.forecast.archive import Archive
from earthformer_jax.models.contract import Forecaster, Variables
from earthformer_jax.models.ensemble import Ensemble
from earthformer_jax.models.hybrid import Hybrid
from earthformer_jax.models.probabilistic import Probabilistic
from earthformer_jax.ops.derivatives import forward_mode
from earthformer_jax.ops.tuned.native import library
from earthformer_jax.run.command_line import as_config_error
from earthformer_jax.run.config import model_label
from earthformer_jax.run.forecasting import attributes, making
from earthformer_jax.run.forecasting import members as members_lib
from earthformer_jax.settings import ConfigError
from earthformer_jax.training.workdir import config_hash, to_json

# Times of the self-test: months apart, so that the season changes.
FIRST_MINUTE, STEP = 15_778_080, 30 * times.DAY  # from 2000-01-01


class Trained(making.Trained, Protocol):
    """What is used here of a trained model (`run.trained.TrainedModel`)."""

    @property
    def complete(self) -> bool: ...
    @property
    def card(self) -> str: ...
    def apply(
        self,
        inputs: jax.typing.ArrayLike,
        minutes: jax.typing.ArrayLike | None = None,
        members: int | None = None,
    ) -> jax.Array: ...


def export(
    trained: Trained,
    path: str | os.PathLike[str],
    *,
    program: bool = True,
    card: str | None = None,
    overwrite: bool = False,
) -> pathlib.Path:
    """Writes a model into one file, completely or not at all.

    Args:
        trained: the model.
        path: of the file, which ends in ".efx".
        program: add the program that runs without this package, and a self-test of it.
            The model is compiled once for this.
        card: a text for the users of the model: data and their terms, scores, limits;
            None: the one it has.
        overwrite: replace an existing file.

    Returns:
        the file.

    Raises:
        ConfigError: if the file exists, its name has another ending, the workdir is of
            an earlier version that did not keep the state of its data, or physical
            units are not known.
        OSError: if it cannot be written.
    """
    path = pathlib.Path(path).expanduser()
    if path.suffix != archive.SUFFIX:
        raise ConfigError(
            f"{path}: an exported model is a file that ends in {archive.SUFFIX}"
        )
    if path.exists() and not overwrite:
        raise ConfigError(
            f"{path} exists; choose another --output, or replace it with --overwrite"
        )
    archive.write(path, pack(trained, program=program, card=card))
    return path


def pack(trained: Trained, *, program: bool = True, card: str | None = None) -> Archive:
    """What `export` writes.

    Raises:
        ConfigError: as `export`.
    """
    state = making.known_state(trained)
    card = trained.card if card is None else card
    config = json.loads(to_json(trained.config))
    model = _portable(trained.model, config)
    with as_config_error(f"data {config['data']['name']!r}"):
        encoding = data.encoding(trained.config.data, state)
    programs, self_test = {}, None
    if program:
        self_test = _self_test(trained, encoding, state)
        programs = _programs(model, trained.variables, encoding, state)
    return Archive(
        config=config,
        state=state,
        variables=trained.variables,
        metadata=_describe(trained, state, encoding, program)
        | ({"card": card} if card else {}),
        self_test=self_test,
        **programs,
    )


def _portable(model: Forecaster, config: dict[str, Any]) -> Forecaster:
    """The model without what only runs on some devices; the config is changed, too."""
    if config["model"].get("attn_implementation") != "cudnn":
        return model
    config["model"]["attn_implementation"] = "xla"  # with the same parameters
    return _without_cudnn(model)


def _without_cudnn(model: Forecaster) -> Forecaster:
    if isinstance(model, Ensemble):
        return model.clone(member=_without_cudnn(model.member))
    if isinstance(model, Hybrid | Probabilistic):
        return model.clone(network=_without_cudnn(model.network))
    return model.clone(attn_implementation="xla")  # pyright: ignore


def _programs(
    model: Forecaster, variables: Variables, encoding: Encoding, state: DataState
) -> dict[str, bytes]:
    """The model, and its members if it has any, as StableHLO with weights by name."""
    types = jax.tree.map(lambda x: x.dtype, variables)
    weights = archive.flatten(variables)
    t, h, w, _ = state.input_shape
    shape = encoding.before + t, h, w, len(encoding.scale)
    steps = state.target_shape[0]

    def exported(forecast: Callable[..., Any], **options: bool) -> bytes:
        def apply(weights: Mapping[str, jax.Array], *arguments: jax.Array) -> Any:
            given = {"params": {}} | archive.unflatten(weights)
            given = jax.tree.map(lambda dtype, x: x.astype(dtype), types, given)
            with library.without():  # functions in C++ are of this machine alone
                return forecast(given, *arguments)

        def elsewhere(weights: Mapping[str, jax.Array], *arguments: jax.Array) -> Any:
            with forward_mode():  # functions that are not tuned for the device at hand
                return apply(weights, *arguments)

        return program_lib.export(
            apply, elsewhere, encoding, weights, shape, steps, **options
        )

    def several(given: Variables, inputs: jax.Array, seen: jax.Array, first: jax.Array):
        return members_lib.begin(model, given, inputs, count, first, seen)

    best = functools.partial(members_lib.best, model)
    draws = members_lib.draws_any(model)
    made = {"program": exported(best, draws=draws)}
    if count := members_lib.number_in_program(model):
        made["members"] = exported(several, members=True)
    return made


def _self_test(
    trained: Trained, encoding: Encoding, state: DataState
) -> dict[str, np.ndarray]:
    """Inputs with gaps, their times if needed, and what this package forecasts."""
    t, h, w, _ = state.input_shape
    t += encoding.before
    count = t + state.target_shape[0]
    every = FIRST_MINUTE + STEP * np.arange(count, dtype=np.int32)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, t, h, w, len(encoding.scale))).astype(np.float32)
    minutes = every[None] if encoding.needs_minutes else None
    seen = None if minutes is None else jnp.asarray(minutes[:, :t])
    inputs = np.array(physical.decode(encoding, jnp.asarray(x), seen))
    inputs[rng.random(inputs.shape) < 0.05] = np.nan
    forecast = np.asarray(trained.apply(inputs, minutes))
    found = {"inputs": inputs, "forecast": forecast}
    if count := members_lib.number_in_program(trained.model):
        found["members"] = np.asarray(trained.apply(inputs, minutes, count))
    return found if minutes is None else found | {"minutes": minutes}


def _describe(
    trained: Trained, state: DataState, encoding: Encoding, program: bool
) -> dict[str, Any]:
    """Facts about a model, in plain values."""
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    channels, units = state.layout.channels, state.layout.units
    (t, h, w, _), (k, *_) = state.input_shape, state.target_shape
    c = encoding.targets
    t += encoding.before
    described: dict[str, Any] = {
        "earthformer_jax": attributes.package_version(),
        "jax": jax.__version__,
        "created": now.isoformat(),
        "config_hash": config_hash(trained.config),
        "model": model_label(trained.config),
        "step": trained.step,
        "complete": trained.complete,
        "data": state.description,
        "data_fingerprint": attributes.fingerprint(state),
        "frame": state.layout.frame,
        "inputs": {
            "shape": ["batch", t, h, w, len(encoding.scale)],
            "channels": channels,
            "units": units,
        },
        "forecast": {
            "shape": ["batch", k, h, w, c],
            "channels": channels[:c],
            "units": units[:c],
        },
    }
    if encoding.needs_minutes:
        described["minutes"] = {
            "shape": ["batch", t + k],
            "meaning": "times of inputs and forecast since 1970-01-01 00:00 UTC",
        }
    if "train" in state.minutes:
        described["training_period"] = [times.text(m) for m in state.minutes["train"]]
    if program and (count := members_lib.number_in_program(trained.model)):
        described["members"] = {
            "shape": [count, "batch", k, h, w, c],
            "first": "number of the first of them, from 0: the last argument, int32",
        }
    if program:
        until = pd.Timestamp(now) + pd.DateOffset(months=program_lib.MONTHS)
        described["program"] = {
            "platforms": program_lib.PLATFORMS,
            "runs_with_jax_until": f"{until:%Y-%m-%d}",
            "self_test_made_on": jax.default_backend(),
        }
    return described
