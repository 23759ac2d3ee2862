"""The test inputs of ICAR-ENSO: twelve months in one NumPy file, without labels."""

import re
from pathlib import Path

import numpy as np

from earthformer_jax.data.climatology import MONTHS
from earthformer_jax.data.enso import icar

SUFFIX = ".npy"
LATITUDE = np.arange(-55.0, 61.0, 5.0)
LONGITUDE = np.arange(0.0, 360.0, 5.0)
VARIABLES = ("sst", "t300", "ua", "va")
SHAPE = (len(LATITUDE), len(LONGITUDE), len(VARIABLES))
_MONTH = re.compile(r"test_\d+-(\d\d)-(\d\d)")


def read(path: Path) -> icar.Months:
    """The temperature of a test input, "test_0144-01-12.npy", as a series.

    The year is not known; it is called year 1. The calendar month of the first frame
    is that of the name, otherwise January.

    Args:
        path: of an array `[m, 24, 72, 4]`: latitudes from 55S to 60N, longitudes from 0
            to 355, the variables sst, t300, ua, va.

    Raises:
        ValueError: if it is another array.
    """
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} is not a readable .npy file: {error}") from error
    if not isinstance(values, np.ndarray) or values.shape[1:] != SHAPE:
        raise ValueError(
            f"{path} has the shape {getattr(values, 'shape', ())}; expected "
            f"(months, {', '.join(map(str, SHAPE))}): the test inputs of ICAR-ENSO"
        )
    if values.dtype.kind != "f" or not np.isfinite(values[..., 0]).all():
        raise ValueError(f"{path}: expected finite numbers in K of anomaly")
    west, east = icar.LONGITUDES
    inside = (west <= LONGITUDE) & (LONGITUDE <= east)
    match = _MONTH.match(path.name)
    first = int(match[1]) - 1 if match else 0
    if first >= MONTHS:
        raise ValueError(f"{path}: {first + 1} is not a calendar month")
    return icar.Months(
        label=path.name,
        fields=[values[:, :, inside, 0].astype(np.float32)],
        three_month_index=(),
        first_month=MONTHS + first,
        latitude=LATITUDE,
        longitude=LONGITUDE[inside],
        by_model=False,
    )
