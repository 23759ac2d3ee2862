r"""Earthformer on SEVIR: 65 minutes of radar pictures to the next hour.

    python -m earthformer_jax.main --config=configs/sevir.py --workdir=runs/sevir

Without a path the data are the embedded radar twin. Real files:

    --config.data.path=SEVIR                 the folder with CATALOG.csv and data/vil/
    --config.data.skip_missing_files=True    if only some of the files are there
    --config.data.split=fraction             if they are few, or of other years

SEVIR is public; VIL is the part that is needed:

    aws s3 cp --no-sign-request s3://sevir/CATALOG.csv SEVIR/CATALOG.csv
    aws s3 cp --no-sign-request --recursive s3://sevir/data/vil SEVIR/data/vil

Variants, as in --config=configs/sevir.py:quick
    paper     (default) table 9 with 8 global vectors, 15.1 million parameters
    released  the official checkpoint: its model of 8.7 million parameters, its recipe
    lr        SEVIR-LR, 10 minutes and 3 km, made from SEVIR on reading; for its own
              files add --config.data.time_step=1 --config.data.space_step=1
    quick     minutes on two CPU cores: 48 x 48 pixels of 8 km
    test      seconds, to see that everything runs
"""

import ml_collections

from earthformer_jax.run import recipes


def get_config(variant: str = "paper") -> ml_collections.ConfigDict:
    """Returns the locked config of a variant."""
    change = recipes.choose(VARIANTS, variant, "configs/sevir.py")
    c = recipes.training()
    c.data = dict(
        name="sevir",
        path="",  # nothing: the embedded twin
        catalog_path="",
        skip_missing_files=False,
        max_missing=0.0,
        split="date",  # table 2: 35,718 / 9,060 / 12,159 windows
        train_from="",
        train_until="2019-01-01",
        validate_until="2019-06-01",
        test_until="",
        in_len=13,
        out_len=12,
        stride=12,
        time_step=1,
        space_step=1,
        normalization="01",
        crop=(),
        flip=False,
        rotate=False,
        twin_train=35718,
        twin_validation=9060,
        twin_test=12159,
    )
    c.model = recipes.earthformer(  # table 9
        base_units=128,
        enc_depth=(2, 2),
        dec_depth=(2, 2),
        stem="stack_conv",
        stem_stages=((16, (1, 3, 3), 2), (64, (1, 2, 2), 2), (128, (1, 2, 2), 2)),
    )
    c.train.update(micro_batch=2, monitor="csi_m", monitor_mode="max")
    c.eval.batch_size = 4
    change(c)
    return c.lock()


def _paper(c):
    """Nothing changes."""


def _released(c):
    """The yaml file of the official checkpoint."""
    c.model.update(enc_depth=(1, 1), dec_depth=(1, 1), separate_global_qkv=True)
    c.optim.weight_decay = 0.0
    c.train.batch_size = 32


def _lr(c):
    """The reference implementation's configuration for SEVIR-LR."""
    c.data.update(in_len=7, out_len=6, stride=6, time_step=2, space_step=3)
    c.model.update(
        base_units=64,
        enc_depth=(1, 1),
        dec_depth=(1, 1),
        stem_stages=((4, (1, 1, 1), 2), (16, (1, 2, 2), 2), (64, (1, 2, 2), 2)),
        num_global_vectors=0,
        use_global_self_attn=False,
    )
    c.optim.weight_decay = 0.0
    c.train.batch_size = 32
    c.eval.batch_size = 16


def _quick(c):
    """A small model on pixels of 8 km."""
    c.data.update(space_step=8, twin_train=4096, twin_validation=64, twin_test=128)
    c.model.update(
        base_units=16,
        block_units=(16, 64),
        num_heads=2,
        enc_depth=(1, 1),
        dec_depth=(1, 1),
        enc_pattern="divided_st,full",
        dec_self_pattern="divided_st,full",
        stem_stages=((16, (1, 4, 4), 1),),
        num_global_vectors=4,
        forecast_change=True,
    )
    recipes.shorten(c, steps=600, batch_size=4)
    c.train.update(monitor="mse", monitor_mode="min")
    c.eval.batch_size = 16


def _test(c):
    """The smallest of everything."""
    _quick(c)
    c.data.update(
        in_len=4,
        out_len=3,
        space_step=24,
        twin_train=32,
        twin_validation=8,
        twin_test=8,
    )
    c.model.update(
        block_units=(16,),
        enc_depth=(1,),
        dec_depth=(1,),
        enc_pattern="axial",
        dec_self_pattern="axial",
        stem_stages=((16, (1, 2, 2), 0),),
    )
    c.train.update(batch_size=8, micro_batch=4, steps=4, validate_every=2, log_every=1)
    c.eval.batch_size = 4


VARIANTS = dict(paper=_paper, released=_released, lr=_lr, quick=_quick, test=_test)
