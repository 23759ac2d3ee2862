r"""Earthformer on MovingMNIST: 10 frames of two moving digits from the last 10.

    python -m earthformer_jax.main --config=configs/moving_mnist.py \
        --workdir=runs/moving_mnist

Without a path the sequences are generated from embedded digits. Other sources:

    --config.data.path=mnist_test_seq.npy       the official file, the paper's split
    --config.data.path=tfds                     the same data, prepared by TFDS
    --config.data.digits=FOLDER                 generated from MNIST's idx files

Variants, as in --config=configs/moving_mnist.py:quick
    paper   (default) the model of table 8 with 8 global vectors, 7.6 million
            parameters. Needs an accelerator; the paper reports MSE 41.79 on the
            official file
    quick   frames of 32 x 32. 5 to 6 minutes on two CPU cores; expect MSE 29, summed
            over a frame (persistence 61)
    ar      the data of quick, as codes of a VQ-VAE that is trained first, with
            samples (docs/autoregressive.md). 12 minutes of processor time; expect MSE
            52 for the most probable frames
    test    a few seconds, to check that everything runs; its score is meaningless
"""

import ml_collections

from earthformer_jax.run import recipes


def get_config(variant: str = "paper") -> ml_collections.ConfigDict:
    """The configuration of a variant."""
    c = recipes.start(
        data=dict(name="moving_mnist"), model=recipes.earthformer("mnist")
    )
    return recipes.change(c, variant, VARIANTS)


def _paper(c):
    """The defaults."""


def _quick(c):
    """A small model on frames of half the size, with new sequences at every step."""
    c.data.update(space_step=2, train=20_000, validation=64, test=100)
    c.model = recipes.earthformer("small")
    recipes.shorten(c, steps=800, batch_size=4, micro_batch=4)


def _ar(c):
    """A VQ-VAE, and the auto-regressive Earthformer of its codes."""
    _quick(c)
    c.model = recipes.model_options("earthformer_ar", "quick")
    recipes.shorten(c, steps=3000, batch_size=4, micro_batch=4)


def _test(c):
    """The smallest possible run."""
    c.data.update(size=32, in_len=4, out_len=3, train=32, validation=8, test=8)
    c.model = recipes.earthformer("tiny")
    recipes.shorten(c, **recipes.TEST)
    c.eval.batch_size = 4


VARIANTS = dict(paper=_paper, quick=_quick, ar=_ar, test=_test)
