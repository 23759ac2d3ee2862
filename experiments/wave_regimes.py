"""A field of travelling waves and seasons whose regime is known on every day.

    python experiments/wave_regimes.py --out=runs/waves.nc --years=8 --seed=0

Height z and temperature t on 12 x 24 cells around the northern hemisphere. Every day
belongs to one of four regimes, which last 12 days on average and occur in any season:

    0  three waves that move eastwards at 15 degrees a day
    1  the same three waves moving westwards; single days look like those of regime 0
    2  two slower waves further north, moving eastwards
    3  a standing block

In each spell the waves start at a random longitude. Temperature lags height by a
quarter of a wave. Both also have an annual cycle that varies with latitude, and noise
that is correlated over a few cells and days. The numbers were chosen before any model
was trained on them.
"""

import argparse
import pathlib

import numpy as np
import xarray as xr

LATITUDE = np.arange(30.0, 64.0, 3.0)
LONGITUDE = np.arange(0.0, 360.0, 15.0)
REGIMES = 4
STAY = 12.0  # days in a regime, on average
# Waves around the globe, degrees of longitude a day, central latitude.
WAVES = ((3, 15.0, 45.0), (3, -15.0, 45.0), (2, 8.0, 54.0))
BLOCK = (54.0, 120.0)  # latitude and longitude of its centre
WIDTH = 9.0  # degrees of latitude, of waves and block
BLOCK_WIDTH = 35.0  # degrees of longitude
SEASON = 1.5  # amplitude of the annual cycle; waves have 1
NOISE = 0.5
MEMORY = 0.7  # correlation of the noise from one day to the next


def make(years: int, seed: int) -> xr.Dataset:
    """The field and its regimes.

    Args:
        years: number of years, from 2001.
        seed: of all random draws.

    Returns:
        z and t (time, lat, lon), and regime (time).
    """
    rng = np.random.default_rng(seed)
    dates = np.arange("2001-01-01", f"{2001 + years}-01-01", dtype="datetime64[D]")
    regime, day_of_spell, start = spells(len(dates), rng)
    z = np.empty((len(dates), len(LATITUDE), len(LONGITUDE)))
    t = np.empty_like(z)
    for i in range(len(dates)):
        z[i], t[i] = pattern(int(regime[i]), int(day_of_spell[i]), start[i])
    year = dates.astype("datetime64[Y]")
    phase = 2 * np.pi * (dates - year).astype(int) / 365.25
    slope = ((LATITUDE - 46.5) / 16.5)[:, None]
    winter = np.cos(phase - 0.3)[:, None, None]
    z += SEASON * winter * slope + NOISE * noise(len(dates), rng)
    t -= SEASON * winter * (1 + 0.3 * slope)
    t += NOISE * noise(len(dates), rng)
    dims = ("time", "lat", "lon")
    return xr.Dataset(
        {
            "z": (dims, z.astype(np.float32)),
            "t": (dims, t.astype(np.float32)),
            "regime": ("time", regime.astype(np.int32)),
        },
        coords={
            "time": dates.astype("datetime64[ns]"),
            "lat": ("lat", LATITUDE, {"units": "degrees_north"}),
            "lon": ("lon", LONGITUDE, {"units": "degrees_east"}),
        },
        attrs={"title": "Travelling waves and seasons, synthetic"},
    )


def spells(days: int, rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each day: regime, day within its spell, longitude where the spell began."""
    regime = np.empty(days, int)
    number, start = np.empty(days, int), np.empty(days)
    now = int(rng.integers(REGIMES))
    first = 0
    while first < days:
        length = int(rng.geometric(1 / STAY))
        spell = slice(first, min(first + length, days))
        regime[spell] = now
        number[spell] = np.arange(spell.stop - first)
        start[spell] = rng.uniform(0, 360)
        first += length
        now = (now + int(rng.integers(1, REGIMES))) % REGIMES
    return regime, number, start


def pattern(regime: int, day: int, start: float) -> tuple[np.ndarray, np.ndarray]:
    """Height and temperature `[h, w]` of a regime, on a day of a spell."""
    if regime == len(WAVES):
        centre, east = BLOCK
        away = (LONGITUDE - east + 180) % 360 - 180
        along = np.exp(-((away / BLOCK_WIDTH) ** 2))
        behind = np.exp(-(((away + BLOCK_WIDTH / 2) / BLOCK_WIDTH) ** 2))
        band = np.exp(-(((LATITUDE - centre) / WIDTH) ** 2))[:, None]
        return 2 * band * along, 2 * band * behind
    number, speed, centre = WAVES[regime]
    band = np.exp(-(((LATITUDE - centre) / WIDTH) ** 2))[:, None]
    angle = number * np.deg2rad(LONGITUDE - start - speed * day)
    return band * np.cos(angle), band * np.sin(angle)


def noise(days: int, rng) -> np.ndarray:
    """`[days, h, w]` of variance 1, correlated over neighbouring days and cells."""
    rows, columns = len(LATITUDE), len(LONGITUDE)
    waves = np.fft.rfftfreq(columns, 1 / columns)
    smooth = np.exp(-((waves / 5) ** 2) / 2)
    white = rng.standard_normal((days, rows, columns))
    fields = np.fft.irfft(np.fft.rfft(white, axis=-1) * smooth, columns, axis=-1)
    fields[:, 1:-1] = (fields[:, :-2] + 2 * fields[:, 1:-1] + fields[:, 2:]) / 4
    for i in range(1, days):
        fields[i] = MEMORY * fields[i - 1] + np.sqrt(1 - MEMORY**2) * fields[i]
    return fields / fields.std()


def main() -> None:
    """Writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default="runs/waves.nc")
    parser.add_argument("--years", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    a.out.parent.mkdir(parents=True, exist_ok=True)
    make(a.years, a.seed).to_netcdf(a.out)
    print(f"{a.out}: {a.years} years of {REGIMES} regimes")


if __name__ == "__main__":
    main()
