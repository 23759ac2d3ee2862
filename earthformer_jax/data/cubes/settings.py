"""Settings of a series of fields."""

import dataclasses
import math

from earthformer_jax.data.dataset import DataSettings
from earthformer_jax.data.readers import layout
from earthformer_jax.data.splits import Dates
from earthformer_jax.metrics.sums import MAX_LEADS
from earthformer_jax.settings import ConfigError, at_least, setting


@dataclasses.dataclass(frozen=True)
class Settings(DataSettings):
    """Settings of a climate cube or of the user's files.

    Attributes:
        name: "climate" or "custom".
        path: a NetCDF, HDF5 or .npy file, a Zarr store, or a pattern that matches many,
            "data/*.nc"; empty (default): the climate twin.
        variables: names of the variables, "T,P"; empty (default): all that share a
            grid.
        targets: variables to forecast; empty (default): all of them.
        level: position along every further dimension, "500" or "level=500"; several
            levels, "500,850", become several variables.
        axes: axes of HDF5 and .npy arrays, in the letters n (sequences), t, h, w, c
            (channels): "thw", "nhwt"; empty (default): guessed.
        missing: values that mark missing data, in addition to those the file declares;
            with NaN among them, no others are looked for.
        region: south, north, west, east in degrees; empty (default): everything.
        space_step: n × n cells are averaged into one.
        time_step: use every n-th frame.
        in_len: number of input frames.
        out_len: number of target frames; 0: the targets are the inputs, for
            autoencoders.
        stride: frames from the start of one window to the start of the next.
        train_from: first training date, "YYYY-MM-DD" or shorter; empty (default): the
            first date of the data.
        train_until: last training date; empty (default): 70 % of the frames.
        validate_until: last validation date; empty (default): half of the rest.
        test_from: first test date, after validation or before training; empty
            (default): the one after validation.
        test_until: last test date; empty (default): the last date of the data, or the
            last one before training.
        anomalies: remove the mean annual and daily cycles of every cell, estimated from
            the training period, rather than only the mean of every variable.
        calendar: give the model the cosine and sine of the season, and of the time of
            day if frames are less than half a day apart.
        flip: flip training examples vertically and horizontally at random, for fields
            without a preferred orientation, such as radar images.
        area_weights: weight cells by cos(latitude) in loss and scores if the latitude
            depends only on the row.
        twin_years: length of the climate twin in years.
    """

    name: str = "custom"
    path: str = ""
    variables: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    level: tuple[str, ...] = ()
    axes: str = ""
    missing: tuple[float, ...] = ()
    region: tuple[float, ...] = ()
    space_step: int = setting(1, at_least(1))
    time_step: int = setting(1, at_least(1))
    in_len: int = setting(10, at_least(1))
    out_len: int = setting(5, at_least(0))
    stride: int = setting(1, at_least(1))
    train_from: str = ""
    train_until: str = ""
    validate_until: str = ""
    test_from: str = ""
    test_until: str = ""
    anomalies: bool = False
    calendar: bool = False
    flip: bool = False
    area_weights: bool = True
    twin_years: int = setting(12, at_least(3, 1000))

    def __post_init__(self) -> None:
        """Splits several names or numbers given as one string, "T,P"."""
        for name in ("variables", "targets", "level"):
            object.__setattr__(self, name, layout.words(getattr(self, name)))
        for name in ("missing", "region"):
            given = layout.numbers(getattr(self, name), name)
            object.__setattr__(self, name, given)

    @property
    def restores(self) -> bool:
        """Whether the targets are the inputs."""
        return self.out_len == 0

    @property
    def only_declared(self) -> bool:
        """Whether the user says that no undeclared value marks missing data."""
        return any(map(math.isnan, self.missing))

    @property
    def dates(self) -> Dates:
        """The settings that divide the series."""
        return Dates.of(self)

    def check(self) -> None:
        """Rejects values that are valid individually but not in combination.

        Raises:
            ConfigError: if there are any; the message names them.
        """
        scored = "out_len" if self.out_len else "in_len"
        if getattr(self, scored) > MAX_LEADS:
            raise ConfigError(
                f"{scored}={getattr(self, scored)}: expected at most {MAX_LEADS} "
                "frames; take every n-th frame with `time_step`"
            )
        if self.restores and self.targets:
            raise ConfigError(
                f"targets={','.join(self.targets)} has no effect with out_len=0, "
                "where all variables are restored; choose them with `variables`"
            )
        for name in ("variables", "targets"):
            names = getattr(self, name)
            if len(set(names)) < len(names):
                raise ConfigError(f"{name}={','.join(names)} repeats a name")
        problem = layout.region_problem(self.region)
        if problem:
            raise ConfigError(problem)
