"""Settings of SEVIR."""

import dataclasses

from earthformer_jax.data.protocols.following import ByProtocol
from earthformer_jax.data.sevir import catalog as catalog_lib
from earthformer_jax.data.sevir.windows import NORMALIZATIONS
from earthformer_jax.settings import (
    NOT_NEGATIVE,
    ConfigError,
    at_least,
    choice,
    setting,
)

SPLIT_RULES = ("date", "fraction")


@dataclasses.dataclass(frozen=True)
class Settings(ByProtocol):
    """Settings of SEVIR.

    Attributes:
        name: "sevir".
        path: the folder with CATALOG.csv and data/, or the folder of a prepared TFDS
            data set; empty (default): the radar twin.
        catalog_path: the catalog, if it is elsewhere; `path` is then the folder that
            the file names in the catalog are relative to, or its parent.
        skip_missing_files: leave out events whose files are missing, to use part of
            SEVIR.
        max_missing: largest `pct_missing` of an event that is used, in the units of the
            catalog (SEVIR: a share, 0 to 1). 0 in the paper.
        split: "date": by the four limits below; "fraction": 70, 15 and 15 % of the
            events sorted by time, within `train_from` and `test_until`, with the
            events of an episode together. Windows that share time and place with an
            earlier split are left out.
        train_from: training events are later, "YYYY-MM-DD" or "YYYY-MM-DD HH:MM" UTC;
            empty (default): no limit.
        train_until: training events are no later, validation events are later.
        validate_until: validation events are no later, test events are later.
        test_until: test events are no later; empty (default): no limit.
        in_len: number of input frames.
        out_len: number of target frames.
        stride: frames from the start of one window to the start of the next in the same
            event.
        time_step: use every n-th frame. 2 with `space_step` 3 gives SEVIR-LR.
        space_step: n × n pixels are reduced to their maximum.
        normalization: "01": code / 255; "sevir": (code - 33.44) / 47.54.
        crop: rows and columns to cut out, at a random place in training and from the
            centre otherwise; () for all.
        flip: flip training examples vertically and horizontally at random.
        rotate: rotate training examples by multiples of 90 degrees at random.
        twin_train: number of training windows of the twin.
        twin_validation: number of validation windows of the twin.
        twin_test: number of test windows of the twin. All three default to the paper's
            numbers.
    """

    name: str = "sevir"
    path: str = ""
    catalog_path: str = ""
    skip_missing_files: bool = False
    max_missing: float = setting(0.0, NOT_NEGATIVE)
    split: str = setting("date", choice(*SPLIT_RULES))
    train_from: str = ""
    train_until: str = "2019-01-01"
    validate_until: str = "2019-06-01"
    test_until: str = ""
    in_len: int = setting(13, at_least(1))
    out_len: int = setting(12, at_least(1))
    stride: int = setting(12, at_least(1))
    time_step: int = setting(1, at_least(1))
    space_step: int = setting(1, at_least(1))
    normalization: str = setting("01", choice(*NORMALIZATIONS))
    crop: tuple[int, ...] = ()
    flip: bool = False
    rotate: bool = False
    twin_train: int = setting(35718, at_least(1))
    twin_validation: int = setting(9060, at_least(1))
    twin_test: int = setting(12159, at_least(1))

    @property
    def span(self) -> int:
        """Frames of the files that one window extends over."""
        return (self.in_len + self.out_len - 1) * self.time_step + 1

    @property
    def dates(self) -> catalog_lib.Dates:
        """Limits of the splits; only the outer ones unless events are split by date."""
        names = ("train_from", "train_until", "validate_until", "test_until")
        inner = names[1:3] if self.split == "fraction" else ()
        return catalog_lib.Dates.parse(
            {name: "" if name in inner else getattr(self, name) for name in names}
        )

    def check(self) -> None:
        """Rejects values that are valid individually but not in combination.

        Raises:
            ConfigError: if there are any; the message names them.
            ValueError: if a date is invalid, or the dates are out of order.
        """
        super().check()
        if self.catalog_path and not self.path:
            raise ConfigError(
                f"catalog_path={self.catalog_path} needs `path`, the folder of the "
                "files it lists"
            )
        dates = self.dates
        if self.split == "date":
            for name in ("train_until", "validate_until"):
                if getattr(dates, name) is None:
                    raise ConfigError(
                        f"{name}='' is not a date; write YYYY-MM-DD, or set "
                        "split='fraction' to divide events by number"
                    )
