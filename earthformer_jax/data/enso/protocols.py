"""Named protocols: how El Nino data are divided, so that scores can be compared.

A protocol sets some of the settings of the data; the path is not among them.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from earthformer_jax.data.readers import times
from earthformer_jax.settings import ConfigError

OF_INDICES = "enso-oras5-xro"
_ICAR = {"in_len": 12, "out_len": 14, "normalization": "official"}


def _dated(train: str, validate_until: str, test: str) -> dict[str, Any]:
    """The settings of periods "1856-01..1979-12"."""
    (train_from, train_until), (test_from, test_until) = (
        period.split("..") for period in (train, test)
    )
    return {
        "train_from": train_from,
        "train_until": train_until,
        "validate_until": validate_until,
        "test_from": test_from,
        "test_until": test_until,
    }


# The Kaplan extended SST anomalies, version 2, end in October 2014. The other periods
# are of 30 years that are left out: a model is tested on what came long before.
PROTOCOLS: Mapping[str, Mapping[str, Any]] = {
    "enso-kaplan-1985-2014": _dated("1856-01..1979-12", "1984-12", "1985-01..2014-10"),
    "enso-kaplan-1950-1979": _dated("1985-01..2009-12", "2014-10", "1950-01..1979-12"),
    "enso-kaplan-1920-1949": _dated("1955-01..2009-12", "2014-10", "1920-01..1949-12"),
    "enso-kaplan-1885-1914": _dated("1920-01..2009-12", "2014-10", "1885-01..1914-12"),
    "enso-icar-paper": _ICAR | {"split": "paper"},
    "enso-icar-released": _ICAR | {"split": "released"},
}


def settings_of(
    name: str, given: Mapping[str, Any], defaults: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The settings that a protocol sets.

    Args:
        name: of the protocol; "" and unknown names set nothing.
        given: values of all settings.
        defaults: of all settings.

    Raises:
        ConfigError: if a setting has another value than its default and than that of
            the protocol, or if the protocol is not one of maps.
    """
    if name == OF_INDICES:
        raise ConfigError(
            f"protocol={name} is of climate indices rather than maps, so no model of "
            "maps is trained or scored by it: run experiments/enso_benchmark.py with "
            "--indices=FILE"
        )
    fixed = PROTOCOLS.get(name, {})
    problems = [
        f"{field}={given[field]} contradicts protocol={name}, in which it is {value}; "
        f"leave `{field}` {_default_text(defaults[field])}, or use no protocol"
        for field, value in fixed.items()
        if given[field] not in (value, defaults[field])
    ]
    if problems:
        raise ConfigError(*problems)
    return fixed


def description(name: str) -> dict[str, str]:
    """The name of a protocol and a checksum of what it sets, for scores; {} for ""."""
    if not name:
        return {}
    content = json.dumps(PROTOCOLS[name], sort_keys=True).encode()
    digest = hashlib.sha256(content).hexdigest()
    return {"protocol": name, "protocol_sha256": digest}


def check_files(name: str, label: str, *, by_model: bool) -> None:
    """Rejects files that a protocol is not made for.

    Args:
        name: of the protocol, or "".
        label: of the files.
        by_model: whether they are of climate models rather than of years.

    Raises:
        ValueError: if the protocol divides the other ones.
    """
    if name and by_model != ("split" in PROTOCOLS[name]):
        needs, has = (
            "the climate models of ICAR-ENSO (CMIP_train.nc)",
            "divided by date",
        )
        if by_model:
            needs, has = "months with dates, such as observations", "of climate models"
        raise ValueError(f"protocol={name} is for {needs}, but {label} is {has}")


def departure(name: str, minutes: Mapping[str, tuple[int, int]]) -> str:
    """How the months of the splits differ from those of a protocol; "" if they do not.

    Args:
        name: of a protocol that divides by date.
        minutes: first and last time of each split.
    """
    fixed = PROTOCOLS[name]
    for split, until in (("train", "train_until"), ("test", "test_until")):
        wanted = fixed[f"{split}_from"], fixed[until]
        found = minutes.get(split)
        months = None
        if found is not None:
            months = tuple(map(times.month_text, times.month_of(np.array(found))))
        if months != wanted:
            has = "none of these" if months is None else "..".join(months)
            return (
                f"protocol={name}: {split} months are {'..'.join(wanted)}; here {has}"
            )
    return ""


def _default_text(default: Any) -> str:
    return "empty" if default == "" else f"at {default}"
