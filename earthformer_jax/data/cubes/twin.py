"""A synthetic climate: daily weather of a mid-latitude region, from a seed.

Temperature (t2m), sea level pressure (msl) and rain (tp) on 16 x 24 cells of 2.5
degrees. Pressure anomalies p travel eastwards with the flow u(y), decay, and are
stirred at random; the wind v along their gradient carries warm, moist air northwards:

    p[t + 1] = r_p  A_p p[t]                            + s(t) noise
    T[t + 1] = r_T  A_T T[t]  + g_T v[t],  v = dp/dx    + s(t) noise
    q[t + 1] = r_q  A_q q[t]  + g_q v[t]                + s(t) noise

A is advection by u and a little mixing across the flow; noise is smooth in space and
stronger in winter. Rain falls where p is low and moisture q is high. Mean temperature
and pressure vary with the season and the latitude. The motion of existing anomalies can
therefore be learned, and T and rain can be predicted from p; anomalies that enter the
region or are newly stirred up cannot. The flow follows a circle twice as long as the
region. The numbers are chosen to resemble weather; they are not fitted to any data.
"""

import numpy as np

from earthformer_jax.data.readers.frames import ArrayFrames
from earthformer_jax.data.readers.series import Cube
from earthformer_jax.data.readers.times import DAY, Times, season
from earthformer_jax.statistics.linear_system import generator

LATITUDE = np.arange(30.0, 70.0, 2.5)
LONGITUDE = np.arange(0.0, 60.0, 2.5)
CIRCLE = 2 * len(LONGITUDE)  # columns around the circle
FIRST_DAY = "2001-01-01"
SPIN_UP = 60  # days until the initial state is forgotten
NAMES, UNITS = ("t2m", "msl", "tp"), ("K", "hPa", "mm/day")

# Rows of the state: p, T, q.
MEMORY = (0.90, 0.93, 0.80)  # from day to day
SPEED = (1.3, 0.7, 1.0)  # columns per day in the middle of the flow
WARMING, MOISTENING = 0.55, 0.55  # per standard deviation of the wind
NOISE = (1.0, 0.35, 0.5)
SHORTEST = 5.0  # waves around the circle; the noise has little power beyond
ACROSS = 2.0  # correlation length of the noise across rows
MIXING = 0.04  # share of a row that moves to each neighbour per day
WINTER = 0.3  # noise is this much stronger in January, and weaker in July
SPREAD = (6.5, 3.5)  # hPa, K: standard deviations of the anomalies
RAIN = 6.0  # mm/day at one standard deviation above the threshold
DRY = 0.5  # threshold, standard deviations


def make(years: int, seed: int) -> Cube:
    """Days of the twin as a series in memory.

    Args:
        years: length of the series in years.
        seed: of the weather.

    Returns:
        the series; values `[days, 16, 24, 3]` in K, hPa and mm/day.
    """
    first = np.datetime64(FIRST_DAY)
    last = np.datetime64(f"{int(FIRST_DAY[:4]) + years}-01-01")
    minutes = np.arange(first, last).astype("datetime64[m]").astype(np.int64)
    phase = 2 * np.pi * (season(minutes) - 0.05)  # the coldest days are in mid-January
    values = _fields(weather(phase, seed), phase)
    return Cube(
        label=f"embedded climate twin (synthetic, {years} years)",
        format="twin",
        names=NAMES,
        units=UNITS,
        frames=ArrayFrames(values),
        segments=np.array([[0, len(values)]]),
        times=Times(60.0 * minutes, minutes),
        cadence=float(DAY),
        latitude=LATITUDE,
        longitude=LONGITUDE,
        south_first=True,
    )


def weather(phase: np.ndarray, seed: int) -> np.ndarray:
    """Anomalies p, T, q: float32 `[t, 3, h, w]`, each of standard deviation 1.

    Args:
        phase: `[t]` phase of the year, 0 on the coldest days, 2 pi a year later.
        seed: of the noise.
    """
    rows = len(LATITUDE)
    rng = generator(seed, 0)
    waves = np.arange(CIRCLE // 2 + 1)
    profile = np.exp(-((np.linspace(-1, 1, rows) / 0.9) ** 2))  # of the flow
    drift = np.array(SPEED)[:, None, None] * profile[:, None]
    turn = np.exp(-2j * np.pi / CIRCLE * waves * drift)
    step = (np.array(MEMORY)[:, None, None] * turn).astype(np.complex64)
    smooth = np.exp(-((waves / SHORTEST) ** 2) / 2) * (waves > 0)
    across = _across(rows)
    mixing = np.eye(rows) * (1 - 2 * MIXING)
    mixing += MIXING * (np.eye(rows, k=1) + np.eye(rows, k=-1))
    mixing[[0, -1], [0, -1]] += MIXING
    mixing = mixing.astype(np.float32)
    slope = (1j * waves / SHORTEST).astype(np.complex64)
    push = np.array([0.0, WARMING, MOISTENING], np.float32)[:, None, None]

    start = np.full(SPIN_UP, phase[0])
    strength = 1 + WINTER * np.cos(np.concatenate([start, phase]))
    state = np.zeros((3, rows, len(waves)), np.complex64)
    fields = np.empty((len(phase), 3, rows, len(LONGITUDE)), np.float32)
    block = 512  # days of noise drawn at once
    for begin in range(0, len(strength), block):
        days = strength[begin : begin + block]
        white = rng.standard_normal((len(days), 3, rows, CIRCLE), np.float32)
        noise = across @ np.fft.rfft(white, axis=-1) * smooth
        noise *= np.array(NOISE)[:, None, None] * days[:, None, None, None]
        states = np.empty_like(noise, np.complex64)
        for i, stirred in enumerate(noise.astype(np.complex64)):
            wind = slope * state[0]
            state = mixing @ (step * state) + push * wind + stirred
            states[i] = state
        seen = np.fft.irfft(states, CIRCLE, axis=-1)[..., : len(LONGITUDE)]
        skip = max(0, SPIN_UP - begin)
        first = max(0, begin - SPIN_UP)
        fields[first : first + len(days) - skip] = seen[skip:]
    return fields / fields.std(axis=(0, 2, 3), keepdims=True)


def _fields(anomalies: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """Physical values `[t, h, w, 3]` from anomalies and season."""
    p, warm, moist = np.moveaxis(anomalies, 1, 0)
    y = ((LATITUDE - 50) / 20)[:, None]
    x = (LONGITUDE / 60)[None, :]
    cold = np.cos(phase)[:, None, None].astype(np.float32)
    mean = 281 - 14 * y + 2.5 * np.sin(2 * np.pi * x) - cold * (9 + 4 * y + 3 * x)
    pressure = 1014 - 5 * y + cold * (2 - 4 * y)
    wet = np.maximum(0.75 * moist - 0.65 * p - DRY, 0)
    values = [mean + SPREAD[1] * warm, pressure + SPREAD[0] * p, RAIN * wet**1.3]
    return np.stack(values, axis=-1).astype(np.float32)


def _across(rows: int) -> np.ndarray:
    """`[rows, rows]` matrix that correlates white noise across rows, variance 1."""
    distance = np.arange(rows)[:, None] - np.arange(rows)
    kernel = np.exp(-((distance / ACROSS) ** 2))
    return kernel / np.sqrt(np.sum(kernel**2, axis=1, keepdims=True))
