"""Examines data before training.

python -m earthformer_jax.data show --config=FILE[:VARIANT] [options]
    Loads the data set of a config, prints a summary, and writes samples as a contact
    sheet NAME-SPLIT.png and an animation NAME-SPLIT.gif (grey border: inputs, red
    border: targets).

    --config.data.FIELD=VALUE  changes the config, as for training
    --split=SPLIT              train, validation or test (default test)
    --count=N                  number of samples, evenly spaced (default 6)
    --out=DIR                  folder for the files (default runs/show)
    --augmented                show training examples augmented as in training

python -m earthformer_jax.data inspect PATH
    Shows what a file, folder or pattern (in quotes) contains, what was assumed and
    which option changes it, and problems. Ends with commands that train on it, each of
    which was tried up to the first step of training; with none if none works.

The exit status is 0 on success and 2 for invalid input.
"""

import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from earthformer_jax import data
from earthformer_jax.data.dataset import Dataset
from earthformer_jax.look import inspect as inspect_lib
from earthformer_jax.look import show as show_lib
from earthformer_jax.run import command_line
from earthformer_jax.run.command_line import DONE, WRONG_INPUT
from earthformer_jax.run.run import Run
from earthformer_jax.settings import ConfigError

HELP = ("--help", "-h", "help")


def show(argv: Sequence[str]) -> None:
    """Prints and draws samples of the data set of a config.

    Args:
        argv: name of the program, then the flags.

    Raises:
        ConfigError: if a flag, the config or its data cannot be used.
    """
    flag_values = flags.FlagValues()
    command_line.define_config(flag_values, argv)
    flags.DEFINE_enum("split", None, show_lib.SPLITS, "", flag_values=flag_values)
    flags.DEFINE_integer("count", 6, "", lower_bound=1, flag_values=flag_values)
    flags.DEFINE_string("out", "runs/show", "", flag_values=flag_values)
    flags.DEFINE_bool("augmented", False, "", flag_values=flag_values)
    left = command_line.parse_flags(argv, flag_values)[1:]
    if left:
        raise ConfigError(f"unexpected arguments: {' '.join(left)}")
    config = flag_values.config
    if config is None:
        raise ConfigError("--config is missing, e.g. --config=configs/enso.py:quick")
    with command_line.as_config_error(
        f"data {config.data.name!r}", "data", config.data
    ):
        dataset = data.load(config.data)
        samples = show_lib.choose(
            dataset.data,
            flag_values.split or ("train" if flag_values.augmented else "test"),
            flag_values.count,
            augmented=flag_values.augmented,
            seed=config.seed,
        )
    print(show_lib.describe(samples), flush=True)
    try:
        written = show_lib.write(samples, Path(flag_values.out))
    except OSError as error:
        raise ConfigError(
            f"--out={flag_values.out} cannot be written: {error}"
        ) from error
    for path in written:
        print(f"wrote     {path}")


def inspect(argv: Sequence[str]) -> None:
    """Prints a report on the data at a path.

    Args:
        argv: name of the program, then the path.

    Raises:
        ConfigError: if there is not exactly one path, or it does not exist.
    """
    if len(argv) != 2:
        raise ConfigError(
            f"inspect takes one PATH, got {len(argv) - 1}: write a pattern in quotes, "
            "as in python -m earthformer_jax.data inspect 'data/*.nc'"
        )
    with command_line.as_config_error("inspect"):
        print(inspect_lib.inspect(argv[1], try_command, _say))


def try_command(arguments: Sequence[str]) -> Dataset:
    """The data set of a training command, once all that a run checks is checked.

    Args:
        arguments: the flags of the command.

    Raises:
        ConfigError: if the command would be refused.
    """
    flag_values, argv = flags.FlagValues(), ["inspect", *arguments]
    command_line.define_config(flag_values, argv)
    command_line.parse_flags(argv, flag_values)
    with tempfile.TemporaryDirectory() as workdir:  # of a run that has not begun
        return Run(flag_values.config, workdir).rehearse()


def _say(text: str) -> None:
    print(f"{text} ...", file=sys.stderr, flush=True)


COMMANDS = {"show": show, "inspect": inspect}


def main(argv: Sequence[str]) -> int:
    """Runs a command; returns the exit status.

    Args:
        argv: name of the program, the command, its arguments.
    """
    program, *arguments = argv
    if any(argument in HELP for argument in arguments):
        print((__doc__ or "").strip())
        return DONE
    logging.getLogger("absl").setLevel(logging.WARNING)
    command = arguments[0] if arguments else ""
    try:
        if command not in COMMANDS:
            there = " or ".join(COMMANDS)
            raise ConfigError(
                f"{command!r} is not a command; use {there}, or --help"
                if command
                else f"the command is missing; use {there}, or --help"
            )
        COMMANDS[command]([program, *arguments[1:]])
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG_INPUT
    return DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv))
