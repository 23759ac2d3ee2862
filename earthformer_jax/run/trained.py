"""A trained model as a function, and how it is read from a workdir."""

import contextlib
import dataclasses
import functools
import math
import os
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.typing
import ml_collections
import xarray as xr

from earthformer_jax import data
from earthformer_jax.checks import check_value
from earthformer_jax.data.dataset import Data, Dataset
from earthformer_jax.data.forecasting.encoding import Encoding
from earthformer_jax.data.state import DataState
from earthformer_jax.forecast import physical
from earthformer_jax.forecast.chunks import Members
from earthformer_jax.models import probabilistic
from earthformer_jax.models.contract import Forecaster, Variables
from earthformer_jax.run.command_line import as_config_error
from earthformer_jax.run.forecasting import exporting, making
from earthformer_jax.run.forecasting import members as members_lib
from earthformer_jax.run.parts import check_model, make_model
from earthformer_jax.run.programs.kept import Programs
from earthformer_jax.settings import ConfigError
from earthformer_jax.training import mesh as mesh_lib
from earthformer_jax.training.checkpoint import Checkpoints, UnreadableError
from earthformer_jax.training.plan import make_plan
from earthformer_jax.training.precision import policy
from earthformer_jax.training.settings import from_config


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedModel:
    """A model with the variables of a checkpoint: a function from inputs to forecasts.

    It can be composed with `jax.jit`, `jax.vmap` and `jax.grad` like any function.

    Attributes:
        model: the forecaster, a Flax module.
        variables: {"params": ...}, with "batch_stats" if the model has any. These are
            the averaged parameters if training kept an average.
        config: the whole config it was trained with.
        state: what the workdir keeps of the data it was trained on: channels, units,
            grid, periods, statistics. None in workdirs of earlier versions.
        open_dataset: returns the data set of the config; it is called on first use of
            `data`.
        step: number of optimiser steps after which the variables were saved.
        complete: False if training was interrupted; the same call resumes it.
        card: a text for the users of the model, from the file it was exported into.
        programs: where the programs of its forecasts are kept from process to process;
            None: they are compiled in each.
    """

    model: Forecaster
    variables: Variables
    config: ml_collections.ConfigDict
    state: DataState | None
    open_dataset: Callable[[], Dataset]
    step: int
    complete: bool
    card: str = ""
    programs: Programs | None = None

    @functools.cached_property
    def data(self) -> Data:
        """Examples of every split, coordinates, and the conversion between model units
        and physical ones (`normalization`). Reads the files of the config.
        """
        return self.open_dataset().data

    @functools.cached_property
    def input_shape(self) -> tuple[int, ...]:
        """Shape (t, h, w, c) of the inputs of one forecast."""
        if self.state is not None:
            return self.state.input_shape
        return self.data.example()["inputs"].shape

    @functools.cached_property
    def target_shape(self) -> tuple[int, ...]:
        """Shape (k, h, w, c) of one forecast."""
        if self.state is not None:
            return self.state.target_shape
        return self.data.example()["targets"].shape

    @policy.with_products
    def __call__(
        self, inputs: jax.typing.ArrayLike, members: int | None = None
    ) -> jax.Array:
        """Forecasts from inputs; compiled once for each batch size.

        Args:
            inputs: `[b, t, h, w, c]` in the units the model sees, as in
                `data.test[0]["inputs"]`, without NaN.
            members: n members of each forecast, of models that draw and of trained
                ensembles. The first ones of any larger number are the same. None: the
                one best forecast.

        Returns:
            `[b, k, h, w, c]`, float32, in the units of the targets; with `members`
            `[n, b, k, h, w, c]`.

        Raises:
            ConfigError: if the model has fewer members.
            ValueError: if the inputs differ in shape from those it was trained on.
        """
        inputs = jnp.asarray(inputs, jnp.float32)
        if inputs.ndim != 5 or not len(inputs) or inputs.shape[1:] != self.input_shape:
            raise ValueError(
                f"inputs have the shape {inputs.shape}; expected (batch, "
                f"{', '.join(map(str, self.input_shape))}): "
                "(batch, time, height, width, channel)"
            )
        if members is not None:
            return self._with_members(self.variables, inputs, self._checked(members))
        return self._compiled(self.variables, inputs)

    @policy.with_products
    def apply(
        self,
        inputs: jax.typing.ArrayLike,
        minutes: jax.typing.ArrayLike | None = None,
        members: int | None = None,
    ) -> jax.Array:
        """Forecasts from physical fields; a pure function, in jit, vmap and grad.

        Args:
            inputs: `[b, t, h, w, c]` in the units of the data (`state.layout` has the
                channels and their units), NaN where missing. Models of El Niño with
                `data.memory` also need the 36 months before those they were trained on.
            minutes: whole minutes since 1970-01-01 UTC, of the inputs `[b, t]` or of
                inputs and forecast `[b, t + k]`; needed only where the model knows the
                season, or a climatology is removed.
            members: as in calls of the model itself.

        Returns:
            `[b, k, h, w, c]`, float32, of the target channels in their units; NaN where
            nothing was observed in the training. With `members` `[n, b, k, h, w, c]`.

        Raises:
            ConfigError: if physical units are not known, or the model has fewer
                members.
            ValueError: if a shape differs from that of the training, or times are
                needed and not given.
        """
        frames, given = self.input_shape[0], jnp.shape(inputs)[1:2]
        before = self._encoding.before
        if given and given != (before + frames,):
            more = f", and remembers the {before} before them" if before else ""
            raise ValueError(
                f"inputs have {given[0]} frames; the model was trained on {frames}"
                f"{more}"
            )
        if members is None:
            return self._physical(self.variables, inputs, minutes)
        count = self._checked(members)
        forecast = physical.drawn(
            lambda variables, x, seen: self._with_members(variables, x, count, seen),
            self._encoding,
        )
        return forecast(self.variables, inputs, minutes)

    def ensemble(self, count: int, windows: int) -> Members:
        """The members of its forecasts, part by part, for `forecast.chunks`.

        Args:
            count: number of members.
            windows: most of them at once.

        Raises:
            ConfigError: if the model has fewer members.
        """
        values = math.prod(self.target_shape)
        return self._members.of(self._checked(count), windows, values)

    def forecast(
        self,
        source: making.Source | None = None,
        start: object = "last",
        steps: int | None = None,
        members: int | None = None,
        *,
        anomalies: bool = False,
        allow_other_grid: bool = False,
    ) -> xr.Dataset:
        """Forecasts what comes after frames of a series, in its units.

        Args:
            source: a path, a pattern ("today/*.nc"), or fields with their coordinates,
                as in training; None: the files of the config.
            start: "last": from the latest frames; a date: that of the last input frame;
                "all": every forecast that the series allows.
            steps: number of frames; None: as many as the model was trained on. More
                are made by feeding its forecasts back (roll-out).
            members: number of members of each forecast, of models that draw and of
                trained ensembles; in a roll-out each continues from its own frames.
                None: the one best forecast.
            anomalies: also give departures from the climatology of the training.
            allow_other_grid: accept fields with other rows and columns than in the
                training, if the weights of the model do not depend on their number.

        Returns:
            the forecast with its times, coordinates and attributes, as in the files of
            `--mode=forecast`.

        Raises:
            ConfigError: if the series does not fit the training, lacks what is needed
                to forecast, or cannot be fed back, or the model has fewer members; the
                message says what differs.
        """
        wanted = making.request(
            source,
            start,
            steps=steps,
            members=members,
            anomalies=anomalies,
            allow_other_grid=allow_other_grid,
        )
        return making.to_dataset(self, wanted)

    def hindcast(
        self,
        source: making.Source | None = None,
        start: object = "all",
        stop: object = None,
        every: int = 1,
        *,
        steps: int | None = None,
        members: int | None = None,
        anomalies: bool = False,
        allow_other_grid: bool = False,
    ) -> xr.Dataset:
        """Forecasts from many times of a series, in its units.

        Args:
            source: as for `forecast`.
            start: date of the first forecast, that of its last input frame; "last":
                the latest frames; "all": every forecast that the series allows.
            stop: date of the last forecast; a year or a month is used to its end.
                None: that of `start`.
            every: use every n-th start.
            steps, members, anomalies, allow_other_grid: as for `forecast`.

        Returns:
            the forecasts, by `forecast_reference_time` and `lead_time`.

        Raises:
            ConfigError: as `forecast`.
        """
        if stop is None and start not in ("all", "last"):
            stop = start
        wanted = making.request(
            source,
            start,
            stop,
            every,
            several=True,
            steps=steps,
            members=members,
            anomalies=anomalies,
            allow_other_grid=allow_other_grid,
        )
        return making.to_dataset(self, wanted)

    @policy.with_products
    def export(
        self,
        path: str | os.PathLike[str],
        *,
        program: bool = True,
        card: str | None = None,
        overwrite: bool = False,
    ) -> pathlib.Path:
        """Writes the model into one file, completely or not at all.

        Args:
            path: of the file, which ends in ".efx".
            program: add the program that runs without this package, and a self-test of
                it. The model is compiled once for this.
            card: a text for the users of the model; None: the one it has.
            overwrite: replace an existing file.

        Returns:
            the file.

        Raises:
            ConfigError: if the file exists, its name has another ending, or physical
                units are not known.
            OSError: if it cannot be written.
        """
        return exporting.export(
            self, path, program=program, card=card, overwrite=overwrite
        )

    def resized(self, size: tuple[int, int]) -> "TrainedModel":
        """The same weights in a model for fields of another size.

        Args:
            size: rows and columns.

        Raises:
            ConfigError: if the model cannot have this size, or its weights depend on
                the size.
        """
        if size == self.input_shape[1:3]:
            return self
        shapes = [
            (shape[0], *size, shape[-1])
            for shape in (self.input_shape, self.target_shape)
        ]
        model = make_model(self.config, *shapes)
        wanted = check_model(self.config, model, *shapes)
        variables = probabilistic.of_size(self.variables, size)
        here, there = (
            {jax.tree_util.keystr(path): x.shape for path, x in leaves}
            for leaves in map(jax.tree_util.tree_leaves_with_path, (variables, wanted))
        )
        if here != there:
            name = min(n for n in {*here, *there} if here.get(n) != there.get(n))
            trained, now = (
                " x ".join(map(str, s)) for s in (self.input_shape[1:3], size)
            )
            raise ConfigError(
                f"model {self.config.model.name!r} was trained on {trained} cells, and "
                f"its weights depend on that, so that it cannot forecast {now}: "
                f"{name} would have the shape {there.get(name)} instead of "
                f"{here.get(name)}"
            )
        state = self.state and dataclasses.replace(
            self.state, input_shape=shapes[0], target_shape=shapes[1]
        )
        return dataclasses.replace(self, model=model, variables=variables, state=state)

    @functools.cached_property
    def _encoding(self) -> Encoding:
        state = making.known_state(self)
        with as_config_error(f"data {self.config.data.name!r}"):
            return data.encoding(self.config.data, state)

    @functools.cached_property
    def _physical(self) -> physical.Forecast:
        if not members_lib.draws_any(self.model):
            return physical.physical(self._compiled, self._encoding)
        best = jax.jit(functools.partial(members_lib.best, self.model))
        return physical.drawn(best, self._encoding)

    def _checked(self, count: int) -> int:
        """A number of members that the model has.

        Raises:
            ConfigError: if it is another one.
        """
        with as_config_error("forecast"):
            count = making.plain(count)
            check_value("members", count, members_lib.NUMBER)
        members_lib.check(self.model, count)
        return count

    @functools.cached_property
    def _members(self) -> members_lib.Compiled:
        if self.programs is None:
            return members_lib.Compiled(self.model, self.variables)
        return members_lib.Compiled(self.model, self.variables, self.programs.compiled)

    @functools.cached_property
    def _with_members(self):
        def forecast(variables, inputs, count: int, seen=None):
            values = math.prod(self.target_shape)
            return members_lib.in_parts(
                self.model, variables, inputs, count, values, seen
            )

        return jax.jit(forecast, static_argnums=2)

    @functools.cached_property
    def _compiled(self):
        apply = functools.partial(self.model.apply, train=False)
        if self.programs is None:
            return jax.jit(apply)
        return self.programs.compiled(self.model, "forecast", apply)


def restore(
    config: ml_collections.ConfigDict,
    checkpoints: Checkpoints,
    *,
    open_dataset: Callable[[], Dataset],
    state: DataState | None,
    model: Forecaster,
    like: Variables,
    programs: Programs | None = None,
) -> TrainedModel:
    """Reads the checkpoint selected by `config.eval.checkpoint`.

    Args:
        config: the whole config.
        checkpoints: of a workdir; not read if the model has no parameters.
        open_dataset: returns the data set of the config.
        state: what the workdir keeps of the data it was trained on.
        model: the forecaster.
        like: shapes and types of its variables.
        programs: where the programs of its forecasts are kept.

    Raises:
        CheckpointError: if no checkpoint can be used.
    """
    trained = functools.partial(
        TrainedModel,
        model=model,
        config=config,
        state=state,
        open_dataset=open_dataset,
        programs=programs,
    )
    if not like["params"]:
        return trained(variables={"params": {}}, step=0, complete=True)
    everywhere = mesh_lib.replicated(mesh_lib.data_mesh())
    variables, progress = checkpoints.restore_variables(
        config.eval.checkpoint, mesh_lib.abstract(like, everywhere)
    )
    complete = False
    with contextlib.suppress(UnreadableError):
        newest = checkpoints.progress(checkpoints.steps()[-1])
        if state is not None:
            examples = state.examples["train"]
        else:
            examples = len(open_dataset().data.train)
        plan = make_plan(from_config(config).train, examples)
        complete = plan.is_complete(newest)
    return trained(
        variables=jax.device_put(jax.device_get(variables)),
        step=progress.step,
        complete=complete,
    )
