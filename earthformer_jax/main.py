"""The command line: one config, one workdir.

python -m earthformer_jax.main --config=configs/enso.py:quick --workdir=runs/quick
python -m earthformer_jax.main --workdir=runs/quick --mode=evaluate
python -m earthformer_jax.main --config=configs/enso.py:quick --mode=summary
python -m earthformer_jax.main --mode=summary --all

Any field can be changed: --config.optim.lr=3e-4. The same command continues a training
that was interrupted. The exit status is 0 when all is done, 143 after SIGTERM or Ctrl-C
(the last step is saved), 2 for a wrong input, 1 for a loss that is not finite.
"""

from earthformer_jax.run import cpu

if __name__ == "__main__":
    cpu.restart_with_huge_pages()

# ruff: noqa: E402
import functools
import logging
import os
import pathlib
import platform
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import ml_collections
from absl import app, flags
from jax.experimental import multihost_utils
from ml_collections import config_flags

from earthformer_jax import data, models
from earthformer_jax.profiling import summary
from earthformer_jax.reports import embedding, enso, frames
from earthformer_jax.run import command_line
from earthformer_jax.run import config as config_lib
from earthformer_jax.run.command_line import DONE, WRONG_INPUT, explained
from earthformer_jax.training import evaluation, loop
from earthformer_jax.training import mesh as mesh_lib
from earthformer_jax.training import workdir as workdir_lib
from earthformer_jax.training.checkpoint import CheckpointError, Checkpoints
from earthformer_jax.training.scalars import NonFiniteError

DIVERGED, STOPPED = 1, 143
REPORTS = {"enso": enso.score, "frames": frames.score, "embedding": embedding.score}

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "Config file, with a variant after a colon: configs/enso.py:quick; default the "
    "config of the workdir.",
    lock_config=True,
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder for all output; default runs/<config>-<variant>."
)
_MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "evaluate", "summary"],
    "Train and score, score only, or print what the model consists of and costs.",
)
_ALL = flags.DEFINE_bool(
    "all", False, "With --mode=summary: all models, at the sizes of the paper."
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Join a multi-process job (jax.distributed.initialize)."
)

logger = logging.getLogger(__name__)


def run(
    config: ml_collections.ConfigDict, workdir: pathlib.Path, mode: str = "train"
) -> int:
    """Trains and scores, or only scores.

    Args:
        config: the whole config.
        workdir: where everything is written.
        mode: "train" or "evaluate".

    Returns:
        The exit status.

    Raises:
        ConfigError: if the config, the data or the workdir cannot be used.
        CheckpointError: if there is no checkpoint that can be used.
        NonFiniteError: if training diverges.
    """
    config_lib.check(config)
    config_lib.check_devices(config, jax.device_count())
    if mode == "train":
        workdir_lib.check_same_config(config, workdir)
    else:
        workdir_lib.check_same_model(config, workdir)
    dataset, model = build(config)
    if mode == "train" and not loop.train(
        config, workdir, dataset=dataset, model=model
    ):
        return STOPPED
    evaluate(config, workdir, dataset=dataset, model=model)
    return DONE


def build(config: ml_collections.ConfigDict) -> tuple[Any, nn.Module]:
    """The data set and the model of a config.

    Raises:
        ConfigError: with the reason, if one of them cannot be made.
    """
    with explained(f"data {config.data.name!r}"):
        dataset = data.load(config.data, config.seed)
        example = dataset.example()
    options = dict(config.model)
    name = options.pop("name")
    with explained(f"model {name!r}"):
        model = models.create_model(
            name,
            input_shape=example["inputs"].shape,
            target_shape=example["targets"].shape,
            **options,
        )
    if dataset.report == "embedding" and not hasattr(model, "embed"):
        raise config_lib.ConfigError(
            f"config.model.name={name!r} has no embeddings; with config.data.out_len=0 "
            "(targets are the inputs) use 'conv_autoencoder'"
        )
    return dataset, model


def evaluate(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    *,
    dataset: Any,
    model: nn.Module,
) -> None:
    """Scores the best or last checkpoint of a workdir on the test split.

    Args:
        config: the whole config.
        workdir: with checkpoints; gets scores.json and figures.
        dataset: with a `test` split.
        model: the trained model.

    Raises:
        CheckpointError: if no checkpoint can be used.
        ConfigError: if the test split is empty.
    """
    if len(dataset.test) == 0:
        raise config_lib.ConfigError(f"the test split of {dataset.name!r} is empty")
    example = dataset.test[0]
    variables = loop.check_model(config, model, example)
    logger.info("data: %s", dataset.description)
    if variables["params"]:
        everywhere = mesh_lib.replicated(mesh_lib.data_mesh())
        variables, progress = Checkpoints(workdir / "checkpoints").restore_variables(
            config.eval.checkpoint, mesh_lib.abstract(variables, everywhere)
        )
        logger.info("scoring the checkpoint of step %d", progress.step)
    if jax.process_index() == 0:
        make = functools.partial(
            evaluation.make_forecaster,
            model,
            jax.device_get(variables),
            mesh_lib.data_mesh(jax.local_devices()),
        )
        report, more = REPORTS[dataset.report], {}
        if dataset.report == "embedding":
            more = dict(embed=make(method="embed"), clusters=config.eval.clusters)
        report(dataset, make(), workdir, config.eval.batch_size, **more)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("scored")


def summarize(config: ml_collections.ConfigDict) -> str:
    """Layers and costs of the model of a config.

    Raises:
        ConfigError: if the config, its data or its model cannot be used.
    """
    config_lib.check(config)
    dataset, model = build(config)
    example = dataset.example()
    shapes = example["inputs"].shape, example["targets"].shape
    return summary.describe(model, *shapes, f"{config.model.name} on {dataset.name}")


def cache_compilations() -> None:
    """Keeps compiled programs in the user's cache folder, if it can be written.

    JAX_COMPILATION_CACHE_DIR names another folder. Each machine has its own: code
    compiled for one CPU may not run on another that shares the home folder.
    """
    if jax.config.jax_compilation_cache_dir:
        return
    try:
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        folder = pathlib.Path(home, "earthformer_jax", "compiled", platform.node())
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, RuntimeError):  # RuntimeError: there is no home folder
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))


def _default_workdir(config_file: str) -> pathlib.Path:
    """runs/enso-quick for configs/enso.py:quick."""
    file, _, variant = config_file.partition(":")
    name = pathlib.Path(file).stem
    return pathlib.Path("runs", "-".join([name, *filter(None, variant.split(","))]))


def _choose() -> tuple[ml_collections.ConfigDict, pathlib.Path]:
    """Config and workdir from the flags, each the default of the other."""
    if _CONFIG.value is None and _WORKDIR.value is None:
        raise config_lib.ConfigError(
            "--config is missing, e.g. --config=configs/enso.py:quick"
        )
    if _CONFIG.value is None:
        workdir = pathlib.Path(_WORKDIR.value)
        return workdir_lib.read_config(workdir), workdir
    file = config_flags.get_config_filename(flags.FLAGS["config"])
    workdir = _WORKDIR.value or _default_workdir(file)
    return _CONFIG.value, pathlib.Path(workdir)


def _summary() -> str:
    """What --mode=summary prints."""
    if not _ALL.value:
        return summarize(_choose()[0])
    if _CONFIG.value is not None or _WORKDIR.value is not None:
        raise config_lib.ConfigError(
            "--all takes the sizes of the paper; leave out --config and --workdir"
        )
    with explained("--all"):
        return summary.zoo()


def _parse_flags(argv: Sequence[str]) -> list[str]:
    """Flags, with one line instead of a traceback for what cannot be understood."""
    try:
        return command_line.parse_flags(argv, flags.FLAGS)
    except config_lib.ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(WRONG_INPUT)


def _show_log() -> None:
    """Our lines with the time; of other packages only warnings."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    package_logger = logging.getLogger("earthformer_jax")
    package_logger.addHandler(handler)
    package_logger.propagate = False
    verbose = flags.FLAGS.verbosity > 0
    package_logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    if not verbose:
        for other in ("absl", None):  # None: the root of all loggers
            logging.getLogger(other).setLevel(logging.WARNING)


def main(argv: Sequence[str]) -> int:
    """Runs what the flags say; returns the exit status."""
    _show_log()
    try:
        if len(argv) > 1:
            raise config_lib.ConfigError(f"unexpected arguments: {' '.join(argv[1:])}")
        if _MODE.value == "summary":
            print(_summary())
            return DONE
        if _ALL.value:
            raise config_lib.ConfigError("--all needs --mode=summary")
        config, workdir = _choose()
        if _DISTRIBUTED.value:
            jax.distributed.initialize()
            if jax.process_index() > 0:
                logging.getLogger("earthformer_jax").setLevel(logging.WARNING)
        cache_compilations()
        if not _DISTRIBUTED.value:
            cpu.use_cores([config.train.micro_batch, config.eval.batch_size])
        return run(config, workdir, _MODE.value)
    except (config_lib.ConfigError, CheckpointError, NonFiniteError) as error:
        logger.debug("where it happened", exc_info=True)  # --verbosity=1
        print(f"error: {error}", file=sys.stderr)
        return DIVERGED if isinstance(error, NonFiniteError) else WRONG_INPUT


if __name__ == "__main__":
    jax.config.config_with_absl()
    app.run(main, flags_parser=_parse_flags)
