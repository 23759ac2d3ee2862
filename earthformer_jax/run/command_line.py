"""What the commands share: the config flags, and one-line errors for invalid input."""

import contextlib
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence

import ml_collections
from absl import flags
from ml_collections import config_flags

from earthformer_jax.run import config as config_lib
from earthformer_jax.run import config_files
from earthformer_jax.settings import ConfigError, flatten, qualified
from earthformer_jax.training.workdir import CONFIG_FILE

DONE, WRONG_INPUT = 0, 2  # exit status

flags.disclaim_key_flags()  # --help names the command that calls `define_config`


class _ConfigParser(flags.ArgumentParser):
    """Turns the value of --config into a complete config."""

    def parse(self, argument: str) -> ml_collections.ConfigDict:
        return config_files.load(argument)


def define_config(
    flag_values: flags.FlagValues, argv: Sequence[str] | None = None
) -> flags.FlagHolder[ml_collections.ConfigDict]:
    """Defines --config=FILE:VARIANT and --config.FIELD=VALUE on the given flags.

    Args:
        flag_values: where the flag is defined.
        argv: the arguments `parse_flags` will get; None: `sys.argv` at that time.
    """
    holder = config_flags.DEFINE_config_file(
        "config",
        None,
        "Config file, with a variant after a colon: configs/enso.py:quick. The default "
        "is the config of the workdir, if it has one.",
        flag_values=flag_values,
        sys_argv=None if argv is None else list(argv),
    )
    flag_values["config"].parser = _ConfigParser()
    return holder


def parse_flags(argv: Sequence[str], flag_values: flags.FlagValues) -> list[str]:
    """Parses the flags, including --config.

    Args:
        argv: the name of the program, then its arguments.
        flag_values: the flags, including "config".

    Returns:
        the name of the program and any arguments that are not flags.

    Raises:
        ConfigError: with a one-line message, if a flag, the config file, its variant
            or a field is invalid.
    """
    argv = _with_located_config(with_names(_with_config_of_workdir(argv)))
    file = config_argument(argv)
    try:
        return flag_values(list(argv))
    except (AttributeError, KeyError):
        if file:
            _check_fields(argv, config_files.load(file))
        raise
    except flags.Error as error:
        if isinstance(error.__context__, ConfigError):  # absl says "flag --config="
            raise error.__context__ from None
        raise ConfigError(_in_words(str(error))) from error


def _in_words(message: str) -> str:
    """What absl says of a flag, without the words of `int` and `float`."""
    message = re.sub(
        r"invalid literal for int\(\).*", "expected a whole number", message
    )
    return re.sub(r"could not convert string to float.*", "expected a number", message)


def with_names(argv: Sequence[str]) -> list[str]:
    """Arguments in which the name of a data set or a model also chooses its fields.

    "--config=FILE:quick --config.model.name=M" gets "--config=FILE:quick,M", and
    --config.data.name works in the same way.
    """
    argv, file = list(argv), config_argument(argv)
    if not file:
        return argv
    names = (_argument(argv, f"config.{x}.name") for x in ("data", "model"))
    return _with_config(argv, config_files.with_names(file, *names))


def config_argument(argv: Sequence[str]) -> str | None:
    """The value of --config, written with "=" or as a separate argument."""
    return _argument(argv, "config")


@contextlib.contextmanager
def as_config_error(
    what: str, section: str = "", fields: Iterable[str] = ()
) -> Iterator[None]:
    """Turns errors raised by a part of the package into errors about the config.

    Args:
        what: the part, put in front of messages that do not begin with a field.
        section: the section of the config that sets up this part, for example "data";
            its fields are then named `config.data.FIELD`.
        fields: the fields of the section.

    Raises:
        ConfigError: in place of the errors that invalid settings and files cause.
    """
    try:
        yield
    except (ValueError, TypeError, KeyError, OSError, MemoryError) as error:
        message = str(error.args[0] if isinstance(error, KeyError) else error)
        if section:
            message = qualified(message, f"config.{section}.", fields)
        where = "" if message.startswith(("config.", "--")) else f"{what}: "
        raise ConfigError(where + message) from error


def _with_config_of_workdir(argv: Sequence[str]) -> list[str]:
    """The arguments; fields without --config change the config of the workdir."""
    argv = list(argv)
    workdir = _argument(argv, "workdir")
    changes = any(re.match(r"--?(?:no)?config\.", argument) for argument in argv)
    if config_argument(argv) or not changes or not workdir:
        return argv
    path = pathlib.Path(workdir, CONFIG_FILE)
    return [argv[0], f"--config={path}", *argv[1:]] if path.exists() else argv


def _with_located_config(argv: list[str]) -> list[str]:
    """The arguments, with the name of an installed config replaced by its path."""
    file = config_argument(argv)
    if not file:
        return argv
    name, colon, variant = file.partition(":")
    return _with_config(argv, f"{config_files.locate(name)}{colon}{variant}")


def _with_config(argv: list[str], file: str) -> list[str]:
    """The arguments with another value of --config, in whichever form it is written."""
    there = next(i for i, x in enumerate(argv) if re.fullmatch(r"--?config(=.*)?", x))
    if "=" in argv[there]:
        return [*argv[:there], f"--config={file}", *argv[there + 1 :]]
    return [*argv[: there + 1], file, *argv[there + 2 :]]


def _argument(argv: Sequence[str], flag: str) -> str | None:
    for argument, following in zip(argv, [*argv[1:], None], strict=True):
        match = re.fullmatch(rf"--?{re.escape(flag)}(?:=(.*))?", argument)
        if match:
            return match[1] or following
    return None


def _check_fields(argv: Sequence[str], config: ml_collections.ConfigDict) -> None:
    """Raises ConfigError for the first overridden field the config does not have."""
    known = flatten(config)
    for argument in argv[1:]:
        match = re.match(r"--?(?:no)?config\.([\w.]+)", argument)
        if match and match[1] not in known:
            raise ConfigError(config_lib.unknown_field(match[1], known))
