"""What the protocols of El Nino data ask of files (`data.protocols`)."""

from collections.abc import Mapping

import numpy as np

from earthformer_jax.data.protocols.registry import PROTOCOLS
from earthformer_jax.data.readers import times


def is_by_model(name: str) -> bool:
    """Whether a protocol divides climate models rather than months."""
    return "split" in PROTOCOLS[name].settings


def description(name: str) -> dict[str, str]:
    """The name of a protocol and a checksum of what it sets, for scores; {} for ""."""
    return PROTOCOLS[name].description if name else {}


def check_files(name: str, label: str, *, by_model: bool) -> None:
    """Rejects files that a protocol is not made for.

    Args:
        name: of the protocol, or "".
        label: of the files.
        by_model: whether they are of climate models rather than of years.

    Raises:
        ValueError: if the protocol divides the other ones.
    """
    if name and by_model != is_by_model(name):
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
    fixed = PROTOCOLS[name].settings
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
