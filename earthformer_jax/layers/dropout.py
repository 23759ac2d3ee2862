"""Dropout as a layer."""

import jax
from flax import linen as nn

from earthformer_jax.ops.dropout import Reordered, dropout
from earthformer_jax.ops.tuned.hashed_key import hashed_key


class Dropout(nn.Module):
    """Drops elements in training; draws from the random stream "dropout".

    Attributes:
        rate: share of the elements to be dropped.
        train: whether it acts.
    """

    rate: float
    train: bool

    @nn.compact
    def __call__(self, x: jax.Array, reordered: Reordered | None = None) -> jax.Array:
        """The same shape; `reordered` as for `ops.dropout.dropout`."""
        return dropout(x, self.rate, self.key(), reordered)

    def key(self) -> jax.Array | None:
        """A fresh key for `ops.dropout.dropout`, or None where nothing is dropped."""
        if not self.train or not self.rate:
            return None
        return hashed_key(self.make_rng("dropout"))
