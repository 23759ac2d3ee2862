r"""An embedding of every day of a climate cube, and weather regimes derived from them.

    python -m earthformer_jax.main --config=configs/climate_embedding.py:quick

An autoencoder of FAConvLSTM cells reconstructs windows of days from one short vector
per day. It writes embeddings.nc (vectors, dates, regimes), scores.json and figures to
the workdir. The data are those of configs/climate.py: the embedded twin, or files:

    --config.data.path='era5/*.nc' --config.data.variables=t2m,msl

--config.eval.clusters=7 sets the number of regimes, --config.model.cell=conv_lstm
selects ConvLSTM cells, and --config.data.anomalies=True removes the mean seasonal cycle
first, so that the regimes describe the weather rather than the season.

Variants, as in --config=configs/climate_embedding.py:quick
    paper   (default) the size of ConvLSTM autoencoders for 40 x 40 cells and a year.
            Needs an accelerator; time and score have not been measured
    quick   a few minutes on two CPU cores. experiments/README.md compares its scores
            after 600 steps with those of other cells
    test    a few seconds, to check that everything runs; its score is meaningless
"""

import ml_collections

from earthformer_jax.run import recipes


def get_config(variant: str = "paper") -> ml_collections.ConfigDict:
    """The configuration of a variant."""
    c = recipes.start(
        data=dict(
            name="climate",
            in_len=8,
            out_len=0,  # the targets are the inputs
            anomalies=False,
        ),
        model=dict(name="conv_autoencoder"),
    )
    c.train.batch_size = 16
    return recipes.change(c, variant, VARIANTS)


def _paper(c):
    """A model of twice the width with two strided stages."""
    c.model.update(features=64, strides=(2, 2), embedding=64, hidden=128)


def _quick(c):
    """One strided stage, for grids of about 10 x 12 to 20 x 30."""
    c.optim.update(lr=3e-3, ema_decay=0.98, min_lr_ratio=0.01)
    c.train.update(steps=1000, validate_every=500, early_stop_patience=0)


def _test(c):
    """The smallest possible run."""
    _quick(c)
    c.data.update(in_len=4, twin_years=3)
    c.model.update(features=8, embedding=8, hidden=0, heads=2)
    c.train.update(recipes.TEST, batch_size=4)
    c.eval.update(batch_size=32, clusters=3)


VARIANTS = dict(paper=_paper, quick=_quick, test=_test)
