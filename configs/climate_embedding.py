r"""An embedding for every day of a climate cube, and weather regimes found from them.

    python -m earthformer_jax.main --config=configs/climate_embedding.py:quick

An autoencoder of FAConvLSTM cells restores windows of days from one short vector a day.
The workdir gets embeddings.nc (vectors, dates, regimes), scores.json and figures. Data
are those of configs/climate.py: the embedded twin, or files,

    --config.data.path='era5/*.nc' --config.data.variables=t2m,msl

The number of regimes is --config.eval.clusters=7, ConvLSTM cells come with
--config.model.cell=conv_lstm, and --config.data.anomalies=True removes the mean seasons
first, so that regimes are those of the weather.

Variants, as in --config=configs/climate_embedding.py:quick
    paper   (default) the size of ConvLSTM autoencoders for 40 x 40 cells and a year
    quick   minutes on two CPU cores
    test    seconds, to see that everything runs
"""

import ml_collections

from earthformer_jax.run import recipes


def get_config(variant: str = "paper") -> ml_collections.ConfigDict:
    """Returns the locked config of a variant."""
    change = recipes.choose(VARIANTS, variant, "configs/climate_embedding.py")
    c = recipes.training()
    c.data = recipes.cube(in_len=8, out_len=0, calendar=True)  # targets: the inputs
    c.model = dict(
        name="conv_autoencoder",
        cell="fa_conv_lstm",
        features=64,
        strides=(2, 2),
        cell_kernel=3,
        cell_options={},
        embedding=64,
        plane_features=8,
        heads=4,
        hidden=128,
        harmonics=4,
        dtype="",
    )
    c.optim.update(lr=1e-3, clip_norm=1.0)
    c.train.update(batch_size=16, micro_batch=16)
    change(c)
    return c.lock()


def _paper(c):
    """Nothing changes."""


def _quick(c):
    """One stride, for grids of about 10 x 12 to 20 x 30."""
    c.model.update(features=32, strides=(2,), embedding=32, hidden=64)
    c.optim.update(lr=3e-3, ema_decay=0.98, min_lr_ratio=0.01)
    c.train.update(steps=1000, validate_every=500, early_stop_patience=0)


def _test(c):
    """The smallest of everything."""
    _quick(c)
    c.data.update(in_len=4, twin_years=3)
    c.model.update(features=8, embedding=8, hidden=0, heads=2)
    c.train.update(batch_size=4, micro_batch=4, steps=4, validate_every=2, log_every=1)
    c.eval.update(batch_size=32, clusters=3)


VARIANTS = dict(paper=_paper, quick=_quick, test=_test)
