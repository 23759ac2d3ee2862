r"""Earthformer on climate cubes: 10 days of several variables to the next 5.

    python -m earthformer_jax.main --config=configs/climate.py --workdir=runs/climate

Without a path the data are the embedded climate twin, synthetic daily weather. Files
of a reanalysis, a climate model or observations, NetCDF or Zarr:

    --config.data.path='era5/*.nc' --config.data.variables=t2m,msl \
        --config.data.train_until=2010 --config.data.validate_until=2014-06-30

`python -m earthformer_jax.data inspect PATH` says what is in a file. Large fields are
cropped with --config.data.region=SOUTH,NORTH,WEST,EAST and made smaller with
--config.data.space_step=N.

Variants, as in --config=configs/climate.py:quick
    paper   (default) table 8 with 8 global vectors, for grids of 32 x 64 and more. For
            an accelerator; neither time nor score has been measured
    quick   for grids of about 10 x 12 to 20 x 30. 5 minutes on two CPU cores; on the
            twin expect MSE 0.37 (damped persistence 0.77, persistence 1.27)
    test    seconds, to see that everything runs; the score means nothing
"""

import ml_collections

from earthformer_jax.run import recipes


def get_config(variant: str = "paper") -> ml_collections.ConfigDict:
    """What a variant changes of the defaults."""
    c = recipes.start(
        data=dict(name="climate"),
        model=recipes.earthformer(stem_scale=(1, 1, 1)),
    )
    return recipes.change(c, variant, VARIANTS)


def _paper(c):
    """Nothing changes."""


def _quick(c):
    """A small model on half the rows and columns."""
    # A convolution, with its bias, comes before the patch merge: that normalises every
    # patch, and on its own would lose the size of an anomaly.
    c.model = recipes.earthformer(
        "small",
        stem_scale=(1, 1, 1),
        base_units=32,
        block_units=(32, 64),
        stem_stages=((32, (1, 2, 2), 1),),
    )
    recipes.shorten(c, steps=400, batch_size=8, micro_batch=8)


def _test(c):
    """The smallest of everything."""
    _quick(c)
    c.data.update(in_len=4, out_len=2, twin_years=3)
    c.model.update(enc_depth=(1,), dec_depth=(1,), block_units=(32,))
    c.train.update(recipes.TEST)
    c.eval.batch_size = 32


VARIANTS = dict(paper=_paper, quick=_quick, test=_test)
