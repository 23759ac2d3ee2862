"""Random numbers by counting: those of `jax.random` with "threefry2x32", in NumPy.

A key is two uint32. Keys and numbers equal those of JAX bit for bit, for many keys at
once, so sequences drawn here are those that a device draws.

Reference:
    Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", table 2; the
    way JAX counts (`jax_threefry_partitionable`, its default since 0.5).
"""

import numpy as np

_ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)
_PARITY = 0x1BD11BDA
_MANTISSA = 9  # bits of a uint32 that a float32 between 1 and 2 has no room for
_HALF = 16  # bits


def threefry(keys: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Enciphers counts with keys.

    Args:
        keys: uint32 `[..., 2]`.
        counts: uint32 `[..., 2]`; both broadcast against each other.

    Returns:
        uint32 `[..., 2]`.
    """
    keys, counts = np.asarray(keys, np.uint32), np.asarray(counts, np.uint32)
    first, second = keys[..., 0], keys[..., 1]
    schedule = first, second, first ^ second ^ np.uint32(_PARITY)
    shape = np.broadcast_shapes(keys.shape, counts.shape)
    out = np.empty(shape, np.uint32)
    x, y = out[..., 0], out[..., 1]
    np.add(counts[..., 0], first, out=x)
    np.add(counts[..., 1], second, out=y)
    high = np.empty(shape[:-1], np.uint32)
    for turn in range(5):
        for left in _ROTATIONS[turn % 2]:
            x += y
            np.left_shift(y, np.uint32(left), out=high)
            y >>= np.uint32(32 - left)
            y |= high
            y ^= x
        x += schedule[(turn + 1) % 3]
        y += schedule[(turn + 2) % 3] + np.uint32(turn + 1)
    return out


def key(seed: int) -> np.ndarray:
    """The key of a seed, 0 to 2**32 - 1."""
    return np.array([0, seed], np.uint32)


def fold_in(keys: np.ndarray, numbers) -> np.ndarray:
    """Keys `[..., 2]` that depend on keys `[..., 2]` and numbers `[...]`."""
    numbers = np.asarray(numbers, np.uint32)
    return threefry(keys, np.stack([np.zeros_like(numbers), numbers], axis=-1))


def split(keys: np.ndarray, count: int) -> np.ndarray:
    """`count` keys `[..., count, 2]` from each of keys `[..., 2]`."""
    return threefry(keys[..., None, :], _counted(count))


def bits(keys: np.ndarray, count: int) -> np.ndarray:
    """`count` uint32 `[..., count]` from each of keys `[..., 2]`."""
    both = threefry(keys[..., None, :], _counted(count))
    return both[..., 0] ^ both[..., 1]


def as_uniform(drawn: np.ndarray, high: float = 1.0) -> np.ndarray:
    """float32 in 0..high from uint32, as `jax.random.uniform` makes them."""
    one = np.float32(1).view(np.uint32)
    between = (drawn >> np.uint32(_MANTISSA)) | one
    return (between.view(np.float32) - np.float32(1)) * np.float32(high)


def as_integer(higher: np.ndarray, lower: np.ndarray, count: int) -> np.ndarray:
    """int32 in 0..count - 1 from uint32 of two keys, as `jax.random.randint` does."""
    span = np.uint32(count)
    factor = np.uint32(2**_HALF % count)
    factor = np.uint32(int(factor) * int(factor) % 2**32) % span
    return ((higher % span * factor + lower % span) % span).astype(np.int32)


def _counted(count: int) -> np.ndarray:
    return np.stack([np.zeros(count, np.uint32), np.arange(count, dtype=np.uint32)], -1)
