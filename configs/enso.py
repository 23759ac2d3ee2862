r"""Earthformer on El Niño: 14 months of sea-surface temperature from the last 12.

    python -m earthformer_jax.main --config=configs/enso.py --workdir=runs/enso

Without a path the data are the embedded stochastic twin of El Niño, whose best possible
forecast is known. To use real files:

    --config.data.path=CMIP_DIRECTORY                  ICAR-ENSO, the paper's data
    --config.data.path=sst.nc --config.data.train_until=1979-12 \
        --config.data.validate_until=1984-12           any monthly SST on a regular grid
    --config.data.path=sst.nc --config.data.protocol=enso-kaplan-1950-1979
                                                       dates with a name; here the test
                                                       years come before the training

Variants, as in --config=configs/enso.py:quick
    paper     (default) the model of table 8 with 8 global vectors, 7.6 million
              parameters. Needs an accelerator; the paper reports C-Nino3.4-M 0.7329 on
              ICAR-ENSO
    released  the model of the official checkpoint, 1.4 million parameters, and its
              training recipe. Needs an accelerator; time and score have not been
              measured
    quick     4 minutes on two CPU cores; on the twin expect C-Nino3.4-M 0.67 (LIM 0.53,
              persistence 0.42, the best possible forecast 0.73)
    hybrid    the model of `quick` as a correction of the strongest linear reference, a
              linear inverse model with hidden states, which it begins as; on the twin
              that reference has C-Nino3.4-M 0.71. The benchmark on observations
              (docs/enso.md) corrects the one with the memory of past months,
              --config.model.base=lim_field_memory
    test      a few seconds, to check that everything runs; its score is meaningless
"""

import ml_collections

from earthformer_jax.run import recipes


def get_config(variant: str = "paper") -> ml_collections.ConfigDict:
    """The configuration of a variant."""
    c = recipes.start(data=dict(name="enso"), model=recipes.earthformer("enso"))
    return recipes.change(c, variant, VARIANTS)


def _paper(c):
    """The checkpoint is selected by the paper's score."""
    c.train.update(monitor="c_nino34_m", monitor_mode="max")


def _released(c):
    """The yaml file of the official checkpoint."""
    _paper(c)
    c.data.split = "released"
    c.model = recipes.earthformer("enso_released")
    c.optim.lr = 1e-4
    examples, batch_size = 52_350, 64
    c.train.validate_every = 5 * (examples // batch_size)  # 5 epochs
    c.train.early_stop_patience = 5


def _quick(c):
    """A small model on anomalies in units of their standard deviation."""
    # The stem is one patch merge, which normalises every patch. This alone would
    # discard the amplitude of an anomaly; with the calendar channels it is preserved.
    c.data.update(normalization="anomaly", calendar=True)
    stages = ((16, (1, 4, 4), 0),)
    c.model = recipes.earthformer("enso", "small_coarse", stem_stages=stages)
    recipes.shorten(
        c, steps=800, batch_size=16, simulated_steps=600, simulated_fraction=0.5
    )


def _hybrid(c):
    """The correction of a forecast that has learned most of what there is to learn.

    On observations (`data.path`) it is small, and a block inside the training period
    (`data.folds`) says when to stop; on the twin pre-training decides.
    """
    _quick(c)
    c.data.memory = True
    c.model.base = "lim_hidden"
    c.optim.update(lr=2e-3)
    c.train.update(validate_every=100)


def _test(c):
    """The smallest possible run."""
    _quick(c)
    c.data.update(twin_train=64, twin_validation=16, twin_test=32)
    stages = ((16, (1, 4, 4), 0),)
    c.model = recipes.earthformer("enso", "tiny", stem_stages=stages)
    c.model.update(recipes.NO_DROPOUT)
    c.train.update(recipes.TEST, steps=6, simulated_steps=3, validate_every=3)


VARIANTS = dict(
    paper=_paper, released=_released, quick=_quick, hybrid=_hybrid, test=_test
)
