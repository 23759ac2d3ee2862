"""A field as a sum of spectral bands, and how each of them changes in time.

Small features of rain change within minutes, large ones within hours. Each band of wave
numbers, in the frame that moves with the rain, therefore follows an auto-regressive
process of its own.

Reference:
    Seed 2003, "A dynamic and spatial scaling approach to advection forecasting";
    Bowler et al. 2006, "STEPS"; Pulkkinen et al. 2019, "Pysteps".
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

# Of correlations: below 1, so that every process is stationary.
HIGHEST = 0.9999
NO_VARIANCE = 1e-20  # keeps an empty band, and its gradient, from 0 / 0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cascade:
    """The last two fields in bands, and the process that each band follows.

    With z the departures of a band from its mean in units of its standard deviation:
    z(t + 1) = first z(t) + second z(t - 1) + shock e, with e of variance 1.

    Attributes:
        mean: of the last field, a scalar.
        spectra: complex64 `[2, h, w // 2 + 1]`, of the last field and the one before.
        scale: `[2, m]`, standard deviations of each band in these fields.
        first, second, shock: `[m]`, coefficients of the process.
    """

    mean: jax.Array
    spectra: jax.Array
    scale: jax.Array
    first: jax.Array
    second: jax.Array
    shock: jax.Array


def bands(size: tuple[int, ...], number: int) -> np.ndarray:
    """How much of each wave number is in each band; the sum over the bands is 1.

    Bands are cosines in the logarithm of the wave number, with centres from one wave
    across the longer side, with all that is longer, to two cells, with all that is
    shorter.

    Args:
        size: rows and columns of the field.
        number: of bands, at least 1.

    Returns:
        float32 `[number, h, w // 2 + 1]`, for spectra as from `rfft2`.
    """
    h, w = size
    longest = max(size)
    rows = np.fft.fftfreq(h)[:, None] * longest
    columns = np.fft.rfftfreq(w)[None, :] * longest
    waves = np.maximum(np.hypot(rows, columns), 1)
    octaves = np.log(waves) / max(np.log(longest / 2), 1e-6)
    place = np.clip(octaves, 0, 1) * (number - 1)
    below = np.minimum(place.astype(int), max(number - 2, 0))
    share = (np.sin(np.pi / 2 * (place - below)) ** 2).astype(np.float32)
    numbers = np.arange(number)[:, None, None]
    return np.where(
        numbers == below, 1 - share, np.where(numbers == below + 1, share, 0)
    ).astype(np.float32)


def decompose(fields: jax.Array, number: int) -> Cascade:
    """The bands of the last fields, and their processes from two lagged correlations.

    Args:
        fields: `[3, h, w]`, successive fields without their motion.
        number: of bands.
    """
    size = fields.shape[1:]
    means = fields.mean(axis=(1, 2), keepdims=True)
    spectra = jnp.fft.rfft2(fields - means, norm="ortho")
    squares = (bands(size, number) ** 2 * _twice(size[1])).reshape(number, -1)

    def products(a: jax.Array, b: jax.Array) -> jax.Array:
        """Mean product `[m]` of two fields in each band, by Parseval's theorem."""
        power = (a.real * b.real + a.imag * b.imag).reshape(-1)
        return jnp.matmul(squares, power, precision="highest") / (size[0] * size[1])

    earlier, previous, last = spectra
    variance = jnp.stack([products(x, x) for x in (last, previous, earlier)])
    is_empty = variance <= NO_VARIANCE
    scale = jnp.where(is_empty, 0, jnp.sqrt(jnp.where(is_empty, 1, variance)))
    divisor = jnp.where(is_empty, 1, scale)
    one = jnp.clip(products(last, previous) / (divisor[0] * divisor[1]), 0, HIGHEST)
    two = products(last, earlier) / (divisor[0] * divisor[2])
    # The second coefficient is the partial correlation: the process is stationary if
    # and only if it and the first correlation are between -1 and 1.
    second = jnp.clip((two - one**2) / (1 - one**2), -HIGHEST, HIGHEST)
    first = one * (1 - second)
    shock = jnp.sqrt((1 - second**2) * (1 - one**2))
    return Cascade(
        means[-1, 0, 0], jnp.stack([last, previous]), scale[:2], first, second, shock
    )


def expected(cascade: Cascade, size: tuple[int, ...], steps: int) -> jax.Array:
    """The fields that follow if no shock comes, `[steps, h, w]`.

    Every band decays towards 0, the mean of the field stays.

    Args:
        cascade: of fields of this size.
        size: rows and columns.
        steps: number of fields.
    """
    ones, zeros = jnp.ones_like(cascade.first), jnp.zeros_like(cascade.first)
    of_last = respond(cascade, ones, zeros, steps)
    of_previous = respond(cascade, zeros, ones, steps)
    last, previous = cascade.scale
    is_empty = previous == 0
    # What the field before was in units of its own standard deviation.
    of_previous *= jnp.where(is_empty, 0, last / jnp.where(is_empty, 1, previous))
    factors = jnp.stack([of_last, of_previous], 1)
    amplitudes = jnp.einsum("kim,mhw->kihw", factors, bands(size, len(last)))
    spectra = jnp.einsum("kihw,ihw->khw", amplitudes, cascade.spectra)
    return cascade.mean + jnp.fft.irfft2(spectra, size, norm="ortho")


def respond(
    cascade: Cascade, now: jax.Array, before: jax.Array, steps: int
) -> jax.Array:
    """What follows in each band from two values `[..., m]`: `[steps, ..., m]`."""

    def step(values, _):
        now, before = values
        following = cascade.first * now + cascade.second * before
        return (following, now), following

    return jax.lax.scan(step, (now, before), length=steps)[1]


def _twice(width: int) -> np.ndarray:
    """How often each column of a real spectrum is in the whole one, `[w // 2 + 1]`."""
    times = np.full(width // 2 + 1, 2, np.float32)
    times[0] = 1
    if width % 2 == 0:
        times[-1] = 1
    return times
