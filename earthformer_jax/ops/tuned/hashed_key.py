"""PRNG keys derived by two integer operations, and dropout from hashes.

Gain: with these keys a training step on N-body MNIST compiles in 34 instead of 59 s;
dropout from hashed positions reduces a step on ENSO from 1.8 to 0.72 s (two CPU cores).

A large model derives hundreds of keys for dropout. With JAX's own keys each derivation
is a program of a hundred operations, which XLA repeats wherever the result is used;
together they take several times as long to compile as the model's gradient. On a CPU,
drawing a number for each element also takes as long as a matrix product. Whether an
element is dropped need only look random, so here it is a hash of its position and the
key's two words. The compiler computes it wherever it is used, with the same result on
any number of devices. The hash distinguishes layers, steps and elements, but it is too
simple for statistical use.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import random as extend_random

from earthformer_jax.ops.dropout import Reordered, threshold
from earthformer_jax.ops.tuned import choice


def hashed_key(key: jax.Array) -> jax.Array:
    """A hashing key made from a PRNG key of any kind.

    All functions of `jax.random` accept it, and keys derived from it are hashing keys.
    Where hashes were not measured to be faster, the key is returned unchanged.
    """
    if _is_hashed(key) or not choice.measured():
        return key
    return jax.random.wrap_key_data(key_words(key), impl=_HASHED)


def of_part(words: jax.Array, number: jax.Array) -> jax.Array:
    """A key for one of equal parts of an array, with the random numbers of that part.

    Args:
        words: uint32 `[2]`, from `key_words`.
        number: of the part. Its elements come after those of all parts before it.
    """
    number = number.astype(jnp.uint32)[None]
    return jax.random.wrap_key_data(jnp.concatenate([words, number]), impl=_OF_PART)


def starting_at(key: jax.Array, position: Any) -> jax.Array:
    """A hashing key whose first number is the one that `key` gives to a position.

    Args:
        key: a key of `hashed_key`; without hashing keys there are no positions.
        position: integer or integers `[...]`, in the order of the flat array.
    """
    words = key_words(key)
    first = words[0] + jnp.asarray(position).astype(jnp.uint32) * (words[1] | 1)
    words = jnp.stack([first, jnp.broadcast_to(words[1], first.shape)], axis=-1)
    return jax.random.wrap_key_data(words, impl=_HASHED)


def key_words(key: jax.Array) -> jax.Array:
    """uint32 words for a key: a hashing key's data, otherwise drawn from it.

    Returns:
        `[2]`; `[3]` for a key `of_part`, whose number is the last one.
    """
    if jax.random.key_impl(key) in (_HASHED, _OF_PART):
        return jax.random.key_data(key)
    return jax.random.bits(key, (2,), jnp.uint32)


def keep_mask(
    shape: tuple[int, ...],
    rate: float,
    words: jax.Array,
    *,
    swap: bool = False,
    reordered: Reordered | None = None,
) -> jax.Array:
    """bool mask: False for the elements that `ops.dropout` drops with a hashing key.

    Args:
        shape: of the mask.
        rate: share of the elements to drop, less than 1.
        words: uint32, from `key_words`.
        swap: whether the last two axes of the array are swapped.
        reordered: an axis that is not in the usual order, not one of these two.
    """
    if reordered is None:
        position = positions(shape, swap)
    else:
        position = reordered.merge(positions(reordered.apart(shape), swap))
    return hashed_bits(position, words) >= threshold(rate)


def _is_hashed(key):
    return jax.random.key_impl(key) == _HASHED


def positions(shape: tuple[int, ...], swap: bool = False) -> jax.Array:
    """uint32: each element's index in the flat array, before any swap of axes."""
    order = list(range(len(shape)))
    if swap:
        order[-2:] = order[:-3:-1]
    position, step = jnp.zeros((), jnp.uint32), 1
    for axis in reversed(order):
        count = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
        position = position + count * np.uint32(step % 2**32)
        step *= shape[axis]
    return position


def hashed_bits(position: jax.Array, words: jax.Array) -> jax.Array:
    """uint32 like `position`: distinct positions give distinct, well-mixed bits.

    Args:
        position: uint32.
        words: uint32, from `key_words`.
    """
    if len(words) == 3:
        position = position + words[2] * np.uint32(position.size % 2**32)
    return mix(position * (words[1] | 1) + words[0])


def mix(x: jax.Array) -> jax.Array:
    """A bijection of uint32 in which every bit of `x` changes every bit of the result.

    Reference:
        C. Wellons 2018, Prospecting for Hash Functions ("lowbias32"),
        https://nullprogram.com/blog/2018/07/31/
    """
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)


def _seed(seed):
    low = seed.astype(jnp.uint32)
    wide = seed.dtype.itemsize == 8
    high = (seed >> 32).astype(jnp.uint32) if wide else jnp.zeros_like(low)
    return mix(jnp.stack([low, high ^ _OTHER]))


def _fold_in(key, data):
    # The mixed value is known at compile time when layers are distinguished. The factor
    # makes the order of two folds matter.
    return key * _FACTOR + jnp.stack([mix(data + _OTHER), mix(data ^ _OTHER)])


def _split(key, shape):
    children = jnp.arange(math.prod(shape), dtype=jnp.uint32)
    words = jax.vmap(lambda n: _fold_in(mix(key ^ _OTHER), n))(children)
    return words.reshape(*shape, 2)


def _random_bits(key, bit_width, shape):
    if bit_width == 64:
        halves = _random_bits(key, 32, (*shape, 2)).astype(jnp.uint64)
        return halves[..., 0] << 32 | halves[..., 1]
    bits = hashed_bits(positions(shape), key)
    if bit_width == 32:
        return bits
    return (bits >> (32 - bit_width)).astype(f"uint{bit_width}")


_OTHER = np.uint32(0x9E3779B9)  # digits of the golden ratio
_FACTOR = np.uint32(0x915F77F5)  # odd, a multiplier of L'Ecuyer 1999
_HASHED = extend_random.define_prng_impl(
    key_shape=(2,),
    seed=_seed,
    split=_split,
    random_bits=_random_bits,
    fold_in=_fold_in,
    name="hashed",
    tag="hash",
)


def _never(*_):
    raise NotImplementedError("keys of parts only draw bits; derive keys before")


_OF_PART = extend_random.define_prng_impl(
    key_shape=(3,),
    seed=_never,
    split=_never,
    random_bits=_random_bits,
    fold_in=_never,
    name="hashed_of_part",
    tag="part",
)
