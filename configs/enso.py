r"""Earthformer on El Niño: 12 months of sea-surface temperature to the next 14.

    python -m earthformer_jax.main --config=configs/enso.py --workdir=runs/enso

Without a path the data are the embedded stochastic twin of El Niño, whose best possible
forecast is known. Real files:

    --config.data.path=CMIP_DIRECTORY                  ICAR-ENSO, the paper's data
    --config.data.path=sst.nc --config.data.train_until=1979-12 \
        --config.data.validate_until=1984-12           any monthly SST on a regular grid

Variants, as in --config=configs/enso.py:quick
    paper     (default) table 8 with 8 global vectors, 7.6 million parameters
    released  the official checkpoint: its model of 1.4 million parameters, its recipe
    quick     minutes on two CPU cores
    test      seconds, to see that everything runs
"""

import ml_collections

from earthformer_jax.run import recipes


def get_config(variant: str = "paper") -> ml_collections.ConfigDict:
    """Returns the locked config of a variant."""
    change = recipes.choose(VARIANTS, variant, "configs/enso.py")
    c = recipes.training()
    c.data = dict(
        name="enso",
        path="",  # nothing: the embedded twin
        label_path="",
        variable="",
        train_from="",
        train_until="",
        validate_until="",
        test_until="",
        in_len=12,
        out_len=14,
        split="paper",  # table 2: 5,205 / 334 / 1,667 windows
        normalization="auto",
        scale=0.0,
        calendar=False,
        simulated=True,
        twin_train=5205,
        twin_validation=334,
        twin_test=1667,
    )
    c.model = recipes.earthformer(stem_scale=(1, 1, 2))
    c.train.update(monitor="c_nino34_m", monitor_mode="max")
    change(c)
    return c.lock()


def _paper(c):
    """Nothing changes."""


def _released(c):
    """The yaml file of the official checkpoint."""
    c.data.split = "released"
    c.model.update(
        enc_depth=(1, 1),
        dec_depth=(1, 1),
        num_global_vectors=0,
        use_global_self_attn=False,
    )
    c.optim.lr = 1e-4
    examples = 52_350
    c.train.validate_every = 5 * (examples // c.train.batch_size)  # 5 epochs
    c.train.early_stop_patience = 5


def _quick(c):
    """A small model on anomalies in units of their standard deviation."""
    # The stem is one patch merge, which normalises every patch: beside the calendar
    # channels the size of an anomaly survives that, on its own it would be lost.
    c.data.update(normalization="anomaly", calendar=True)
    c.model.update(
        base_units=16,
        block_units=(16, 64),
        num_heads=2,
        enc_depth=(1, 1),
        dec_depth=(1, 1),
        enc_pattern="divided_st,full",
        dec_self_pattern="divided_st,full",
        stem="stack_conv",
        stem_stages=((16, (1, 4, 4), 0),),
        num_global_vectors=4,
    )
    recipes.shorten(c, steps=800, batch_size=16)
    c.train.update(
        simulated_steps=600,
        simulated_fraction=0.5,
        monitor="mse",
        monitor_mode="min",
    )


def _test(c):
    """The smallest of everything."""
    _quick(c)
    c.data.update(twin_train=64, twin_validation=16, twin_test=32)
    c.model.update(enc_depth=(1,), dec_depth=(1,), block_units=(16,))
    c.model.update(enc_pattern="axial", dec_self_pattern="axial")
    c.train.update(
        batch_size=8,
        micro_batch=4,
        steps=6,
        simulated_steps=3,
        validate_every=3,
        log_every=1,
    )


VARIANTS = dict(paper=_paper, released=_released, quick=_quick, test=_test)
