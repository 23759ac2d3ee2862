"""Reports of `inspect`, and the commands they propose."""

import shlex

from absl import flags

from earthformer_jax.look import inspect as inspect_lib
from earthformer_jax.run import command_line, run


def trial(arguments):
    """The data set of a command, made as in a run; without the model, to be quick."""
    flag_values, argv = flags.FlagValues(), ["inspect", *arguments]
    command_line.define_config(flag_values, argv)
    command_line.parse_flags(argv, flag_values)
    return run.load_data(flag_values.config)


def inspect(path):
    return inspect_lib.inspect(str(path), trial)


def proposed(report):
    """The flags of the proposed commands, as a shell passes them on."""
    lines = [x for x in report.splitlines() if x.startswith(("train with", "or   "))]
    return [shlex.split(line.partition("  ")[2])[3:] for line in lines]


def command(report):
    """(config file, settings) of the first command."""
    config, *rest = proposed(report)[0]
    settings = dict(word.removeprefix("--config.data.").split("=", 1) for word in rest)
    return config.removeprefix("--config=configs/").partition(".")[0], settings


def trained_on(report):
    """The data set of the first command."""
    return trial(proposed(report)[0])
