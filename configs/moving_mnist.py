r"""Earthformer on MovingMNIST: 10 frames of two moving digits to the next 10.

    python -m earthformer_jax.main --config=configs/moving_mnist.py \
        --workdir=runs/moving_mnist

Without a path the sequences are generated, from embedded digits or from MNIST's:

    --config.data.path=mnist_test_seq.npy       the official file, the paper's split
    --config.data.path=tfds                     the same, prepared by TFDS
    --config.data.digits=FOLDER                 generated from MNIST's idx files

Variants, as in --config=configs/moving_mnist.py:quick
    paper   (default) table 8 with 8 global vectors, 7.6 million parameters
    quick   minutes on two CPU cores
    test    seconds, to see that everything runs
"""

import ml_collections

from earthformer_jax.run import recipes


def get_config(variant: str = "paper") -> ml_collections.ConfigDict:
    """Returns the locked config of a variant."""
    change = recipes.choose(VARIANTS, variant, "configs/moving_mnist.py")
    c = recipes.training()
    c.data = dict(
        name="moving_mnist",
        path="",  # nothing: generated
        digits="",  # nothing: the embedded digits
        num_digits=2,
        size=64,
        space_step=1,
        in_len=10,
        out_len=10,
        train=8100,  # table 2
        validation=900,
        test=1000,
    )
    c.model = recipes.earthformer(stem_scale=(1, 2, 2))
    change(c)
    return c.lock()


def _paper(c):
    """Nothing changes."""


def _quick(c):
    """A small model of frames of half the size, and new sequences at every step."""
    c.data.update(space_step=2, train=20_000, validation=64, test=100)
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
        size=32, space_step=1, in_len=4, out_len=3, train=32, validation=8, test=8
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
