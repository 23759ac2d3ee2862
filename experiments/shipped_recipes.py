"""How each model that comes with the package is made, and what its card says of it.

`shipped_models.py` makes them from `RECIPES`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import ml_collections

import earthformer_jax as ef
from earthformer_jax.run.config import completed


@dataclasses.dataclass(frozen=True)
class Score:
    """A column of the table of a card.

    Attributes:
        key: of the metric's scores.
        heading: of the column.
        decimals: that are shown.
        lead: which one of scores by lead, from 1; None: the score is one number.
        higher_is_better: whether it is.
        judged: whether the card says by how much the model is better or worse.
    """

    key: str
    heading: str
    decimals: int
    lead: int | None = None
    higher_is_better: bool = False
    judged: bool = True

    def of(self, scores: Mapping[str, Any]) -> float:
        """The number in the scores of one forecast."""
        value = scores[self.key]
        return float(value if self.lead is None else value[self.lead - 1])


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a model is made, and what its card says besides the scores.

    Attributes:
        title: one line.
        config: of `ef.load_config`.
        scores: columns of the table.
        data: what the data are, and their terms.
        limits: what the model cannot do.
        settings: further changes of the config to choose from, by what they are called.
        chosen_by: the score on the validation split that chooses among them.
        chosen_on: changes of the config for trainings that only serve this choice.
        choosing: which data these are validated on, for the card.
        use: a command that forecasts with it; "" if there is none.
        changes: fields of the config.
        block: consecutive test examples that bootstrap samples keep together.
        file: the file in `data.path`; "": the data are generated.
        option: of this script that says where the file is.
    """

    title: str
    config: str
    scores: tuple[Score, ...]
    data: str
    limits: str
    settings: Mapping[str, Mapping[str, Any]] = dataclasses.field(
        default_factory=lambda: {"": {}}
    )
    chosen_by: Score | None = None
    chosen_on: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    choosing: str = ""
    use: str = ""
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    block: int = 1
    file: str = ""
    option: str = ""

    def configure(
        self, setting: str, path: str = "", *, choosing: bool = False
    ) -> ml_collections.ConfigDict:
        """The whole config.

        Args:
            setting: one of `settings`.
            path: of the data; "": as in the shipped file, without its folder.
            choosing: whether the training only serves to choose among the settings.
        """
        changes = {**self.changes, **self.settings[setting]}
        if choosing:
            changes |= self.chosen_on
        if self.file:
            changes["data.path"] = path or self.file
        return completed(ef.load_config(self.config, changes))


C_NINO34_M = Score("c_nino34_m", "C-Nino3.4-M", 2, higher_is_better=True)
_NINO = tuple(
    Score("correlation_monthly", f"r at {lead} mo", 2, lead, True, judged=False)
    for lead in (1, 3, 6, 9)
)
RECIPES = {
    "enso-sst": Recipe(
        title="El Niño from observed sea surface temperature",
        config="enso:quick",
        changes={
            "data.train_until": "1979-12",
            "data.validate_until": "1984-12",
            "model.base": "lim_field_memory",
            "data.memory": True,
            "train.simulated_steps": 0,
            "train.simulated_fraction": 0.0,
            "train.steps": 200,
            "train.validate_every": 25,
            "train.early_stop_patience": 3,
        },
        settings={
            "a learning rate of 0.001": {"optim.lr": 1e-3},
            "0.0003": {"optim.lr": 3e-4},
        },
        chosen_by=C_NINO34_M,
        chosen_on={"data.train_until": "1959-12"},
        choosing="1960 to 1984, by trainings that end in 1959 and serve nothing else",
        file="kaplan_pacific_ssta_1856_2014.nc",
        option="sst",
        block=36,  # three years, as in the tables of docs/enso.md
        scores=(
            C_NINO34_M,
            *_NINO,
            Score("mse", "MSE (K²)", 3),
        ),
        data=(
            "Monthly anomalies of sea surface temperature in the tropical Pacific, 12 "
            "x 22 cells of 5 degrees, from Kaplan Extended SST v2 (Kaplan et al. 1998, "
            "J. Geophys. Res. 103), 1856 to October 2014. NOAA PSL, Boulder, "
            "distributes the data without restrictions "
            "(https://psl.noaa.gov/data/gridded/data.kaplan_sst.html). The file was "
            "repacked from the R package sinkr, whose code is under the GPL; neither "
            "code nor data of it are part of this package, only weights and "
            "statistics."
        ),
        limits=(
            "Its forecasts of Niño3.4 are those of the linear inverse model that it "
            "begins as, the one with the memory of fields; on other periods that is "
            "not better than the one with the memory of Niño3.4 alone (docs/enso.md). "
            "A file should reach 48 months "
            "back: 12 of input and the 36 before them, which it remembers. "
            "Trained on anomalies of monthly means in this region, on this grid. "
            "Values before about 1950 are reconstructed from few ships, and 30 years "
            "of test hold about ten events, hence the wide intervals. Like every "
            "forecast that minimises squared errors it is too weak at long leads, and "
            "it says nothing about its own uncertainty. Not a substitute for "
            "operational forecasts."
        ),
        use=(
            "python -m earthformer_jax.main --mode=forecast --model=enso-sst \\\n"
            "    --input=kaplan_pacific_ssta_1856_2014.nc --output=forecast.nc"
        ),
    ),
    "nbody-mnist": Recipe(
        title="Attracting digits",
        config="nbody_mnist:quick",
        scores=(
            Score("mse", "MSE (sum over a frame)", 2),
            Score("mae", "MAE (sum over a frame)", 1),
            Score("ssim", "SSIM", 3, higher_is_better=True),
        ),
        data=(
            "Sequences that the package generates: three digits that attract each "
            "other, 32 x 32 pixels. The digits are the 8 x 8 ones in scikit-learn "
            "(E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, "
            "UCI Machine Learning Repository, CC BY 4.0)."
        ),
        limits=(
            "Digits blur after a few frames: squared errors halve, but sharpness is "
            "lost, so SSIM and absolute errors are worse than those of persistence. "
            "Other speeds, sizes or numbers of digits were not trained."
        ),
    ),
    "radar-twin": Recipe(
        title="Synthetic radar images",
        config="sevir:quick",
        scores=(
            Score("mse", "MSE", 4),
            Score("csi_m", "CSI-M", 3, higher_is_better=True),
        ),
        data=(
            "Radar images that the package generates in the layout of SEVIR "
            "(vertically integrated liquid, 5 minutes), 48 x 48 pixels of 8 km. "
            "Nothing in them was measured."
        ),
        limits=(
            "The storms are simulated: they move and grow by simple rules. The model "
            "has never seen a real radar image and its scores say nothing about "
            "forecasts of rain. Forecasts that move the rain without any training are "
            "far better on the same windows: S-PROG has an MSE of 0.0081 and a CSI-M "
            "of 0.358, extrapolation 0.0087 and 0.378 (docs/verification.md)."
        ),
    ),
}
