"""A synthetic weather radar: endless rain that drifts, grows and decays, from a seed.

It produces images of vertically integrated liquid (VIL) over 384 km x 384 km every five
minutes, coded like those of SEVIR. Rain systems travel with a steering wind that
differs between events and varies slightly in space:

    VIL(x, t) = texture(x - v t, t) * sum_n  A_n(t) G((x - x_n(t)) / s_n(t))

Every term n of the sum is either a convective cell, which is intense, a few kilometres
wide and gone within an hour or two, or a part of the wide, weak stratiform rain around
it. Its centre moves with the wind, its amplitude A_n rises and falls once (a sine
squared), and its size s_n grows with age; G is a Gaussian. Cells form scattered groups
or lines across the wind, and every system grows or decays as a whole. The texture is
log-normal noise on many scales that drifts with the rain and changes within hours. The
motion and age of existing rain can therefore be learned; new cells cannot be predicted.

The numbers are chosen to resemble radar images and to give roughly the mean and
standard deviation of the codes of SEVIR; they are not fitted to any data.
"""

import dataclasses
import functools
import math

import numpy as np
import scipy.fft

from earthformer_jax.statistics.linear_system import generator

DOMAIN = 384  # km, side of the image; a pixel at full resolution is 1 km
MINUTES = 5  # between frames at full resolution
MAX_CODE = 254
# VIL code = CODE_OFFSET + CODE_SCALE ln(VIL in kg/m2): SEVIR's scale of codes above 18,
# used here for all codes, so that values below 0.12 kg/m2 are invisible.
CODE_OFFSET, CODE_SCALE = 83.9, 38.9

ROWS = 96  # that are computed at a time
# Rain in kg/m2: what one cell adds is left out below the first; below the second, code
# 0 whatever the texture, which would have to be 10 standard deviations above its mean.
DARK, INVISIBLE, LEAST = 1e-9, 1e-4, 1e-6

SPLIT_KEYS = {"train": 0, "validation": 1, "test": 2}

WIND_SPEED = 0.35, 1.3  # km per minute
WIND_FROM_WEST = 0.9  # radians, standard deviation of the direction around east
WIND_SHEAR = 7e-4  # per minute, standard deviation of each velocity gradient

SYSTEMS = 2, 8  # per event, lower bound and exclusive upper bound
SYSTEM_SPREAD = 25.0, 75.0  # km
LINE_SHARE = 0.35  # share of systems whose cells form a line
LINE_LENGTH, LINE_WIDTH = 120.0, 7.0  # km, half the length; standard deviation across
LINE_TRAIL = 25.0  # km from a line to the stratiform rain behind it
SYSTEM_TREND = 0.006  # per minute, standard deviation of growth

CELLS = 8, 27  # of a system at one time, lower bound and exclusive upper bound
CELL_LIFE, CELL_LIFE_SPREAD = 60.0, 0.4  # minutes, median; of its logarithm
CELL_PEAK, CELL_PEAK_SPREAD = 4.5, 1.1  # kg/m2, median; of its logarithm
CELL_SIZE = 2.5, 7.0  # km, standard deviation of the Gaussian

SHIELDS = 7  # stratiform parts of a system at one time
SHIELD_LIFE = 300.0  # minutes
SHIELD_PEAK, SHIELD_PEAK_SPREAD = 0.6, 0.8
SHIELD_SIZE = 14.0, 45.0

TEXTURE_SPREAD = 0.7  # of the logarithm
TEXTURE_SLOPE = 1.35  # amplitude falls with wave number to this power
TEXTURE_LONGEST = 60.0  # km
TEXTURE_PERIOD = 512.0  # km after which it repeats
TEXTURE_LIFE = 480.0  # minutes after which it repeats


@dataclasses.dataclass(frozen=True)
class RadarTwin:
    """Random-access events of the twin; event i depends only on (seed, split, i).

    Items are uint8 `[frames, h, w]` codes 0 to 254, row 0 in the south, h = w =
    384 / space_step.

    Attributes:
        split: "train", "validation" or "test".
        size: number of events.
        frames: number of frames per event.
        seed: of the random numbers.
        time_step: frames are this many times five minutes apart.
        space_step: km per pixel.
    """

    split: str
    size: int
    frames: int
    seed: int = 0
    time_step: int = 1
    space_step: int = 1

    def __post_init__(self):
        if self.split not in SPLIT_KEYS:
            known = ", ".join(SPLIT_KEYS)
            raise ValueError(f"split {self.split!r} is unknown; use one of {known}")
        for name in ("size", "frames", "time_step", "space_step"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")
        if DOMAIN % self.space_step:
            raise ValueError(
                f"space_step={self.space_step} does not divide the {DOMAIN} km of the "
                "radar twin"
            )

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> np.ndarray:
        if not 0 <= index < self.size:
            raise IndexError(f"event {index} of {self.size}")
        rng = generator(self.seed, SPLIT_KEYS[self.split], index)
        minutes = MINUTES * self.time_step * np.arange(self.frames, dtype=np.float64)
        pixels = DOMAIN // self.space_step
        wind = _wind(rng)
        cells = _cells(rng, wind, duration=float(minutes[-1]))
        rain = _Rain(cells, pixels, self.space_step)
        texture = _Texture(rng, wind.mean, pixels, self.space_step)
        codes = np.zeros((self.frames, pixels, pixels), np.uint8)
        for frame, minute in zip(codes, minutes, strict=True):
            rain.at(minute)
            texture.at(minute)
            # A few rows at a time: what is computed of them stays in the cache.
            for first in range(0, pixels, ROWS):
                rows = slice(first, first + ROWS)
                logarithm, columns = rain.logarithm(rows)
                logarithm += texture.logarithm(rows, columns)
                logarithm *= np.float32(CODE_SCALE)
                logarithm += np.float32(CODE_OFFSET)
                np.minimum(logarithm, MAX_CODE, out=logarithm)
                np.rint(np.maximum(logarithm, 0, out=logarithm), out=logarithm)
                frame[rows, columns] = logarithm
        return codes


@dataclasses.dataclass(frozen=True)
class Wind:
    """A wind that varies linearly over the image.

    Attributes:
        mean: (north, east) km per minute in the middle.
        gradient: `[2, 2]` per minute, of (north, east) along (north, east).
    """

    mean: np.ndarray
    gradient: np.ndarray

    def at(self, place: np.ndarray) -> np.ndarray:
        """Velocity `[n, 2]` at places `[n, 2]` in km from the south-western corner."""
        return self.mean + (place - DOMAIN / 2) @ self.gradient.T


@dataclasses.dataclass(frozen=True)
class Cells:
    """Gaussian parts of the rain, each with its own lifetime.

    Attributes:
        place: `[n, 2]` km north and east of the corner, halfway through its life.
        velocity: `[n, 2]` km per minute.
        middle: `[n]` minutes, the middle of its life.
        life: `[n]` minutes.
        peak: `[n]` kg/m2.
        size: `[n, 2]` km, standard deviations in the middle of its life.
    """

    place: np.ndarray
    velocity: np.ndarray
    middle: np.ndarray
    life: np.ndarray
    peak: np.ndarray
    size: np.ndarray


def _wind(rng: np.random.Generator) -> Wind:
    speed, angle = rng.uniform(*WIND_SPEED), WIND_FROM_WEST * rng.standard_normal()
    gradient = WIND_SHEAR * rng.standard_normal((2, 2))
    gradient -= np.trace(gradient) / 2 * np.eye(2)  # without divergence
    return Wind(speed * np.array([np.sin(angle), np.cos(angle)]), gradient)


def _cells(rng: np.random.Generator, wind: Wind, duration: float) -> Cells:
    """The cells of all rain systems during an event of `duration` minutes."""
    systems = [_system(rng, wind, duration) for _ in range(int(rng.integers(*SYSTEMS)))]
    place, middle, life, peak, size = (
        np.concatenate(parts) for parts in zip(*systems, strict=True)
    )
    return Cells(place, wind.at(place), middle, life, peak, size)


def _system(rng: np.random.Generator, wind: Wind, duration: float) -> tuple:
    """(place, middle, life, peak, size) of the cells of one rain system."""
    n = round(rng.integers(*CELLS) * (1 + duration / CELL_LIFE))
    shields = round(SHIELDS * (1 + duration / SHIELD_LIFE))
    centre = rng.uniform(0, DOMAIN, 2)  # half-way through the event
    is_line = rng.random() < LINE_SHARE
    spread = rng.uniform(*SYSTEM_SPREAD)
    trend = SYSTEM_TREND * rng.standard_normal()
    strength = np.exp(0.5 * rng.standard_normal())
    across = wind.mean / np.linalg.norm(wind.mean)
    along = np.array([-across[1], across[0]]) + 0.4 * rng.standard_normal(2)

    life = CELL_LIFE * np.exp(CELL_LIFE_SPREAD * rng.standard_normal(n))
    life = np.concatenate([life, np.full(shields, SHIELD_LIFE)])
    middle = rng.uniform(-life / 2, duration + life / 2)
    peak = np.exp(
        np.concatenate(
            [
                np.log(CELL_PEAK) + CELL_PEAK_SPREAD * rng.standard_normal(n),
                np.log(SHIELD_PEAK) + SHIELD_PEAK_SPREAD * rng.standard_normal(shields),
            ]
        )
    )
    peak *= strength * np.exp(trend * (middle - duration / 2))
    size = np.concatenate(
        [rng.uniform(*CELL_SIZE, (n, 2)), rng.uniform(*SHIELD_SIZE, (shields, 2))]
    )
    if is_line:
        offset = rng.uniform(-LINE_LENGTH, LINE_LENGTH, len(life))[:, None] * along
        offset += LINE_WIDTH * rng.standard_normal((len(life), 1)) * across
        offset[n:] -= LINE_TRAIL * across
    else:
        offset = spread * rng.standard_normal((len(life), 2))
    place = centre + offset + (middle - duration / 2)[:, None] * wind.at(centre)
    return place, middle, life, peak, size


class _Rain:
    """VIL in kg/m2 of all cells, without texture."""

    def __init__(self, cells: Cells, pixels: int, km: float):
        self._cells = cells
        self._centres = km * (np.arange(pixels) + 0.5)
        self._north = self._east = np.empty((0, pixels), np.float32)

    def at(self, minute: float) -> None:
        """Chooses a time; what follows is of the cells that exist then."""
        cells = self._cells
        since = minute - cells.middle
        age = since / cells.life + 0.5
        n = (age > 0) & (age < 1)
        place = cells.place[n] + cells.velocity[n] * since[n, None]
        size = cells.size[n] * (0.7 + 0.6 * age[n, None])
        amplitude = cells.peak[n] * np.sin(np.pi * age[n]) ** 2
        north, self._east = (
            _gauss(self._centres, place[:, i], size[:, i]) for i in (0, 1)
        )
        north *= amplitude.astype(np.float32)[:, None]
        self._north = north

    def rows(self, rows: slice) -> np.ndarray:
        """Some rows, float32 `[rows, w]`."""
        north, east = self._north[:, rows].T, self._east
        if len(north) < len(self._centres):
            near = np.flatnonzero(north.max(axis=0, initial=0) > DARK)
            north, east = north[:, near], east[near]
        # Products of a few rows run in one thread, so readers do not compete for cores.
        few = math.gcd(8, len(north))
        strips = north.reshape(len(north) // few, few, len(east)) @ east
        return strips.reshape(len(north), -1)

    def logarithm(self, rows: slice) -> tuple[np.ndarray, slice]:
        """Logarithm of some rows, and the columns where it may be visible."""
        rain, columns = self.rows(rows), slice(0, len(self._centres))
        if len(rain) < len(self._centres):
            lit = np.flatnonzero(rain.max(axis=0, initial=0) > INVISIBLE)
            columns = slice(int(lit[0]), int(lit[-1]) + 1) if len(lit) else slice(0, 0)
            rain = rain[:, columns]
        return np.log(np.maximum(rain, LEAST)), columns


def _gauss(x: np.ndarray, middle: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Gaussians float32 `[n, x]` of height 1 with middles and sizes `[n]`."""
    exponent = (x - middle[:, None]).astype(np.float32)
    exponent *= (1 / (np.sqrt(2) * size)).astype(np.float32)[:, None]
    np.square(exponent, out=exponent)
    # At least 1e-13 far away, because denormal numbers are slow to multiply.
    np.negative(np.minimum(exponent, 30, out=exponent), out=exponent)
    return np.exp(exponent, out=exponent)


class _Texture:
    """Log of the texture: drifting, slowly changing noise, of which the mean is 1."""

    def __init__(self, rng: np.random.Generator, velocity, pixels: int, km: float):
        n = int(TEXTURE_PERIOD / km)
        both = [_noise(rng, n, km) for _ in range(2)]
        # Repeated, so that every shift of the image lies in it.
        repeated = np.arange(n + pixels + 2) % n
        self._fields = [x.take(repeated, 0).take(repeated, 1) for x in both]
        self._period, self._velocity = n, np.asarray(velocity) / km
        self._pixels = pixels
        self._first, self._shares = np.zeros(2, int), np.zeros(2)
        self._turn = np.zeros(2, np.float32)

    def at(self, minute: float) -> None:
        """Chooses a time."""
        angle = 2 * np.pi * minute / TEXTURE_LIFE
        self._turn = np.array([np.cos(angle), np.sin(angle)], np.float32)
        shift = -self._velocity * minute
        whole = np.floor(shift).astype(int)
        self._first = (whole - 1) % self._period
        self._shares = shift - whole

    def logarithm(self, rows: slice, columns: slice) -> np.ndarray:
        """Some rows and columns of it, float32."""
        height = len(range(*rows.indices(self._pixels)))
        width = columns.stop - columns.start
        top, left = self._first + (rows.start, columns.start)
        window = np.s_[top : top + height + 3, left : left + width + 3]
        cut, second = (
            t * x[window] for t, x in zip(self._turn, self._fields, strict=True)
        )
        cut += second
        texture = _between(cut, self._shares)
        texture -= np.float32(TEXTURE_SPREAD**2 / 2)
        return texture


def _noise(rng: np.random.Generator, n: int, km: float) -> np.ndarray:
    """Periodic Gaussian noise float32 `[n, n]` of standard deviation TEXTURE_SPREAD."""
    spectrum = np.asarray(scipy.fft.rfft2(rng.standard_normal((n, n), np.float32)))
    spectrum *= _amplitude(n, km)
    spectrum[0, 0] = 0
    noise = np.asarray(scipy.fft.irfft2(spectrum, (n, n)))
    return noise * np.float32(TEXTURE_SPREAD / (noise.std() or 1))  # 0: one pixel


def _between(cut: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Values at shares (rows, columns) of the way to the next: `[h - 3, w - 3]`."""
    height, width = cut.shape[0] - 3, cut.shape[1] - 3
    rows, columns = (_cubic(np.float32(share)) for share in shares)
    cut = _weighted([cut[k : k + height] for k in range(4)], rows)
    return _weighted([cut[:, k : k + width] for k in range(4)], columns)


@functools.lru_cache
def _amplitude(n: int, km: float) -> np.ndarray:
    """Amplitude of each wave of the noise, float32 `[n, n // 2 + 1]`."""
    north = scipy.fft.fftfreq(n, km)[:, None]
    east = scipy.fft.rfftfreq(n, km)[None, :]
    wave_number = np.maximum(np.hypot(north, east), 1 / TEXTURE_LONGEST)
    return wave_number.astype(np.float32) ** -TEXTURE_SLOPE


def _weighted(terms: list[np.ndarray], weights: list[np.float32]) -> np.ndarray:
    """Sum of arrays with weights."""
    total = weights[0] * terms[0]
    part = np.empty_like(total)
    for weight, term in zip(weights[1:], terms[1:], strict=True):
        total += np.multiply(weight, term, out=part)
    return total


def _cubic(x: np.float32) -> list[np.float32]:
    """Weights of the values at -1, 0, 1, 2 for the value at x in 0..1 (Catmull-Rom)."""
    weights = (
        (-x + 2 * x**2 - x**3) / 2,
        (2 - 5 * x**2 + 3 * x**3) / 2,
        (x + 4 * x**2 - 3 * x**3) / 2,
        (-(x**2) + x**3) / 2,
    )
    return [np.float32(w) for w in weights]
