"""What a protocol is: everything that a number in a table depends on, but the model."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

POOLED, MEAN = "pooled", "mean"  # over lead times


@dataclasses.dataclass(frozen=True)
class Scoring:
    """How the scores of a protocol are made of forecasts.

    Squared and absolute errors, and numbers of events, are always added over examples
    and pixels.

    Attributes:
        scores: their names.
        units: of the values that are compared.
        error_units: of "mse" and "mae".
        leads: "pooled": counts of all lead times are added before a score is made of
            them; "mean": there is a score of each lead time, and then their mean.
        thresholds: a value of at least a threshold is an event; (): there are none.
        pools: widths of the blocks, in pixels, whose largest values are compared.
        epsilon: added to numerators and denominators of scores of events.
        ssim: definition of the structural similarity; "": there is none.
    """

    scores: tuple[str, ...]
    units: str
    error_units: str
    leads: str = POOLED
    thresholds: tuple[float, ...] = ()
    pools: tuple[int, ...] = ()
    epsilon: tuple[float, float] = (0.0, 0.0)
    ssim: str = ""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Data, how they are divided, and how forecasts of them are scored.

    Attributes:
        name: of the protocol.
        data: name of the data set.
        purpose: which numbers can be compared with those made by it. This is not part
            of the definition.
        settings: of the data that it sets; the path is not among them.
        frame: time from one frame to the next; "": any.
        size: rows and columns of a frame; (): any.
        examples: of each split; {}: any number.
        scoring: how scores are made; None: as the report of the data set makes them.
        equivalent: values of settings that mean what the protocol says in other words.
            This is not part of the definition either.
    """

    name: str
    data: str
    purpose: str
    settings: Mapping[str, Any]
    frame: str = ""
    size: tuple[int, ...] = ()
    examples: Mapping[str, int] = dataclasses.field(default_factory=dict)
    scoring: Scoring | None = None
    equivalent: Mapping[str, tuple] = dataclasses.field(default_factory=dict)

    @property
    def definition(self) -> dict[str, Any]:
        """All that scores depend on, as JSON can hold it."""
        if self.scoring is None:  # nothing but a division of the data
            return dict(self.settings)
        return {
            "data": self.data,
            "settings": dict(self.settings),
            "frame": self.frame,
            "size": list(self.size),
            "examples": dict(self.examples),
            "scoring": dataclasses.asdict(self.scoring),
        }

    @property
    def sha256(self) -> str:
        """A checksum of the definition."""
        content = json.dumps(self.definition, sort_keys=True).encode()
        return hashlib.sha256(content).hexdigest()

    @property
    def description(self) -> dict[str, str]:
        """Its name and checksum, as scores.json has them."""
        return {"protocol": self.name, "protocol_sha256": self.sha256}
