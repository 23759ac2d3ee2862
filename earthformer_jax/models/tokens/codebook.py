"""A codebook that is a moving average of the vectors it stands for.

The state of a codebook of Q codes with c channels is, per code, its moving average
share of all positions (`share` `[Q]`) and that of the vectors it was chosen for
(`total` `[Q, c]`, their sum over positions divided by the number of all positions). The
code itself is the quotient. Both are linear in the batch, so that their mean over parts
of a batch (devices under `pmap`) is that of the whole batch.

Reference:
    van den Oord et al. 2017, Neural Discrete Representation Learning,
    https://arxiv.org/abs/1711.00937, appendix A.1; Razavi et al. 2019, Generating
    Diverse High-Fidelity Images with VQ-VAE-2, https://arxiv.org/abs/1906.00446.
"""

import einops
import jax
import jax.numpy as jnp
from flax import linen as nn

from earthformer_jax.ops.devices.examples import own_key

SMOOTHING = 1e-7  # of the shares; it only matters for codes that are hardly ever chosen
UNTRAINED = 1e-3  # sum of the shares before training: every code is below any threshold
REVIVED = 2.0  # share of a revived code, in multiples of the share that is dead


def vectors(share: jax.Array, total: jax.Array) -> jax.Array:
    """The codes `[Q, c]`, float32, from their state.

    Shares get Laplace smoothing, which keeps the quotient finite: (share + e) * n / (n
    + Q e) with n the sum of all shares.
    """
    whole, size = jnp.sum(share), len(share)
    smooth = (share + SMOOTHING) * (whole / (whole + size * SMOOTHING))
    return total / smooth[:, None]


def nearest(x: jax.Array, codes: jax.Array) -> jax.Array:
    """Number of the code with the smallest distance to each vector.

    Args:
        x: `[..., c]`.
        codes: `[Q, c]`.

    Returns:
        int32 `[...]`; the first of codes that are equally near.
    """
    x, codes = x.astype(jnp.float32), codes.astype(jnp.float32)
    product = jnp.einsum("...c,qc->...q", x, codes, precision=jax.lax.Precision.HIGHEST)
    # |x|^2 is the same for all codes.
    distance = jnp.sum(jnp.square(codes), axis=-1) - 2 * product
    return jnp.argmin(distance, axis=-1).astype(jnp.int32)


def frequencies(codes: jax.Array, size: int) -> jax.Array:
    """Share of each code among the positions, float32 `[size]`, summing to 1."""
    count = jnp.bincount(codes.ravel(), length=size)
    return count.astype(jnp.float32) / codes.size


def usage(share: jax.Array) -> jax.Array:
    """Share of the codes that occur at all, float32 `()`."""
    return jnp.mean(share > 0, dtype=jnp.float32)


def perplexity(share: jax.Array) -> jax.Array:
    """exp(entropy) of the shares `[Q]`: how many equally frequent codes that would be.

    Between 1 (always the same code) and Q (all equally often), float32 `()`.
    """
    share = share / jnp.sum(share)
    logs = jnp.log(jnp.where(share > 0, share, 1))
    return jnp.exp(-jnp.sum(share * logs))


class Codebook(nn.Module):
    """Replaces vectors with the nearest code.

    Its state is in `batch_stats`. Before the first step it is random; the first batch
    revives all codes that it does not choose.

    Attributes:
        size: number of codes, Q.
        width: channels of a code, c.
        decay: memory of the moving averages.
        revive_below: a code with a smaller share than this times 1 / Q is dead and
            replaced with a vector drawn from the batch, with the rng "sampling". Under
            `pmap` every device draws, and the new code is the mean of the draws.
    """

    size: int
    width: int
    decay: float = 0.99
    revive_below: float = 0.05

    def setup(self):
        """Makes the state."""
        self.share = self.variable(
            "batch_stats", "share", jnp.full, (self.size,), UNTRAINED / self.size
        )
        self.total = self.variable("batch_stats", "total", self._untrained)

    def _untrained(self) -> jax.Array:
        shape = (self.size, self.width)
        codes = jax.random.normal(self.make_rng("params"), shape)
        return codes * (UNTRAINED / self.size)

    def vectors(self) -> jax.Array:
        """The codes, float32 `[Q, c]`."""
        return vectors(self.share.value, self.total.value)

    def __call__(
        self, x: jax.Array, *, train: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        """The nearest codes, as numbers and as vectors.

        Args:
            x: `[..., c]`.
            train: whether the state moves towards these vectors; needs the rng
                "sampling".

        Returns:
            int32 `[...]`, and float32 `[..., c]`: constants, without a gradient.
        """
        x = jax.lax.stop_gradient(x.astype(jnp.float32))
        before = self.vectors()
        numbers = nearest(x, before)
        if train and not self.is_initializing():
            self._move(x, numbers)
        return numbers, jax.lax.stop_gradient(before[numbers])

    def _move(self, x: jax.Array, numbers: jax.Array) -> None:
        rows = einops.rearrange(x, "... c -> (...) c")
        chosen = jax.nn.one_hot(numbers.ravel(), self.size)
        precision = jax.lax.Precision.HIGHEST
        mean = jnp.einsum("nq,nc->qc", chosen, rows, precision=precision) / len(rows)
        share, total = (
            self.decay * old.value + (1 - self.decay) * new
            for old, new in ((self.share, jnp.mean(chosen, axis=0)), (self.total, mean))
        )
        least = self.revive_below / self.size
        dead = share < least
        drawn = jax.random.randint(
            own_key(self.make_rng("sampling")), (self.size,), 0, len(rows)
        )
        alive = REVIVED * least
        self.share.value = jnp.where(dead, alive, share)
        self.total.value = jnp.where(dead[:, None], alive * rows[drawn], total)
