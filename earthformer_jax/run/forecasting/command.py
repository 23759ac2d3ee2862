"""--mode=forecast and --mode=export: their flags, and what they do."""

import contextlib
import dataclasses
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator

import tqdm
from absl import flags

from earthformer_jax.forecast.chunks import Chunk
from earthformer_jax.forecast.outline import Outline
from earthformer_jax.models.contract import Forecaster
from earthformer_jax.run.forecasting import (
    exporting,
    figures,
    making,
    members,
    watching,
)
from earthformer_jax.run.trained import TrainedModel
from earthformer_jax.settings import ConfigError
from earthformer_jax.training import signals

flags.disclaim_key_flags()  # --help names the command that calls `define`

# The modes in which each flag has a meaning.
_MODES = {
    "input": ("forecast",),
    "output": ("forecast", "export", "compare", "plan"),
    "plan_devices": ("plan",),
    "profile": ("train",),
    "workdirs": ("compare",),
    "start": ("forecast",),
    "stop": ("forecast",),
    "every": ("forecast",),
    "steps": ("forecast",),
    "members": ("forecast", "evaluate"),
    "anomalies": ("forecast",),
    "pack": ("forecast",),
    "allow_other_grid": ("forecast",),
    "watch": ("forecast",),
    "interval": ("forecast",),
    "figures": ("forecast",),
    "overwrite": ("forecast", "export"),
    "model": ("forecast", "export"),
    "init_from": ("train",),
    "protocol": ("evaluate",),
}


def define(flag_values: flags.FlagValues) -> None:
    """Defines the flags, apart from --config, --workdir and --mode."""
    own = _Definitions(flag_values)
    _define_choice(own)
    _define_form(own)
    _define_shared(own)
    _define_others(own)


@dataclasses.dataclass(frozen=True)
class _Definitions:
    """Defines flags of three types in `flag_values`."""

    flag_values: flags.FlagValues

    def text(self, name: str, meaning: str, default: str | None = None) -> None:
        flags.DEFINE_string(name, default, meaning, flag_values=self.flag_values)

    def number(self, name: str, meaning: str, default: int | None = None) -> None:
        flags.DEFINE_integer(
            name, default, meaning, lower_bound=1, flag_values=self.flag_values
        )

    def switch(self, name: str, meaning: str, default: bool = False) -> None:
        flags.DEFINE_bool(name, default, meaning, flag_values=self.flag_values)


def _define_choice(own: _Definitions) -> None:
    """Which forecasts are made."""
    own.text(
        "input",
        "Forecast: a file, Zarr store or pattern ('today/*.nc') with the latest "
        "frames; default: the files of the config.",
    )
    own.text(
        "start",
        "Forecast: the last input frame, last or a date; all: every forecast that the "
        "input allows.",
        "last",
    )
    own.text(
        "stop",
        "Forecast: with a date as --start, all forecasts that begin up to this one.",
    )
    own.number("every", "Forecast: of several, use every n-th start.", 1)
    own.number(
        "steps",
        "Forecast: frames; default as in training. More are made by feeding forecasts "
        "back.",
    )
    own.switch(
        "allow_other_grid",
        "Forecast: let a model that can be used on other grids do so.",
    )


def _define_form(own: _Definitions) -> None:
    """What is written of forecasts, and when."""
    own.switch("anomalies", "Forecast: write departures from the mean cycle.")
    own.switch("pack", "Forecast: pack values into 16 bits.")
    own.switch("figures", "Forecast: draw the first forecast next to the file.", True)
    own.switch("watch", "Forecast: keep running, and forecast when new files appear.")
    flags.DEFINE_float(
        "interval",
        10.0,
        "Forecast with --watch: seconds from one look at the files to the next.",
        lower_bound=0.1,
        flag_values=own.flag_values,
    )


def _define_shared(own: _Definitions) -> None:
    """What several modes take, forecast among them."""
    own.text(
        "output",
        "Forecast: the file to write, .nc or .zarr, or an existing folder; default in "
        "WORKDIR/forecasts. Export: the file to write, .efx. Compare: the folder to "
        "write into; default comparison. Plan: the JSON file to write.",
    )
    own.number(
        "members",
        "Forecast, evaluate: members of every forecast, of models that draw and of "
        "trained ensembles.",
    )
    own.switch("overwrite", "Forecast, export: replace an existing file.")
    own.text(
        "model",
        "Forecast, export: a model that comes with the package, or an exported one, "
        "instead of --workdir.",
    )


def _define_others(own: _Definitions) -> None:
    """What only other modes take."""
    own.text(
        "workdirs",
        "Compare: workdirs of evaluated models, separated by commas; or the files "
        "sums-LABEL.nc or skill-LABEL.nc in them.",
    )
    own.text(
        "init_from",
        "Train: begin with the weights of a workdir, an exported model or a file of "
        "official weights; short for --config.train.init_from.",
    )
    own.text(
        "profile",
        "Train: START:STOP, the first and the last step to trace into WORKDIR/profile, "
        "for TensorBoard and Perfetto.",
    )
    own.text(
        "plan_devices",
        "Plan: devices to plan for, in place of those at hand: 8xH100, 2x4xA100-80GB "
        "(two hosts), v5e-8 or 4xCPU.",
    )
    own.text(
        "protocol",
        "Evaluate: a named protocol to score by (docs/protocols.md), into "
        "scores-NAME.json; for a training set --config.data.protocol.",
    )


def check(flag_values: flags.FlagValues, mode: str) -> None:
    """Rejects flags that have no meaning in a mode.

    Raises:
        ConfigError: naming the first one.
    """
    for name, modes in _MODES.items():
        if flag_values[name].present and mode not in modes:
            if (name, mode) == ("protocol", "train"):
                raise ConfigError(
                    "--protocol needs --mode=evaluate; to train by a protocol, use "
                    f"--config.data.protocol={flag_values.protocol}"
                )
            raise ConfigError(f"--{name} needs --mode={' or --mode='.join(modes)}")
    if flag_values["interval"].present and not flag_values.watch:
        raise ConfigError("--interval needs --watch")


def check_scored(model: Forecaster, count: int) -> None:
    """Refuses a number of members to score that a model does not draw.

    Raises:
        ConfigError: with the reason.
    """
    members.check(model, count)
    if count == 1:
        raise ConfigError(
            "--members=1: a single member has no spread to score; use at least 2, or "
            "leave it out"
        )
    if not members.draws_any(model):
        raise ConfigError(
            f"--members={count}: only models that draw are scored with a number of "
            "members; leave it out (of an ensemble, all trained members are scored)"
        )


def forecast(
    trained: TrainedModel, folder: pathlib.Path, flag_values: flags.FlagValues
) -> None:
    """Forecasts as the flags say; with --watch, until a signal ends the program.

    Args:
        trained: the model.
        folder: for files that --output does not name.
        flag_values: parsed flags.

    Raises:
        ConfigError: if they cannot be made.
        OSError: if a file cannot be written.
    """
    source = flag_values.input and os.path.expanduser(flag_values.input)
    wanted = making.request(
        source,
        flag_values.start,
        flag_values.stop,
        flag_values.every,
        steps=flag_values.steps,
        members=flag_values.members,
        anomalies=flag_values.anomalies,
        packed=flag_values.pack,
        allow_other_grid=flag_values.allow_other_grid,
    )
    output = flag_values.output and os.path.expanduser(flag_values.output)

    def written(path: pathlib.Path, outline: Outline) -> None:
        print(f"forecast written: {path}", flush=True)
        for figure in figures.draw(path, outline) if flag_values.figures else ():
            print(f"figure: {figure}", flush=True)

    if flag_values.watch:
        watching.watch(
            trained,
            wanted,
            output,
            folder,
            interval=flag_values.interval,
            overwrite=flag_values.overwrite,
            written=written,
            shown=shown,
        )
    making.write(
        trained,
        wanted,
        output,
        folder,
        existing="replace" if flag_values.overwrite else "refuse",
        shown=shown,
        written=written,
    )


def export(trained: TrainedModel, flag_values: flags.FlagValues) -> None:
    """Exports a model as the flags say.

    Raises:
        ConfigError: if it cannot be exported.
        OSError: if the file cannot be written.
    """
    if flag_values.output is None:
        raise ConfigError("--output is missing, e.g. --output=model.efx")
    path = exporting.export(
        trained, flag_values.output, overwrite=flag_values.overwrite
    )
    print(f"model written: {path}", flush=True)


def shown(made: Iterable[Chunk], outline: Outline) -> Iterator[Chunk]:
    """The same chunks; a bar on the terminal counts the frames.

    Raises:
        Stopped: when a signal asks for it, so that what was begun is removed.
    """
    chunks = iter(made)
    total = len(outline.beginnings.last) * max(outline.members, 1) * outline.steps
    with (
        contextlib.ExitStack() as handlers,
        tqdm.tqdm(
            total=total,
            unit="frame",
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
        ) as bar,
    ):
        stop = handlers.enter_context(signals.StopRequest())
        try:
            while (chunk := stop.wait(next, chunks, None)) is not None:
                yield chunk
                members = chunk.values.shape[1] if outline.members else 1
                bar.update(len(chunk.filled) * members * chunk.values.shape[-4])
        except signals.Stopped:
            # The handlers stay: with those of before, the program would end before
            # what was begun is removed.
            handlers.pop_all()
            raise
