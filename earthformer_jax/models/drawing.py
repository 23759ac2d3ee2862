"""Random numbers of members of a forecast, as a function of what the model sees.

The same window has the same members in every batch, on every device and in every
process, and a smaller ensemble is the beginning of a larger one.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.ops.tuned.hashed_key import mix, positions

_SALTS = (0x9E3779B9, 0x7F4A7C15)  # one for each word of a key

# `jax.random.normal`, or another function of a key and a shape.
Distribution = Callable[[jax.Array, tuple[int, ...]], jax.Array]


def draw(
    distribution: Distribution,
    inputs: jax.Array,
    size: int,
    shape: tuple[int, ...],
    seed: int,
    first: jax.typing.ArrayLike = 0,
) -> jax.Array:
    """Numbers for each member of every window, a function of its values.

    Args:
        distribution: `jax.random.normal` or `jax.random.uniform`.
        inputs: `[b, ...]`.
        size: number of members.
        shape: of the numbers of one member of one window.
        seed: another one gives other numbers.
        first: number of the first member.

    Returns:
        float32 `[size, b, *shape]`.
    """
    keys = jax.random.wrap_key_data(fingerprints(inputs, seed), impl="threefry2x32")

    def one(member):
        key = jax.vmap(jax.random.fold_in, (0, None))(keys, member)
        return jax.vmap(lambda k: distribution(k, shape))(key)

    numbers = jnp.arange(size, dtype=jnp.uint32) + jnp.asarray(first, jnp.uint32)
    return jax.vmap(one)(numbers)


def fingerprints(inputs: jax.Array, seed: int) -> jax.Array:
    """Two words for each example of `[b, ...]` that depend on all its bits.

    Sums of integers do not depend on their order, so that any device gives the same.

    Returns:
        uint32 `[b, 2]`.
    """
    x = inputs.astype(jnp.float32)
    x = jnp.where(x == 0, 0.0, x)  # a sum, x + 0.0, would be left out by the compiler
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    place = positions((1, *inputs.shape[1:]))
    words = []
    for salt in _SALTS:
        mixed = mix(bits ^ mix(place + np.uint32(salt)))
        word = mixed.sum(axis=range(1, inputs.ndim), dtype=jnp.uint32)
        words.append(mix(word + np.uint32(seed % 2**32)))
    return jnp.stack(words, axis=-1)
