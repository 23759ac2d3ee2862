r"""Earthformer on SEVIR: one hour of radar images from the last 65 minutes.

    python -m earthformer_jax.main --config=configs/sevir.py --workdir=runs/sevir

Without a path the data are the embedded radar twin. To use real files:

    --config.data.path=SEVIR                 the folder with CATALOG.csv and data/vil/
    --config.data.skip_missing_files=True    if only some of the files are there
    --config.data.split=fraction             if there are few, or from other years
    --config.data.protocol=sevir-paper       the whole, scored as in the paper's table 6

SEVIR is public; only its VIL part is needed:

    aws s3 cp --no-sign-request s3://sevir/CATALOG.csv SEVIR/CATALOG.csv
    aws s3 cp --no-sign-request --recursive s3://sevir/data/vil SEVIR/data/vil

Variants, as in --config=configs/sevir.py:quick
    paper     (default) the model of table 9 with 8 global vectors, 15.1 million
              parameters. Needs an accelerator; the paper reports CSI-M 0.4419 on SEVIR
    released  the model of the official checkpoint, 8.7 million parameters, and its
              training recipe. Needs an accelerator; time and score have not been
              measured
    lr        SEVIR-LR, 10 minutes and 3 km, derived from SEVIR while reading; to read
              SEVIR-LR's files add --config.data.time_step=1 --config.data.space_step=1.
              Needs an accelerator; time and score have not been measured
    quick     48 x 48 pixels of 8 km. 6 minutes on two CPU cores; on the twin expect MSE
              0.014 and CSI-M 0.25 (persistence 0.021 and 0.24, S-PROG 0.0081 and 0.36)
    residual  the data of quick; a small model corrects S-PROG: 300 steps have MSE
              0.00796 on the twin (S-PROG 0.00806, docs/verification.md)
    ar        the data of quick, as codes of a VQ-VAE that is trained first, with
              samples (docs/autoregressive.md); time and score have not been measured
    test      a few seconds, to check that everything runs; its score is meaningless
"""

import ml_collections

from earthformer_jax.run import recipes


def get_config(variant: str = "paper") -> ml_collections.ConfigDict:
    """The configuration of a variant."""
    c = recipes.start(data=dict(name="sevir"), model=recipes.earthformer("sevir"))
    return recipes.change(c, variant, VARIANTS)


def _paper(c):
    """The checkpoint is selected by the paper's score."""
    c.train.update(micro_batch=2, monitor="csi_m", monitor_mode="max")
    c.eval.batch_size = 4


def _released(c):
    """The yaml file of the official checkpoint."""
    _paper(c)
    c.model = recipes.earthformer("sevir_released")
    c.optim.weight_decay = 0.0
    c.train.batch_size = 32


def _lr(c):
    """The reference implementation's configuration for SEVIR-LR."""
    c.data.update(in_len=7, out_len=6, stride=6, time_step=2, space_step=3)
    c.model = recipes.earthformer("sevir_lr")
    c.optim.weight_decay = 0.0
    c.train.update(batch_size=32, micro_batch=2, monitor="csi_m", monitor_mode="max")


def _quick(c):
    """A small model on pixels of 8 km."""
    c.data.update(space_step=8, twin_train=4096, twin_validation=64, twin_test=128)
    c.model = recipes.earthformer("small_coarse", forecast_change=True)
    recipes.shorten(c, steps=600, batch_size=4, micro_batch=4)


def _residual(c):
    """The model of quick, which learns what S-PROG lacks."""
    _quick(c)
    c.model = recipes.earthformer("small_coarse", base="s_prog")


def _ar(c):
    """A VQ-VAE, and the auto-regressive Earthformer of its codes."""
    _quick(c)
    c.model = recipes.model_options("earthformer_ar", "quick")
    recipes.shorten(c, steps=3000, batch_size=4, micro_batch=4)


def _test(c):
    """The smallest possible run."""
    c.data.update(in_len=4, out_len=3, space_step=24)
    c.data.update(twin_train=32, twin_validation=8, twin_test=8)
    c.model = recipes.earthformer("tiny", forecast_change=True)
    recipes.shorten(c, **recipes.TEST)
    c.eval.batch_size = 4


VARIANTS = dict(
    paper=_paper,
    released=_released,
    lr=_lr,
    quick=_quick,
    residual=_residual,
    ar=_ar,
    test=_test,
)
