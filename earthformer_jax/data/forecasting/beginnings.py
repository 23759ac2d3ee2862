"""What forecasts begin from: the contract between a data set and its forecasts."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from earthformer_jax.data.readers.times import Times
from earthformer_jax.data.source import Source
from earthformer_jax.settings import at_least, setting


@dataclasses.dataclass(frozen=True)
class Starts:
    """Which windows of a series forecasts are made from.

    Attributes:
        first: "last": the latest frames; "all": every window; or the date of the last
            input frame, "2000-02-29" or shorter (then its last frame).
        stop: a date. All windows whose last input frame is in `first` to `stop` are
            used; empty: the one that `first` names.
        every: use every n-th of several windows, from the first.
    """

    first: str = "last"
    stop: str = ""
    every: int = setting(1, at_least(1))


LAST = Starts()


@dataclasses.dataclass(frozen=True)
class Variable:
    """A variable of forecasts.

    Attributes:
        name: as in the input.
        units: of the values; "" where unknown.
        standard_name: of the CF conventions; "" if unknown.
        long_name: for people; "": its name.
    """

    name: str
    units: str = ""
    standard_name: str = ""
    long_name: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beginnings:
    """What forecasts begin from: frames of a series, without targets.

    Attributes:
        label: human-readable name of the file or files.
        windows: source of examples with `inputs` `[t, h, w, c]` in the units that the
            model sees, `filled`, the share of their values that were filled, and their
            `time` in minutes `[t]` since 1970-01-01 UTC where they have dates.
        last: int64 `[n]`, number of the last input frame of each window in its series.
        reference: the times `[n]` of those frames; None if the series has no dates.
        following: the times `[k]` of the k frames after window i, `(i, k) -> times`;
            None without dates.
        variables: what is forecast.
        decode: from `[k, h, w, c]` in model units, and minutes `[k]` since 1970-01-01
            UTC or None, to the units of `variables`; NaN where never observed.
        anomalies: from `[k, h, w, c]` in model units to departures from the climatology
            of the training; None if there is no climatology.
        advance: inputs for the forecast after next, from inputs `[t, h, w, c]`, the
            forecast that followed them `[k, h, w, c]`, both in model units, and its
            minutes `[k]` or None; None if a forecast cannot be fed back.
        not_advanced: why it cannot.
        indices: weights `[h, w]`, which add up to 1, of area means of the anomalies
            that are forecast as well, by name.
        latitude: degrees north `[h]` or `[h, w]`; None if unknown.
        longitude: degrees east `[w]` or `[h, w]`; None if unknown.
        south_first: whether the first row is known to be the southernmost.
        coordinates: what tells windows apart besides their times, `[n]` by name, such
            as the names of their events.
        notes: how the input was changed to fit the training, "degC converted to K".
    """

    label: str
    windows: Source
    last: np.ndarray
    reference: Times | None
    following: Callable[[int, int], Times] | None
    variables: tuple[Variable, ...]
    decode: Callable[[np.ndarray, np.ndarray | None], np.ndarray]
    anomalies: Callable[[np.ndarray], np.ndarray] | None = None
    advance: (
        Callable[[np.ndarray, np.ndarray, np.ndarray | None], np.ndarray] | None
    ) = None
    not_advanced: str = ""
    indices: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    latitude: np.ndarray | None = None
    longitude: np.ndarray | None = None
    south_first: bool = False
    coordinates: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
