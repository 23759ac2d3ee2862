"""Settings of the ENSO data."""

import dataclasses

from earthformer_jax.data.enso import icar
from earthformer_jax.data.protocols.following import ByProtocol
from earthformer_jax.data.readers import layout
from earthformer_jax.data.splits import Dates, Fold
from earthformer_jax.settings import (
    NOT_NEGATIVE,
    ConfigError,
    at_least,
    choice,
    setting,
)

NORMALIZATIONS = ("auto", "official", "anomaly")
MIN_OUT_LEN = 3  # the three-month index needs three target months


@dataclasses.dataclass(frozen=True)
class Settings(ByProtocol):
    """Settings of the ENSO data.

    Attributes:
        name: "enso".
        path: a NetCDF or HDF5 file, a Zarr store, a pattern that matches many,
            "data/*.nc", a folder with ICAR-ENSO files, or a folder that TFDS prepared
            from them; empty (default): the twin.
        label_path: ICAR-ENSO labels; empty (default): the label file next to the
            training file.
        variable: name of the variable; empty (default): found by standard name, usual
            name or units.
        level: position along a further dimension, "0" or "depth=0".
        axes: axes of HDF5 arrays, in the letters t, h, w: "twh"; empty (default):
            guessed.
        missing: values that mark missing data, in addition to those the file declares.
        region: south, north, west, east in degrees; empty (default): everything.
        train_from: first training month, "YYYY-MM"; empty (default): the first month of
            the data.
        train_until: last training month; empty (default): 70 % of the months.
        validate_until: last validation month; empty (default): a third of the rest, or
            the last month before `test_from`.
        test_from: first test month, after validation or before training; empty
            (default): the one after validation.
        test_until: last test month; empty (default): the last month of the data, or the
            last one before training.
        folds: number of blocks of equal length that the training period is divided
            into, to validate on one of them and train on the others; 0 (default): none,
            the validation period is the one after training. With folds, nothing of the
            months from training to testing is used, except as the past of test months.
            For files that are divided by date.
        fold: number of the block to validate on, from 0.
        in_len: number of input months.
        out_len: number of target months; the Nino3.4 skill is that of three-month
            means.
        split: how CMIP_train.nc is divided, "paper" or "released".
        normalization: "official" scales the extremes of ICAR-ENSO to 0 and 1;
            "anomaly" divides by `scale`; "auto" is "official" for the twin and
            ICAR-ENSO files, "anomaly" for others.
        scale: in K; 0: the standard deviation of the training months.
        calendar: give the model two more input channels, cosine and sine of the
            calendar month.
        memory: give the model one more input channel, the memory of each cell: a leaky
            integral of its past anomalies, of months before the input as well
            (`statistics.field_memory`).
        simulated: provide simulated months for pre-training: further months of the
            twin, or of a linear system fitted to the training months of a gridded file
            (none for ICAR-ENSO files, which are simulations themselves).
        twin_train: number of training windows of the twin.
        twin_validation: number of validation windows of the twin.
        twin_test: number of test windows of the twin. All three default to the paper's
            numbers.
    """

    name: str = "enso"
    path: str = ""
    label_path: str = ""
    variable: str = ""
    level: tuple[str, ...] = ()
    axes: str = ""
    missing: tuple[float, ...] = ()
    region: tuple[float, ...] = ()
    train_from: str = ""
    train_until: str = ""
    validate_until: str = ""
    test_from: str = ""
    test_until: str = ""
    folds: int = setting(0, at_least(0))
    fold: int = setting(0, at_least(0))
    in_len: int = setting(12, at_least(1))
    out_len: int = setting(14, at_least(MIN_OUT_LEN))
    split: str = setting("paper", choice(*icar.SPLITS))
    normalization: str = setting("auto", choice(*NORMALIZATIONS))
    scale: float = setting(0.0, NOT_NEGATIVE)
    calendar: bool = False
    memory: bool = False
    simulated: bool = True
    twin_train: int = setting(5205, at_least(1))
    twin_validation: int = setting(334, at_least(1))
    twin_test: int = setting(1667, at_least(1))

    def __post_init__(self) -> None:
        """Splits several values given as one string, "-99,-999"; sets a protocol's."""
        object.__setattr__(self, "level", layout.words(self.level))
        for name in ("missing", "region"):
            given = layout.numbers(getattr(self, name), name)
            object.__setattr__(self, name, given)
        super().__post_init__()

    @property
    def dates(self) -> Dates:
        """The settings that divide a file by date."""
        return Dates.of(self)

    @property
    def block(self) -> Fold:
        """The settings that choose a block of the training period to validate on."""
        return Fold(self.folds, self.fold)

    def check(self) -> None:
        """Rejects values that are valid individually but not in combination.

        Raises:
            ConfigError: if there are any; the message names them.
        """
        super().check()
        if self.scale and self.normalization == "official":
            raise ConfigError(
                f"scale={self.scale} has no effect with normalization='official'; use "
                "'anomaly', or leave it 0"
            )
        if self.folds == 1:
            raise ConfigError(
                "folds=1 leaves nothing to train on; use at least 2, or 0 to validate "
                "on the period after training"
            )
        if self.fold and self.fold >= self.folds:
            raise ConfigError(
                f"fold={self.fold}: expected a number from 0 to {self.folds - 1}, as "
                f"folds={self.folds}"
                if self.folds
                else f"fold={self.fold} has no effect with folds=0; set `folds`"
            )
        if self.folds and not self.path:
            raise ConfigError(
                f"folds={self.folds} divides the training period of a file, and the "
                "embedded twin has none: its windows are independent of each other. "
                "Set `path`, or leave `folds` 0"
            )
        problem = layout.region_problem(self.region)
        if problem:
            raise ConfigError(problem)
