r"""Earthformer on MovingMNIST: 10 frames of two moving digits to the next 10.

    python -m earthformer_jax.main --config=configs/moving_mnist.py \
        --workdir=runs/moving_mnist

Without a path the sequences are generated, from embedded digits or from MNIST's:

    --config.data.path=mnist_test_seq.npy       the official file, the paper's split
    --config.data.path=tfds                     the same, prepared by TFDS
    --config.data.digits=FOLDER                 generated from MNIST's idx files

Variants, as in --config=configs/moving_mnist.py:quick
    paper   (default) table 8 with 8 global vectors, 7.6 million parameters. For an
            accelerator; the paper has MSE 41.79 with the official file
    quick   frames of 32 x 32. 5 to 6 minutes on two CPU cores; expect MSE 29 as a sum
            over a frame (persistence 61)
    test    seconds, to see that everything runs; the score means nothing
"""

import ml_collections

from earthformer_jax.run import recipes


def get_config(variant: str = "paper") -> ml_collections.ConfigDict:
    """What a variant changes of the defaults."""
    c = recipes.start(
        data=dict(name="moving_mnist"), model=recipes.earthformer("mnist")
    )
    return recipes.change(c, variant, VARIANTS)


def _paper(c):
    """Nothing changes."""


def _quick(c):
    """A small model of frames of half the size, and new sequences at every step."""
    c.data.update(space_step=2, train=20_000, validation=64, test=100)
    c.model = recipes.earthformer("small")
    recipes.shorten(c, steps=800, batch_size=4, micro_batch=4)


def _test(c):
    """The smallest of everything."""
    c.data.update(size=32, in_len=4, out_len=3, train=32, validation=8, test=8)
    c.model = recipes.earthformer("tiny")
    recipes.shorten(c, **recipes.TEST)
    c.eval.batch_size = 4


VARIANTS = dict(paper=_paper, quick=_quick, test=_test)
