"""Commands that `inspect` proposes: each of them has been tried."""

import dataclasses
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence

from earthformer_jax import data
from earthformer_jax.data.dataset import Dataset
from earthformer_jax.data.readers.layout import Undecided
from earthformer_jax.settings import ConfigError, qualified

MOST_TRIALS = 8  # of one proposal, where choices lead to further choices

# Makes everything that a run needs before it trains from the flags of its command;
# raises an exception with a message for the user if that fails.
Trial = Callable[[Sequence[str]], Dataset]
Options = Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Command:
    """A training command.

    Attributes:
        config: name of the file in `configs`: "sevir".
        options: settings of the data by name, as they are written in flags.
    """

    config: str
    options: Options

    @property
    def flags(self) -> list[str]:
        """["--config=configs/sevir.py:quick", "--config.data.path=SEVIR"]"""
        flags = [
            f"--config.data.{name}={value}" for name, value in self.options.items()
        ]
        return [f"--config=configs/{self.config}.py:quick", *flags]

    def __str__(self) -> str:
        """The command as it is typed in a shell."""
        words = ["python -m earthformer_jax.main"]
        for flag in self.flags:
            name, _, value = flag.partition("=")
            words.append(f"{name}={shlex.quote(value)}")
        return " ".join(words)

    def also(self, choice: Options) -> "Command":
        """The command with further options (`with_choice`)."""
        return Command(self.config, with_choice(self.options, choice))


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a command.

    Attributes:
        command: the command.
        dataset: the data set it makes, if it works.
        problem: why it does not work; "" if it does.
    """

    command: Command
    dataset: Dataset | None = None
    problem: str = ""

    @property
    def description(self) -> str:
        """Of the data set: fields, windows and splits."""
        return "" if self.dataset is None else self.dataset.data.description


def outcomes(command: Command, trial: Trial) -> list[Outcome]:
    """Tries a command, and with it every choice that decides a refusal.

    Returns:
        the outcomes, those of the most likely choices first.
    """
    found = []
    for outcome in _tried(command, trial):
        found.append(outcome)
        if len(found) == MOST_TRIALS:
            break
    return found


def with_choice(options: Options, choice: Options) -> dict[str, str]:
    """Options with a choice; a number that marks missing values is added to others."""
    both = {**options, **choice}
    if "missing" in options and "missing" in choice:
        marks = [*options["missing"].split(","), *choice["missing"].split(",")]
        both["missing"] = ",".join(dict.fromkeys(marks))
    return both


def in_flags(message: str, name: str = "custom") -> str:
    """A message of a reader or a run with its settings as flags.

    Args:
        message: names settings as `axes`, axes=thw or config.data.axes=thw.
        name: of the data set whose settings are meant.
    """
    fields = [field.name for field in dataclasses.fields(data.settings(name))]
    message = qualified(message, "--config.data.", fields)
    return re.sub(r"(?<![\w.-])config\.(?=[a-z_]+\.)", "--config.", message)


def choices_of(error: BaseException) -> tuple[Options, ...]:
    """The choices that decide a refusal, or the refusal that caused it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, Undecided):
            return cause.choices
        cause = cause.__cause__
    return ()


def message_of(error: Exception) -> str:
    """The message of an error in one line, without the words of those who pass it on.

    A run puts the data set in front of what a reader says.
    """
    source = error.__cause__ if isinstance(error, ConfigError) else None
    source = source if isinstance(source, ValueError | OSError) else error
    text = " ".join(str(source).split())
    if not text or not isinstance(source, ValueError | OSError):
        text = f"{type(source).__name__}: {text}".removesuffix(": ")
    return text


def _tried(command: Command, trial: Trial) -> Iterator[Outcome]:
    try:
        dataset = trial(command.flags)
    except Exception as error:  # each library has its own for damaged files
        problem = in_flags(message_of(error), command.config)
        if command.config not in ("custom", "climate"):
            problem = f"configs/{command.config}.py: {problem}"
        yield Outcome(command, problem=problem)
        for choice in choices_of(error):
            chosen = command.also(choice)
            if chosen != command:
                yield from _tried(chosen, trial)
        return
    yield Outcome(command, dataset)
