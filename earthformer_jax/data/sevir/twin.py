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
import itertools
import math
import threading

import numpy as np
import scipy.fft

from earthformer_jax.data.reading import memory
from earthformer_jax.statistics.linear_system import generator

_kept = threading.local()

DOMAIN = 384  # km, side of the image; a pixel at full resolution is 1 km
MINUTES = 5  # between frames at full resolution
MAX_CODE = 254
# VIL code = CODE_OFFSET + CODE_SCALE ln(VIL in kg/m2): SEVIR's scale of codes above 18,
# used here for all codes, so that values below 0.12 kg/m2 are invisible.
CODE_OFFSET, CODE_SCALE = 83.9, 38.9

ROWS = 128  # that are computed at a time; rain is computed in as many columns, too
GAUSSIANS = 256  # that are computed at a time
# Rows and columns of the texture that one product of matrices gives.
BLOCK_ROWS, BLOCK_COLUMNS = 4, 16
DARK = 1e-9  # kg/m2: what one cell adds is left out below it

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

# Rain is multiplied by it, and CODE_SCALE ln(rain) plus the texture is code + 1/2, of
# which the whole part is the code. The mean of the texture is 1 after it.
BRIGHTER = math.exp((CODE_OFFSET + 0.5) / CODE_SCALE - TEXTURE_SPREAD**2 / 2)


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
        rain = _Rain(cells, minutes, pixels, self.space_step, BRIGHTER)
        texture = _Texture(rng, wind.mean, minutes, pixels, self.space_step)
        codes = memory.empty((self.frames, pixels, pixels), np.uint8)
        codes.fill(0)
        # A few rows at a time, in all frames: what they are made of stays in the cache.
        strips = [slice(k, min(k + ROWS, pixels)) for k in range(0, pixels, ROWS)]
        with np.errstate(divide="ignore"):  # where there is no rain, code 0
            for rows, (t, frame) in itertools.product(strips, enumerate(codes)):
                if (values := rain.rows(t, rows)) is not None:
                    _into_codes(values, texture.rows(t, rows), frame[rows])
        return codes


def _into_codes(rain: np.ndarray, texture: np.ndarray, codes: np.ndarray) -> None:
    """Codes of rain that is `BRIGHTER`, and of the logarithm of its texture.

    Args:
        rain: float32 `[rows, w]`; its memory is used.
        texture: the same.
        codes: uint8 `[rows, w]`, which is filled.
    """
    logarithm = np.log(rain, out=rain)
    logarithm += texture
    logarithm *= np.float32(CODE_SCALE)
    np.clip(logarithm, np.float32(0), np.float32(MAX_CODE + 0.5), out=logarithm)
    codes[...] = logarithm


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
    """VIL in kg/m2 of all cells, without texture.

    Args:
        cells: that exist at any time.
        minutes: `[t]`, of the frames.
        pixels: rows and columns of the image.
        km: per pixel.
        factor: that VIL is multiplied by.
    """

    def __init__(
        self,
        cells: Cells,
        minutes: np.ndarray,
        pixels: int,
        km: float,
        factor: float = 1.0,
    ):
        since = minutes[:, None] - cells.middle  # [t, n]
        age = since / cells.life + 0.5
        amplitude = cells.peak * np.sin(np.pi * age) ** 2
        place = (cells.place + cells.velocity * since[..., None]) / km - 0.5
        size = cells.size * (0.7 + 0.6 * age[..., None]) / km
        reach = np.sqrt(2 * np.log(np.maximum(amplitude / DARK, 1)))[..., None] * size
        seen = (age > 0) & (age < 1)
        seen &= np.all((place + reach > 0) & (place - reach < pixels - 1), axis=-1)
        place, size, reach = place[seen], size[seen], reach[seen]
        height = (factor * amplitude[seen]).astype(np.float32)[:, None]
        starts = np.arange(0, pixels, ROWS)
        stops = np.minimum(starts + ROWS, pixels)
        self._strips = [slice(*x) for x in zip(starts, stops, strict=True)]
        # Most cells reach one or two strips along each axis: [strip, cell, axis].
        near = place - reach < (stops - 1)[:, None, None]
        near &= place + reach > starts[:, None, None]
        gauss = _scratch("cells", (int(np.count_nonzero(near)), ROWS))
        self._north, self._east = [], []
        for axis, all_parts in enumerate((self._north, self._east)):
            for strip, reaches in zip(self._strips, near[..., axis], strict=True):
                which = np.flatnonzero(reaches)
                part, gauss = np.split(gauss, [len(which)])
                part = part[:, : strip.stop - strip.start]
                _gauss(place[which, axis] - strip.start, size[which, axis], part)
                if axis == 0:
                    part *= height[which]
                all_parts.append(part)
        # For each tile, which rows of the two parts above meet in it, frame by frame.
        row = np.cumsum(near, axis=1) - 1
        frame, frames = np.nonzero(seen)[0], np.arange(len(minutes) + 1)
        self._tiles = {}
        for k, i in itertools.product(range(len(starts)), repeat=2):
            which = np.flatnonzero(near[k, :, 0] & near[i, :, 1])
            ends = np.searchsorted(frame[which], frames).tolist()
            self._tiles[k, i] = row[k, which, 0], row[i, which, 1], ends
        self._values = np.empty((ROWS, pixels), np.float32)

    def rows(self, frame: int, rows: slice) -> np.ndarray | None:
        """One of the strips of `ROWS` rows, float32 `[rows, w]`, until the next call.

        Rain below `DARK` of a cell may be missing. None: there is no rain.
        """
        strip, is_dry = rows.start // ROWS, True
        values = self._values[: rows.stop - rows.start]
        # Products of a few rows run in one thread, so readers do not compete for cores.
        few = math.gcd(8, len(values))
        blocks = values.reshape(-1, few, values.shape[1])
        for i, columns in enumerate(self._strips):
            north, east, ends = self._tiles[strip, i]
            cells = slice(*ends[frame : frame + 2])
            if cells.start == cells.stop:
                values[:, columns] = 0
                continue
            north = self._north[strip].take(north[cells], 0)
            np.matmul(
                north.reshape(len(north), -1, few).transpose(1, 2, 0),
                self._east[i].take(east[cells], 0),
                out=blocks[..., columns],
            )
            is_dry = False
        return None if is_dry else values


def _gauss(middle: np.ndarray, size: np.ndarray, out: np.ndarray) -> None:
    """Gaussians of height 1 at pixels 0, 1, ...

    Args:
        middle: `[n]`, where they are 1, in pixels.
        size: `[n]` standard deviations in pixels.
        out: float32 `[n, pixels]`, which is filled.
    """
    pixels = out.shape[1]
    # A square in its three terms, of which a product of matrices makes the sum; they
    # nearly cancel, so they are float64.
    x, m = np.arange(pixels) - pixels / 2, middle - pixels / 2
    terms = np.stack([-np.square(m), 2 * m, np.full_like(m, -1)], axis=1)
    terms /= 2 * np.square(size)[:, None]
    powers = np.stack([np.ones(pixels), x, np.square(x)])
    exponent = np.empty((GAUSSIANS, pixels))
    for first in range(0, len(m), GAUSSIANS):
        part = out[first : first + GAUSSIANS]
        np.matmul(terms[first : first + GAUSSIANS], powers, out=exponent[: len(part)])
        # At least 1e-13 far away, because denormal numbers are slow to multiply.
        np.maximum(exponent[: len(part)], -30, out=part, casting="same_kind")
        np.exp(part, out=part)


class _Texture:
    """Drifting, slowly changing noise, which is the log of the texture.

    Args:
        rng: draws the noise.
        velocity: (north, east) in km per minute.
        minutes: `[t]`, of the frames.
        pixels: rows and columns of the image.
        km: per pixel.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        velocity: np.ndarray,
        minutes: np.ndarray,
        pixels: int,
        km: float,
    ):
        n = int(TEXTURE_PERIOD / km)
        size = n + pixels + 3
        # Repeated, so that every shift of the image lies in it. Rows of both fields
        # alternate, so that one product of matrices turns and interpolates them.
        fields = _scratch("fields", (size, 2, size))
        _noise(rng, km, fields[:n, :, :n])
        for first in range(n, size, n):
            fields[:n, :, first : first + n] = fields[:n, :, : size - first][..., :n]
        for first in range(n, size, n):
            fields[first : first + n] = fields[: size - first][:n]
        self._fields = fields
        shift = -np.asarray(velocity) / km * minutes[:, None]
        whole = np.floor(shift).astype(int)
        self._first = ((whole - 1) % n).tolist()
        angle = 2 * np.pi * minutes / TEXTURE_LIFE
        turn = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
        self._height = math.gcd(BLOCK_ROWS, ROWS, pixels)
        self._width = math.gcd(BLOCK_COLUMNS, pixels)
        north, east = np.moveaxis(_cubic((shift - whole).astype(np.float32)), -1, 0)
        north = _band(self._height, north)[..., None] * turn[:, None, None, :]
        self._north = north.reshape(len(minutes), self._height, -1)
        self._east = _band(self._width, east).swapaxes(1, 2).copy()
        self._rows = np.empty((ROWS, pixels), np.float32)
        self._cut = np.empty((ROWS, pixels + 3), np.float32)

    def rows(self, frame: int, rows: slice) -> np.ndarray:
        """Some rows, float32 `[rows, w]`, until the next call.

        Args:
            frame: number of the frame.
            rows: a multiple of `ROWS` and of what follows it, at most `ROWS` of them.
        """
        height, m, n = rows.stop - rows.start, self._height, self._width
        cut, values = self._cut[:height], self._rows[:height]
        width = values.shape[1]
        top, left = self._first[frame]
        row, field, pixel = self._fields.strides
        window = np.ndarray(
            (height // m, 2 * (m + 3), width + 3),
            np.float32,
            self._fields,
            (top + rows.start) * row + left * pixel,
            (m * row, field, pixel),
        )
        out = cut.reshape(height // m, m, width + 3)
        np.matmul(self._north[frame], window, out=out)
        columns = np.ndarray(
            (width // n, height, n + 3),
            np.float32,
            cut,
            strides=(n * pixel, cut.strides[0], pixel),
        )
        out = values.reshape(height, width // n, n).swapaxes(0, 1)
        np.matmul(columns, self._east[frame], out=out)
        return values


def _band(n: int, weights: np.ndarray) -> np.ndarray:
    """Matrices `[t, n, n + 3]` whose row i has weights `[4, t]` from column i on."""
    band = np.zeros((weights.shape[1], n, n + 3), np.float32)
    i = np.arange(n)
    for k, weight in enumerate(weights):
        band[:, i, i + k] = weight[:, None]
    return band


def _scratch(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Memory for float32 values, which this thread uses again for each event."""
    size = math.prod(shape)
    kept = getattr(_kept, name, None)
    if kept is None or kept.size < size:
        kept = np.empty(size, np.float32)
        setattr(_kept, name, kept)
    return kept[:size].reshape(shape)


def _noise(rng: np.random.Generator, km: float, out: np.ndarray) -> None:
    """Fills float32 `[n, 2, n]` with two fields of periodic Gaussian noise.

    Their mean is 0 and their standard deviation `TEXTURE_SPREAD`.
    """
    n = len(out)
    white, both = _scratch("white", (n, n)), _scratch("both", (n, n, 2))
    for k in range(2):
        both[..., k] = rng.standard_normal((n, n), np.float32, white)
    # One complex transform, in place, filters both: the filter is real and even.
    waves = both.view(np.complex64)[..., 0]
    waves = np.asarray(scipy.fft.fft2(waves, overwrite_x=True))
    waves *= _amplitude(n, km)
    waves[0, 0] = 0
    waves = np.asarray(scipy.fft.ifft2(waves, overwrite_x=True))
    out[:, 0], out[:, 1] = np.real(waves), np.imag(waves)
    squares = np.einsum("hkw,hkw->hk", out, out).sum(axis=0, dtype=np.float64)
    squares[squares == 0] = 1  # of a field of one pixel
    out *= (TEXTURE_SPREAD * n / np.sqrt(squares)).astype(np.float32)[:, None]


@functools.lru_cache
def _amplitude(n: int, km: float) -> np.ndarray:
    """Amplitude of each wave of the noise, float32 `[n, n]`."""
    waves = scipy.fft.fftfreq(n, km)
    wave_number = np.hypot(waves[:, None], waves)
    wave_number = np.maximum(wave_number, 1 / TEXTURE_LONGEST)
    return wave_number.astype(np.float32) ** -TEXTURE_SLOPE


def _cubic(x: np.ndarray) -> np.ndarray:
    """Weights of the values at -1, 0, 1, 2 for the value at x in 0..1 (Catmull-Rom).

    Args:
        x: `[...]`.

    Returns:
        float32 `[4, ...]`.
    """
    weights = (
        (-x + 2 * x**2 - x**3) / 2,
        (2 - 5 * x**2 + 3 * x**3) / 2,
        (x + 4 * x**2 - 3 * x**3) / 2,
        (-(x**2) + x**3) / 2,
    )
    return np.stack(weights).astype(np.float32)
