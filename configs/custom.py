r"""Earthformer on your own files: NetCDF, Zarr, HDF5 or .npy.

    python -m earthformer_jax.data inspect 'data/*.nc'
    python -m earthformer_jax.main --config=configs/custom.py:quick \
        --workdir=runs/mine --config.data.path='data/*.nc' --config.data.variables=T,P \
        --config.data.in_len=10 --config.data.out_len=5 \
        --config.data.train_until=2010-12-31 --config.data.validate_until=2014-12-31

The first command shows what is in the files, reports problems, and suggests the second.
If the axes of an array have no names, give them with --config.data.axes=thw
(n sequences, t time, h rows, w columns, c channels). If a number marks missing values,
give it with --config.data.missing=255. Crop large fields with
--config.data.region=SOUTH,NORTH,WEST,EAST, or coarsen them with
--config.data.space_step=N. Without dates, 70, 15 and 15 % of the frames are used for
training, validation and test. Without a path the data are the embedded climate twin.

Variants, as in --config=configs/custom.py:quick
    paper   (default) the model of table 8 with 8 global vectors, for fields of 64 x 64
            or more. Needs an accelerator; time and score have not been measured
    quick   for fields of about 32 x 32 to 64 x 64. 2 minutes on two CPU cores; without
            a path expect MSE 0.42 (damped persistence 0.51, persistence 0.88)
    test    a few seconds, to check that everything runs; its score is meaningless
"""

import ml_collections

from earthformer_jax.run import recipes


def get_config(variant: str = "paper") -> ml_collections.ConfigDict:
    """The configuration of a variant."""
    c = recipes.start(data=dict(name="custom"), model=recipes.earthformer())
    return recipes.change(c, variant, VARIANTS)


def _paper(c):
    """The defaults."""


def _quick(c):
    """A small model on a quarter of the rows and columns."""
    # The patch merge normalises every patch, which alone would discard the size of the
    # values; convolutions with a bias before it preserve that information.
    c.model = recipes.earthformer("small_coarse", forecast_change=True)
    recipes.shorten(c, steps=400, batch_size=8, micro_batch=8)
    c.train.validate_every = 50  # a short series is quickly overfitted


def _test(c):
    """The smallest possible run."""
    _quick(c)
    c.data.update(in_len=4, out_len=2, twin_years=3)
    c.model = recipes.earthformer(
        "tiny", stem_stages=((16, (1, 4, 4), 1),), forecast_change=True
    )
    c.model.update(recipes.NO_DROPOUT)
    c.train.update(recipes.TEST)
    c.eval.batch_size = 32


VARIANTS = dict(paper=_paper, quick=_quick, test=_test)
