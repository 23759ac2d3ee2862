r"""Earthformer on N-body MNIST: 10 frames of digits that attract each other to 10 more.

    python -m earthformer_jax.main --config=configs/nbody_mnist.py \
        --workdir=runs/nbody_mnist

Without a path the sequences are generated, from embedded digits or from MNIST's:

    --config.data.digits=MNIST                      generated, from MNIST's idx files
    --config.data.digits=MNIST --config.data.path=FOLDER
                                                    the paper's: nbody_train.npz, ...
    --config.data.path=DATA/nbody_mnist/1.0.0       prepared by TFDS

Variants, as in --config=configs/nbody_mnist.py:quick
    paper   (default) table 8 with 8 global vectors, 7.6 million parameters
    quick   minutes on two CPU cores
    test    seconds, to see that everything runs
"""

import ml_collections

from earthformer_jax.run import recipes


def get_config(variant: str = "paper") -> ml_collections.ConfigDict:
    """Returns the locked config of a variant."""
    change = recipes.choose(VARIANTS, variant, "configs/nbody_mnist.py")
    c = recipes.training()
    c.data = dict(
        name="nbody_mnist",
        path="",  # nothing: generated
        digits="",  # nothing: the embedded digits
        train=20_000,  # table 2
        validation=1000,
        test=1000,
        in_len=10,
        out_len=10,
        num_digits=3,
        size=64,
        space_step=1,
        canvas=128,
        every=5,
        mode="r0",
        G=0.05,
        softening=10.0,
        max_speed=2.0,
    )
    c.model = recipes.earthformer(stem_scale=(1, 2, 2))
    change(c)
    return c.lock()


def _paper(c):
    """Nothing changes."""


def _quick(c):
    """A small model of frames of half the size, and new sequences at every step."""
    c.data.update(space_step=2, validation=64, test=100)
    c.model.update(
        base_units=16,
        block_units=(16, 64),
        num_heads=2,
        enc_depth=(1, 1),
        dec_depth=(1, 1),
        stem="stack_conv",
        stem_stages=((16, (1, 2, 2), 1),),
        num_global_vectors=4,
    )
    recipes.shorten(c, steps=800, batch_size=4)


def _test(c):
    """The smallest of everything."""
    _quick(c)
    c.data.update(
        size=32,
        space_step=1,
        canvas=64,
        in_len=4,
        out_len=3,
        train=32,
        validation=8,
        test=8,
    )
    c.model.update(
        block_units=(16,),
        enc_depth=(1,),
        dec_depth=(1,),
        stem_stages=((16, (1, 2, 2), 0),),
    )
    c.train.update(batch_size=8, micro_batch=4, steps=4, validate_every=2, log_every=1)
    c.eval.batch_size = 4


VARIANTS = dict(paper=_paper, quick=_quick, test=_test)
