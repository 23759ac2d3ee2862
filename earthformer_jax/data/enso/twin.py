"""A stochastic twin of El Nino: endless sea-surface temperature anomalies from a seed.

A seasonally modulated linear stochastic system (`linear_system`) on the grid of the
ICAR-ENSO data (24 x 48 cells of 5 degrees). Its core is the recharge oscillator: a
temperature T of the equatorial Pacific and the warm-water volume h below it, which
forecasts never see. Because of h, twelve months of history tell more than the last one:

    T[t + 1] = (1 + g[m]) T + w h + precursors + noise[m]
    h[t + 1] = (1 - r) h - w T + noise

Growth g and noise follow the calendar: anomalies grow in autumn, peak in winter and
are lost in spring. Other basins respond to T with their own memories. The numbers are
chosen to give Nino3.4 the amplitude, seasonality, period and predictability of climate
models; they are not fitted to any data set. Because everything is linear and Gaussian,
the best possible forecast is known exactly: `ceiling_forecast`.

Reference:
    Jin 1997, "An equatorial ocean recharge paradigm for ENSO"; Levine and McPhaden
    2015 for the seasonal growth rate; Chiang and Vimont 2004 for the meridional mode;
    Klein et al. 1999 for the responses of the other basins.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from earthformer_jax.data.reading import memory
from earthformer_jax.statistics.eof import on_grid, synthesis
from earthformer_jax.statistics.linear_system import MONTHS, LinearSystem, generator

LATITUDE = np.arange(-55.0, 61.0, 5.0)
LONGITUDE = np.arange(95.0, 331.0, 5.0)

# Land (#) where less than half of a 5-degree cell is ocean in ERSSTv5; north at top.
_LAND = """
##########...........##...#########...##........
#########...................#########.####......
##########...................###########........
#########....................#######..##........
######.......................#########..........
######........................########..........
######.........................####.............
#####...........................##..............
###..............................#..............
.##.................................#...........
......................................###.......
......................................#####.....
....#.................................######....
.........##...........................########..
......................................########..
.......##..............................#######..
.....######.............................#####...
....########...........................####.....
.....#######...........................####.....
.........###...........................###......
.......................................##.......
.......................................#........
.......................................#........
................................................
"""
OCEAN_MASK = np.array([[c == "." for c in row] for row in _LAND.split()[::-1]])

# The box of the index in ICAR-ENSO: cell centres 5S..5N, 190E..240E.
NINO34_ROWS, NINO34_COLUMNS = slice(10, 13), slice(19, 30)

GROWTH_MEAN, GROWTH_SEASON, GROWTH_PEAK = -0.035, 0.15, 8.5  # per month; September
NOISE_MEAN, NOISE_SEASON, NOISE_PEAK = 0.17, 0.3, 4.5  # K; share; May
RECHARGE_PERIOD = 59.0  # months, of the undamped oscillator
DISCHARGE = 0.03  # per month
VOLUME_NOISE = 0.07
CELL_NOISE = 0.1  # K, independent in every cell and month

SMALL_SCALE_SPACING = 20.0, 30.0  # degrees of latitude and longitude
SMALL_SCALE_WIDTH = 9.0, 13.0
SMALL_SCALE_MEMORY, SMALL_SCALE_STD = 0.5, 0.15  # per month; K

SPLIT_KEYS = {"train": 0, "validation": 1, "test": 2, "simulated": 4}
SERIES_KEY = 3
# Scores are measured on these: their noise is that of the first version of the twin.
SCORED = ("validation", "test")
FAR = 1e-12  # K; smaller values of patterns are 0 when windows are made
_VOLUME = 1  # position of h in the state


@dataclasses.dataclass(frozen=True)
class Mode:
    """One red-noise mode of sea-surface temperature.

    Attributes:
        blobs: (K, latitude, longitude, width north-south, width east-west) of the
            Gaussians that make up the pattern, in degrees.
        memory: autocorrelation from month to month without ENSO.
        std: amplitude without ENSO.
        response: amplitude in equilibrium with a lasting El Nino of 1 K.
        season: (calendar month of the strongest response, its relative modulation).
        feeds: growth of T per month and unit amplitude, strongest in April.
    """

    blobs: tuple[tuple[float, float, float, float, float], ...]
    memory: float = 0.85
    std: float = 0.3
    response: float = 0.0
    season: tuple[float, float] = (0.0, 0.0)
    feeds: float = 0.0


EL_NINO = (
    (1.0, 0.0, 235.0, 7.0, 38.0),
    (0.5, -5.0, 276.0, 8.0, 12.0),
    (-0.30, 16.0, 150.0, 8.0, 16.0),
    (-0.35, -16.0, 170.0, 8.0, 18.0),
    (-0.20, 2.0, 138.0, 6.0, 12.0),
)
MODES = {
    "central_pacific": Mode(
        ((1.0, 0.0, 182.0, 6.0, 20.0), (-0.5, -2.0, 265.0, 6.0, 16.0)), 0.88, 0.3
    ),
    "north_pacific_meridional": Mode(
        ((1.0, 22.0, 228.0, 7.0, 18.0), (0.7, 13.0, 205.0, 5.0, 18.0)),
        memory=0.8,
        std=0.4,
        feeds=0.10,
    ),
    "south_pacific_meridional": Mode(
        ((1.0, -20.0, 262.0, 8.0, 18.0),), memory=0.85, std=0.35, feeds=0.05
    ),
    "pacific_decadal": Mode(
        (
            (-1.0, 38.0, 180.0, 8.0, 24.0),
            (0.7, 50.0, 222.0, 9.0, 10.0),
            (0.6, 32.0, 238.0, 8.0, 8.0),
        ),
        memory=0.9,
        std=0.4,
        response=0.4,
        season=(1.0, 0.5),
    ),
    "kuroshio": Mode(
        ((1.0, 39.0, 153.0, 5.0, 12.0), (-0.5, 26.0, 168.0, 6.0, 16.0)), 0.88, 0.35
    ),
    "indian_basin": Mode(
        ((1.0, -10.0, 95.0, 14.0, 14.0), (0.9, 12.0, 114.0, 9.0, 8.0)),
        memory=0.85,
        std=0.15,
        response=0.35,
        season=(1.0, 0.5),
    ),
    "indian_dipole": Mode(
        ((1.0, -6.0, 101.0, 7.0, 9.0),),
        memory=0.75,
        std=0.3,
        response=-0.3,
        season=(8.5, 0.8),
    ),
    "tropical_north_atlantic": Mode(
        ((1.0, 14.0, 318.0, 8.0, 18.0),),
        memory=0.87,
        std=0.25,
        response=0.35,
        season=(1.5, 0.6),
    ),
    "equatorial_atlantic": Mode(((1.0, -2.0, 328.0, 6.0, 11.0),), 0.8, 0.3),
    "south_atlantic": Mode(((1.0, -27.0, 322.0, 8.0, 12.0),), 0.85, 0.3),
    "subtropical_north_atlantic": Mode(((1.0, 35.0, 312.0, 8.0, 14.0),), 0.85, 0.35),
    "pacific_south_american": Mode(
        ((1.0, -48.0, 245.0, 8.0, 16.0), (-0.9, -42.0, 195.0, 8.0, 16.0)),
        memory=0.85,
        std=0.3,
        response=0.25,
        season=(10.0, 0.4),
    ),
    "tasman": Mode(((1.0, -38.0, 160.0, 7.0, 10.0),), 0.85, 0.35),
}


def seasonal(mean: float, modulation: float, peak: float) -> np.ndarray:
    """`[12]`: mean + modulation * cosine of the year, largest in month `peak`."""
    return mean + modulation * np.cos(2 * np.pi * (np.arange(MONTHS) - peak) / MONTHS)


def _field(blobs) -> np.ndarray:
    """Sum of Gaussians over the ocean cells, `[cells]`."""
    shapes = [
        size
        * np.exp(-(((LATITUDE[:, None] - lat) / (2**0.5 * height)) ** 2))
        * np.exp(-(((LONGITUDE[None, :] - lon) / (2**0.5 * width)) ** 2))
        for size, lat, lon, height, width in blobs
    ]
    return np.sum(shapes, axis=0)[OCEAN_MASK]


def _small_scale_centres() -> list[tuple[float, float]]:
    """A lattice of ocean points with every second row shifted by half a step."""
    north, east = SMALL_SCALE_SPACING
    centres = []
    for row, lat in enumerate(np.arange(LATITUDE[0] + 5, LATITUDE[-1] + 1, north)):
        for lon in np.arange(LONGITUDE[0] + 5 + row % 2 * east / 2, 331.0, east):
            near = np.abs(LATITUDE - lat).argmin(), np.abs(LONGITUDE - lon).argmin()
            if OCEAN_MASK[near]:
                centres.append((float(lat), float(lon)))
    return centres


@functools.cache
def patterns() -> np.ndarray:
    """Fields in K of a unit of every visible amplitude, `[q, cells]`.

    T comes first, scaled so that a unit is 1 K of Nino3.4, then `MODES`, then small
    scales.
    """
    box = np.zeros(OCEAN_MASK.shape, bool)
    box[NINO34_ROWS, NINO34_COLUMNS] = True
    el_nino = _field(EL_NINO)
    el_nino = el_nino / el_nino[box[OCEAN_MASK]].mean()
    small = [_field([(1.0, *c, *SMALL_SCALE_WIDTH)]) for c in _small_scale_centres()]
    return np.stack([el_nino, *(_field(m.blobs) for m in MODES.values()), *small])


@functools.cache
def system() -> LinearSystem:
    """The twin as a linear system: state (T, h, modes, small scales), h not observed.

    The observation noise is the error that the independent noise of the cells causes in
    the least-squares fit of `patterns`. The fit is a sufficient statistic of the state.
    """
    visible = len(patterns())
    n = visible + 1
    temperature, volume, first_mode = 0, _VOLUME, 2
    a, q = np.zeros((MONTHS, n, n)), np.zeros((MONTHS, n, n))
    turn = 2 * np.pi / RECHARGE_PERIOD
    noise = NOISE_MEAN * seasonal(1.0, NOISE_SEASON, NOISE_PEAK)

    a[:, temperature, temperature] = 1 + seasonal(
        GROWTH_MEAN, GROWTH_SEASON, GROWTH_PEAK
    )
    a[:, temperature, volume] = turn
    a[:, volume, temperature] = -turn
    a[:, volume, volume] = 1 - DISCHARGE
    q[:, temperature, temperature] = noise**2
    q[:, volume, volume] = VOLUME_NOISE**2
    for i, mode in enumerate(MODES.values(), first_mode):
        peak, modulation = mode.season
        a[:, i, i] = mode.memory
        a[:, i, temperature] = (
            mode.response * (1 - mode.memory) * seasonal(1.0, modulation, peak)
        )
        a[:, temperature, i] = mode.feeds * seasonal(1.0, 1.0, 3.0)
        q[:, i, i] = mode.std**2 * (1 - mode.memory**2)
    for i in range(first_mode + len(MODES), n):
        a[:, i, i] = SMALL_SCALE_MEMORY
        q[:, i, i] = SMALL_SCALE_STD**2 * (1 - SMALL_SCALE_MEMORY**2)
    cells = CELL_NOISE**2 * np.linalg.inv(patterns() @ patterns().T)
    return LinearSystem(a, q, np.delete(np.eye(n), volume, axis=0), cells)


@functools.cache
def _projection() -> np.ndarray:
    """Least squares from ocean cells to visible amplitudes, `[cells, q]`."""
    gram = patterns() @ patterns().T
    return np.linalg.solve(gram, patterns()).T


def _fields(amplitudes: np.ndarray) -> np.ndarray:
    """`[..., q]` amplitudes to `[..., h, w]` fields in K, zero on land."""
    return on_grid(synthesis(amplitudes, patterns()), OCEAN_MASK)


def _simulate(rng: np.random.Generator, first_month: int, months: int) -> np.ndarray:
    """`[months, h, w]` fields in K drawn from the stationary law."""
    states = system().simulate(rng, first_month, months)[0]
    cells = synthesis(system().observe(states), patterns())
    cells += CELL_NOISE * rng.standard_normal(cells.shape, np.float32)
    return on_grid(cells, OCEAN_MASK)


def training_series(seed: int, months: int) -> np.ndarray:
    """One long series for fitting statistics, from January: `[months, h, w]` K."""
    return _simulate(generator(seed, SERIES_KEY), 0, months).astype(np.float32)


def ceiling_forecast(inputs_K, start_month, out_len: int) -> np.ndarray:
    """The best possible forecast: the expectation given all input months.

    Args:
        inputs_K: `[b, t, h, w, 1]` anomalies in K.
        start_month: `[b]`, calendar month of the first forecast month, 0..11.
        out_len: number of forecast months.

    Returns:
        `[b, out_len, h, w, 1]` float32 K.
    """
    cells = np.asarray(inputs_K, np.float64)[..., 0][..., OCEAN_MASK]
    observed = np.tensordot(cells, _projection(), axes=1)
    amplitudes = system().conditional_forecast(observed, start_month, out_len)
    return _fields(amplitudes)[..., None].astype(np.float32)


def ceiling_spread(start_month, in_len: int, out_len: int, weights=None) -> np.ndarray:
    """Standard deviation of the truth about `ceiling_forecast`, which is Gaussian.

    Args:
        start_month: `[b]`, calendar month of the first forecast month, 0..11.
        in_len: months that the forecast is made from.
        out_len: number of forecast months.
        weights: `[h, w]` of a mean over the ocean; None: each cell.

    Returns:
        K: `[b, out_len, h, w, 1]`, 0 on land, or `[b, out_len]` of the mean.
    """
    start_month = np.asarray(start_month)
    by_month = {}
    for month in np.unique(start_month).tolist():
        errors = system().error_covariance(month, in_len, out_len)
        if weights is None:
            covered = np.einsum("kij,ic,jc->kc", errors, patterns(), patterns())
            std = np.sqrt(np.maximum(covered, 0) + CELL_NOISE**2)
            by_month[month] = on_grid(std, OCEAN_MASK)[..., None]
        else:
            inside = np.asarray(weights, np.float64)[OCEAN_MASK]
            shares = patterns() @ inside
            covered = np.einsum("kij,i,j->k", errors, shares, shares)
            by_month[month] = np.sqrt(covered + CELL_NOISE**2 * np.sum(inside**2))
    return np.stack([by_month[int(month)] for month in start_month])


@dataclasses.dataclass(frozen=True)
class TwinSource:
    """Random-access windows of the twin; window i depends only on (seed, split, i).

    Items are {"inputs": `[in_len, 24, 48, 1]`, "targets": `[out_len, 24, 48, 1]`}
    float32 in K, zero on land, and "start_month", the calendar month of the first
    target. Windows are independent of each other.
    """

    split: str
    size: int
    in_len: int
    out_len: int
    seed: int = 0

    def __post_init__(self):
        if self.split not in SPLIT_KEYS:
            known = ", ".join(SPLIT_KEYS)
            raise ValueError(f"split {self.split!r} is unknown; use one of {known}")
        for name in ("size", "in_len", "out_len"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {name: x[0] for name, x in self.batch([index]).items()}

    def batch(self, indices: Sequence[int]) -> dict[str, np.ndarray]:
        """Several windows, stacked."""
        months = self.in_len + self.out_len
        first = np.empty(len(indices), np.int32)
        draws = np.empty((len(indices), months, len(system().noise[0])))
        fields = memory.empty((len(indices), months, OCEAN_MASK.size), np.float32)
        generators = []
        for row, index in enumerate(indices):
            if not 0 <= index < self.size:
                raise IndexError(f"window {index} of {self.size}")
            rng = generator(self.seed, SPLIT_KEYS[self.split], index)
            first[row] = rng.integers(MONTHS)
            rng.standard_normal(out=draws[row])
            generators.append(rng)
        seen = np.delete(_states(draws, first), _VOLUME, axis=-1).astype(np.float32)
        on_whole_grid, strength = _on_whole_grid()
        noise = np.empty((months, OCEAN_MASK.size), np.float32)
        # One by one, so that they stay in the cache.
        for rng, of_window, field in zip(generators, seen, fields, strict=True):
            if self.split in SCORED:
                noise[:, OCEAN_MASK.ravel()] = rng.standard_normal(
                    (months, patterns().shape[1]), np.float32
                )
                noise[:, ~OCEAN_MASK.ravel()] = 0
            else:
                _fill_normal(rng, noise.reshape(-1))
            np.matmul(of_window, on_whole_grid, out=field)
            noise *= strength
            field += noise
        fields = fields.reshape(*fields.shape[:2], *OCEAN_MASK.shape, 1)
        return {
            "inputs": fields[:, : self.in_len],
            "targets": fields[:, self.in_len :],
            "start_month": (first + self.in_len) % np.int32(MONTHS),
        }


def _states(draws: np.ndarray, first_month: np.ndarray) -> np.ndarray:
    """States `[b, months, n]` from normal numbers of that shape, as `simulate` does.

    Most state variables depend on few others, so only those are multiplied. Every sum
    has a fixed order: a window does not depend on those it is made with.
    """
    start = system().stationary_factor[first_month % MONTHS]
    month = (first_month[:, None] + np.arange(draws.shape[1])) % MONTHS
    kicks = np.zeros_like(draws[:, 1:])
    for entries, columns in zip(*_kicks(), strict=True):
        taken = np.take_along_axis(draws[:, 1:], columns[month[:, :-1]], axis=-1)
        kicks += entries[month[:, :-1]] * taken
    steps, sources = _couplings()
    states = np.empty_like(draws)
    for row, factor in enumerate(start):
        states[row, 0] = factor @ draws[row, 0]
    for i in range(1, draws.shape[1]):
        now, before, following = month[:, i - 1], states[:, i - 1], states[:, i]
        following[...] = kicks[:, i - 1]
        for entries, columns in zip(steps, sources, strict=True):
            following += entries[now] * before.take(columns, axis=1)
    return states


def _few(matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The entries of matrices `[m, n, n]` that are not 0, row by row.

    Returns:
        entries and their columns, `[k, m, n]`: k in each row, as many as the fullest
        row has, the others filled up with 0.
    """
    large = np.abs(matrices) > FAR
    most = int(np.max(np.sum(large, axis=-1)))
    columns = np.argsort(~large, axis=-1, kind="stable")[..., :most]
    entries = np.take_along_axis(np.where(large, matrices, 0), columns, axis=-1)
    return np.moveaxis(entries, -1, 0), np.moveaxis(columns, -1, 0)


@functools.cache
def _kicks() -> tuple[np.ndarray, np.ndarray]:
    """Entries and columns `[k, 12, n]` of the factors of the noise."""
    return _few(system().noise_factor)


@functools.cache
def _couplings() -> tuple[np.ndarray, np.ndarray]:
    """Entries `[k, 12, n]` of the transitions, and their columns `[k, n]`."""
    transition = system().transition
    _, columns = _few(np.abs(transition).sum(axis=0, keepdims=True))
    columns = columns[:, 0]
    rows = np.arange(len(transition[0]))
    return np.stack([transition[:, rows, of] for of in columns]), columns


@functools.cache
def _on_whole_grid() -> tuple[np.ndarray, np.ndarray]:
    """`patterns` `[q, h w]` and the noise of cells `[h w]`, float32, 0 on land.

    Without the far ends of the patterns, because denormal numbers are slow.
    """
    near = np.where(np.abs(patterns()) < FAR, 0, patterns()).astype(np.float32)
    whole = on_grid(near, OCEAN_MASK).reshape(len(near), -1)
    return whole, np.float32(CELL_NOISE) * OCEAN_MASK.ravel().astype(np.float32)


def _fill_normal(rng: np.random.Generator, out: np.ndarray) -> None:
    """Fills a float32 array `[n]` with normal numbers, by the method of Box and Muller.

    It takes half the time of `standard_normal`, since NumPy computes logarithms and
    cosines of many numbers at once. Each is made of two numbers of 16 bits, so the
    largest is 4.9.
    """
    half = -(-out.size // 2)
    words = rng.bit_generator.random_raw(-(-half // 2)).view(np.uint16)
    uniform = words[: 2 * half].astype(np.float32)
    uniform += np.float32(0.5)
    radius, angle = uniform[:half], uniform[half:]
    radius *= np.float32(2.0**-16)
    np.log(radius, out=radius)
    radius *= np.float32(-2)
    np.sqrt(radius, out=radius)
    angle *= np.float32(2 * np.pi * 2.0**-16)
    np.multiply(radius, np.cos(angle), out=out[:half])
    rest = out.size - half
    np.multiply(radius[:rest], np.sin(angle[:rest]), out=out[half:])
