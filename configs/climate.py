r"""Earthformer on climate cubes: several variables, 5 days forecast from the last 10.

    python -m earthformer_jax.main --config=configs/climate.py --workdir=runs/climate

Without a path the data are the embedded climate twin, synthetic daily weather. To use
NetCDF or Zarr files of a reanalysis, a climate model or observations:

    --config.data.path='era5/*.nc' --config.data.variables=t2m,msl \
        --config.data.train_until=2010 --config.data.validate_until=2014-06-30

`python -m earthformer_jax.data inspect PATH` shows what is in a file. Crop large fields
with --config.data.region=SOUTH,NORTH,WEST,EAST, or coarsen them with
--config.data.space_step=N.

Variants, as in --config=configs/climate.py:quick
    paper   (default) the model of table 8 with 8 global vectors, for grids of 32 x 64
            or more. Needs an accelerator; time and score have not been measured
    quick   for grids of about 10 x 12 to 20 x 30. 5 minutes on two CPU cores; on the
            twin expect MSE 0.37 (damped persistence 0.77, persistence 1.27)
    test    a few seconds, to check that everything runs; its score is meaningless
"""

import ml_collections

from earthformer_jax.run import recipes


def get_config(variant: str = "paper") -> ml_collections.ConfigDict:
    """The configuration of a variant."""
    c = recipes.start(
        data=dict(name="climate"),
        model=recipes.earthformer(stem_scale=(1, 1, 1)),
    )
    return recipes.change(c, variant, VARIANTS)


def _paper(c):
    """The defaults."""


def _quick(c):
    """A small model on half the rows and columns."""
    # The patch merge normalises every patch, which alone would discard the amplitude of
    # an anomaly; a convolution with a bias before it preserves that information.
    c.model = recipes.earthformer(
        "small",
        stem_scale=(1, 1, 1),
        base_units=32,
        block_units=(32, 64),
        stem_stages=((32, (1, 2, 2), 1),),
    )
    recipes.shorten(c, steps=400, batch_size=8, micro_batch=8)


def _test(c):
    """The smallest possible run."""
    _quick(c)
    c.data.update(in_len=4, out_len=2, twin_years=3)
    c.model.update(enc_depth=(1,), dec_depth=(1,), block_units=(32,))
    c.train.update(recipes.TEST)
    c.eval.batch_size = 32


VARIANTS = dict(paper=_paper, quick=_quick, test=_test)
