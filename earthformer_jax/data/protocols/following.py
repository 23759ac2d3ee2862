"""Data that follow a protocol: its settings, and what they must be like."""

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from earthformer_jax.data.dataset import Dataset, DataSettings
from earthformer_jax.data.protocols.definition import Protocol
from earthformer_jax.data.protocols.registry import OF_INDICES, PROTOCOLS
from earthformer_jax.data.protocols.scores import scored_by
from earthformer_jax.data.splits import SPLITS
from earthformer_jax.settings import TEXT, ConfigError, nearest, setting

logger = logging.getLogger(__name__)

# Windows that share frames with an earlier split are left out, so that data may have
# somewhat fewer than those who published a protocol had.
LEAST_SHARE = 0.99


@dataclasses.dataclass(frozen=True)
class ByProtocol(DataSettings):
    """Settings of data that can follow a named protocol.

    Attributes:
        protocol: name of a protocol, which sets other settings and decides how
            forecasts are scored (docs/protocols.md); empty (default): none.
    """

    protocol: str = setting("", TEXT)

    def __post_init__(self) -> None:
        """Sets what the protocol sets."""
        fields = dataclasses.fields(self)
        values = {field.name: getattr(self, field.name) for field in fields}
        defaults = {field.name: field.default for field in fields}
        for name, value in settings_of(values, defaults).items():
            object.__setattr__(self, name, value)

    def check(self) -> None:
        """Rejects a protocol of files if there are none.

        Raises:
            ConfigError: if there are none.
        """
        if self.protocol and not getattr(self, "path", ""):
            raise ConfigError(
                f"protocol={self.protocol} is for files, and none are given; set `path`"
            )


def named(name: str, data: str, given: str = "") -> Protocol:
    """The protocol of a name.

    Args:
        name: of the protocol.
        data: name of the data set.
        given: how it was given, for messages; default "protocol=NAME".

    Raises:
        ConfigError: if there is none, naming the nearest; or if it is for other data.
    """
    given = given or f"protocol={name}"
    of_data = [p.name for p in PROTOCOLS.values() if p.data == data]
    if name == OF_INDICES and data == PROTOCOLS["enso-icar-paper"].data:
        raise ConfigError(
            f"{given} is of climate indices rather than maps, so no model of maps is "
            "trained or scored by it: run experiments/enso_benchmark.py with "
            "--indices=FILE"
        )
    there_are = f"there are {', '.join(of_data)}" if of_data else "there are none"
    if name not in PROTOCOLS:
        raise ConfigError(
            f"{given}: there is no such protocol{nearest(name, PROTOCOLS)}; for "
            f"{data!r} data {there_are}"
        )
    if name not in of_data:
        raise ConfigError(
            f"{given} is for {PROTOCOLS[name].data!r} data; for {data!r} data "
            f"{there_are}"
        )
    return PROTOCOLS[name]


def settings_of(
    given: Mapping[str, Any], defaults: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The settings that a protocol sets.

    Args:
        given: values of all settings, with "name" and "protocol".
        defaults: of all settings.

    Raises:
        ConfigError: if a setting has another value than its default and than that of
            the protocol, or if there is no such protocol for these data.
    """
    name = given["protocol"]
    if not name or not isinstance(name, str):
        return {}
    fixed = named(name, given["name"]).settings
    problems = [
        f"{field}={given[field]} contradicts protocol={name}, in which it is {value}; "
        f"leave `{field}` {_default_text(defaults[field])}, or use no protocol"
        for field, value in fixed.items()
        if not _same(given[field], value) and not _same(given[field], defaults[field])
    ]
    if problems:
        raise ConfigError(*problems)
    return fixed


def departures(protocol: Protocol, values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are not those of a protocol, and what they are in it.

    Args:
        protocol: to compare with.
        values: of all settings.
    """
    return {
        field: value
        for field, value in protocol.settings.items()
        if not _same(values[field], value)
        and values[field] not in protocol.equivalent.get(field, ())
    }


def applied(dataset: Dataset, name: str, trained: bool) -> Dataset:
    """A data set that is scored by a protocol, and named after it in scores.json.

    A protocol that only divides the data changes nothing here: the data set knows
    itself whether it follows.

    Args:
        dataset: made with the settings of the protocol.
        name: of the protocol, or "".
        trained: whether a model that was trained before is to be scored. Data that do
            not fit are then scored without a protocol.

    Raises:
        ValueError: if they do not fit, and the data are new.
    """
    protocol = PROTOCOLS[name] if name else None
    if protocol is None or protocol.scoring is None:
        return dataset
    if problem := misfit(dataset, protocol):
        if not trained:
            raise ValueError(problem)
        logger.warning("%s; it is scored without a protocol", problem)
        return dataset
    task = scored_by(dataset.task, protocol, dataset.data.normalization)
    task = dataclasses.replace(task, protocol=protocol.description)
    return dataclasses.replace(dataset, task=task)


def misfit(dataset: Dataset, protocol: Protocol) -> str:
    """Why data are not those of a protocol, by frames and numbers; "" if they are."""
    data, given = dataset.data, f"protocol={protocol.name}"
    size = data.example()["targets"].shape[1:3]
    if protocol.size and size != protocol.size:
        return (
            f"{given} is for frames of {_by(protocol.size)} pixels; here they have "
            f"{_by(size)}"
        )
    if protocol.frame and data.display.frame != protocol.frame:
        return (
            f"{given} is for frames every {protocol.frame}; here it is every "
            f"{data.display.frame}"
        )
    found = {split: len(getattr(data, split)) for split in SPLITS}
    if all(
        LEAST_SHARE * wanted <= found[split] <= wanted
        for split, wanted in protocol.examples.items()
    ):
        return ""
    return (
        f"{given} has {_numbers(protocol.examples)} examples; here there are "
        f"{_numbers(found)}, so these are other data"
    )


def _same(a: Any, b: Any) -> bool:
    """Whether two settings are equal; lists and tuples are."""
    return np.array_equal(a, b) and isinstance(a, str) == isinstance(b, str)


def _default_text(default: Any) -> str:
    return "empty" if default in ("", ()) else f"at {default}"


def _by(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))


def _numbers(examples: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {split}" for split, count in examples.items())
