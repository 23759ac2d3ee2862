"""Small folders in the layout of SEVIR, with random codes."""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd

FRAMES, SIZE = 49, 12
OFFSETS = ":".join(str(5 * k - 120) for k in range(FRAMES))
FILES = {"vil/2018/A.h5": 4, "vil/2019/B.h5": 5}  # events in each
# Two events in training, three in validation, four in the test split of the paper; the
# ids are not in the order of the rows.
IDS = ("S8", "S3", "R1", "S4", "R9", "S2", "S7", "R5", "S6")
TIMES = (
    "2018-06-01 12:00:00",  # S8 training
    "2019-01-01 00:00:00",  # S3 training: the limit belongs to what ends with it
    "2019-01-01 00:05:00",  # R1 validation
    "2019-03-01 18:30:00",  # S4 validation
    "2019-06-01 00:00:00",  # R9 validation
    "2019-06-01 00:05:00",  # S2 test
    "2019-07-01 00:00:00",  # S7 test
    "2019-08-01 00:00:00",  # R5 test
    "2019-09-01 00:00:00",  # S6 test
)
OF_SPLIT = {
    "train": ("S3", "S8"),
    "validation": ("R1", "R9", "S4"),
    "test": ("R5", "S2", "S6", "S7"),
}


def codes(seed: int = 0, frames: int = FRAMES, size: int = SIZE) -> dict:
    """uint8 `[n, size, size, frames]` of every file, 0 to 254."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.integers(0, 255, (n, size, size, frames), np.uint8)
        for name, n in FILES.items()
    }


def catalog() -> pd.DataFrame:
    """The rows of all events, each followed by one of another sensor."""
    places = [(name, k) for name, n in FILES.items() for k in range(n)]
    rows = []
    for number, (event, time, (name, k)) in enumerate(
        zip(IDS, TIMES, places, strict=True)
    ):
        row = dict(
            id=event,
            file_name=name,
            file_index=k,
            img_type="vil",
            time_utc=time,
            minute_offsets=OFFSETS,
            episode_id=number,
            llcrnrlat=28.0 + 3 * number,  # next to each other, not overlapping
            llcrnrlon=-100.0,
            urcrnrlat=31.0 + 3 * number,
            urcrnrlon=-96.0,
            pct_missing=0.0,
        )
        rows += [row, row | dict(file_name=f"ir069/{number}.h5", img_type="ir069")]
    return pd.DataFrame(rows)


def row_of(event: str) -> int:
    """The row of an event in `catalog`."""
    return 2 * IDS.index(event)


def place_of(event: str) -> tuple[str, int]:
    """File and number of an event."""
    table = catalog()
    row = table.loc[row_of(event)]
    return row.file_name, int(row.file_index)


def write(
    folder: Path,
    data: dict | None = None,
    table: pd.DataFrame | None = None,
    with_ids: bool = True,
) -> Path:
    """Writes CATALOG.csv and data/; returns the folder."""
    data = codes() if data is None else data
    table = catalog() if table is None else table
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "CATALOG.csv", index=False)
    first = 0
    for name, vil in data.items():
        path = folder / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as file:
            # One file by frame, as in SEVIR, and one in a piece.
            chunks = (1, *vil.shape[1:3], 1) if first == 0 else None
            file.create_dataset("vil", data=vil, chunks=chunks)
            if with_ids:
                file["id"] = np.array(IDS[first : first + len(vil)], "S16")
        first += len(vil)
    return folder
