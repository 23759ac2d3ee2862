"""The catalog of SEVIR: lists the events, selects those to use, and splits them.

`CATALOG.csv` has one row per event and sensor. The rules are those of the reference
implementation of Earthformer: rows of VIL whose `pct_missing` is small enough (0: no
missing pixel), without ids that occur in several rows, sorted by id; the date of an
event determines its split.

The column `pct_missing` of SEVIR is a share, 0 to 1; catalogs from other sources may
contain percentages. It is compared without conversion.

Reference:
    Veillette et al. 2020, SEVIR; Gao et al. 2022, Earthformer, section 4.2.
"""

import dataclasses
import datetime
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd

from earthformer_jax.data.sevir.events import Events
from earthformer_jax.data.splits import SPLITS

IMG_TYPE = "vil"
REQUIRED = ("id", "file_name", "file_index", "img_type", "time_utc", "pct_missing")
CORNERS = ("llcrnrlat", "llcrnrlon", "urcrnrlat", "urcrnrlon")
OPTIONAL = ("minute_offsets", "episode_id", "proj", *CORNERS)


@dataclasses.dataclass(frozen=True)
class Dates:
    """Limits of the splits: each split begins after one limit and ends at the next.

    Attributes:
        train_from: training events are later; None: all.
        train_until: training events are no later, validation events are later; None if
            events are not divided by date.
        validate_until: validation events are no later, test events are later.
        test_until: test events are no later; None: all.
    """

    train_from: np.datetime64 | None
    train_until: np.datetime64 | None
    validate_until: np.datetime64 | None
    test_until: np.datetime64 | None

    @classmethod
    def parse(cls, texts: Mapping[str, str]) -> "Dates":
        """Reads settings such as "2019-06-01" or "2019-06-01 12:30".

        Raises:
            ValueError: if a text is not a date, or the dates are out of order.
        """
        dates = {
            name: _parse_date(name, text) if text else None
            for name, text in texts.items()
        }
        given = [(name, date) for name, date in dates.items() if date is not None]
        for (before, first), (after, second) in zip(given, given[1:], strict=False):
            if first >= second:
                raise ValueError(
                    f"{after}={texts[after]} must come after {before}={texts[before]}"
                )
        return cls(**dates)

    def between(self, split: str) -> tuple[np.datetime64 | None, np.datetime64 | None]:
        """(after, until) of a split."""
        limits = self.train_from, self.train_until, self.validate_until, self.test_until
        k = SPLITS.index(split)
        return limits[k], limits[k + 1]


def _parse_date(name: str, text: str) -> np.datetime64:
    try:
        date = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{name}={text!r} is not a date; write YYYY-MM-DD or 'YYYY-MM-DD HH:MM' "
            "(UTC)"
        ) from None
    if date.tzinfo is not None:
        date = date.astimezone(datetime.UTC).replace(tzinfo=None)
    return np.datetime64(date, "s")


def read(path: Path) -> Events:
    """All VIL rows of a catalog, in its order.

    Raises:
        ValueError: if the file is not a catalog, or a row has an invalid value.
    """
    try:
        table = pd.read_csv(path, low_memory=False, encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(
            f"{path} is not a catalog but another kind of file; give the folder with "
            "CATALOG.csv and data/, or a catalog"
        ) from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as e:
        raise ValueError(
            f"{path} is not a catalog ({e}); expected a table of comma-separated "
            f"values with the columns {', '.join(REQUIRED)}"
        ) from None
    _check_columns(path, list(table.columns))
    types = table["img_type"].astype(str).str.strip().str.lower()
    table = cast(pd.DataFrame, table[types == IMG_TYPE])
    if table.empty:
        there = ", ".join(sorted(set(types))[:8]) or "nothing"
        raise ValueError(
            f"{path} has no row with img_type {IMG_TYPE!r} (its types are: {there})"
        )
    table = table.assign(**{c: np.nan for c in OPTIONAL if c not in table.columns})
    return Events(
        id=_texts(path, table, "id"),
        file_name=_texts(path, table, "file_name"),
        file_index=_file_index(path, table),
        time=_times(path, table),
        offsets=_offsets(path, table),
        corners=_numbers(path, table, CORNERS).astype(np.float32),
        pct_missing=_numbers(path, table, ["pct_missing"], required=True)[:, 0],
        row=table.index.to_numpy(np.int32),
        episode=_texts_or_none(table, "episode_id"),
        projection=_texts_or_none(table, "proj"),
    )


def select(events: Events, max_missing: float, path: Path) -> tuple[Events, list[str]]:
    """The events to use, sorted by id, and descriptions of what was left out.

    Args:
        events: all rows of VIL.
        max_missing: largest `pct_missing`, in the units of the catalog.
        path: the catalog, for messages.

    Raises:
        ValueError: if no event is left, if an event without any observed pixel would be
            used, or if two events have the same position in a file.
    """
    complete = events.take(events.pct_missing <= max_missing)
    left_out = []
    if len(complete) < len(events):
        left_out.append(
            f"{len(events) - len(complete)} of {len(events)} events with more missing "
            f"pixels than max_missing={max_missing:g}"
        )
    if not len(complete):
        raise ValueError(
            f"{path}: none of {len(events)} events has pct_missing <= "
            f"max_missing={max_missing:g} (the smallest is "
            f"{events.pct_missing.min():g}); raise it"
        )
    _check_some_pixel(events, complete, path)
    _, number, counts = np.unique(
        complete.id.astype(str), return_inverse=True, return_counts=True
    )
    kept = complete.take(counts[number] == 1)
    if not len(kept):
        raise ValueError(
            f"{path}: every id has more than one {IMG_TYPE} row, as {complete.id[0]!r} "
            "has; such ids are not used. Was the catalog joined with itself?"
        )
    if len(kept) < len(complete):
        left_out.append(
            f"{len(complete) - len(kept)} rows of {np.sum(counts > 1)} ids that occur "
            "in several rows"
        )
    kept = kept.take(np.argsort(kept.id.astype(str), kind="stable"))
    _check_places(kept, path)
    return kept, left_out


def within(events: Events, dates: Dates, path: Path) -> Events:
    """Events later than `train_from` and no later than `test_until`.

    Raises:
        ValueError: if there are none.
    """
    inside = _between(events, dates.train_from, dates.test_until)
    if not len(inside):
        raise ValueError(
            f"{path}: none of {len(events)} events is within `train_from` "
            f"and `test_until`; they are from {_period(events)}"
        )
    return inside


def split_by_date(events: Events, dates: Dates) -> dict[str, Events]:
    """Events of each split: those with after < time <= until.

    Raises:
        ValueError: if a split is empty.
    """
    splits = {}
    for split in SPLITS:
        after, until = dates.between(split)
        splits[split] = _between(events, after, until)
        if not len(splits[split]):
            limits = f"{_text(after)} < time_utc" if after is not None else "time_utc"
            limits += f" <= {_text(until)}" if until is not None else ""
            raise ValueError(
                f"the {split} split ({limits}) contains no events: the {len(events)} "
                f"events are from {_period(events)}. Move `train_until` or "
                "`validate_until`, or set split='fraction' to divide the "
                "events by number"
            )
    return splits


def _between(events: Events, after, until) -> Events:
    keep = np.ones(len(events), bool)
    if after is not None:
        keep &= events.time > after
    if until is not None:
        keep &= events.time <= until
    return events.take(keep)


def _period(events: Events) -> str:
    return f"{_text(events.time.min())} to {_text(events.time.max())}"


def _text(time: np.datetime64) -> str:
    text = str(time.astype("datetime64[m]")).replace("T", " ")
    return text.removesuffix(" 00:00")


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    columns = [str(column) for column in columns]
    missing = [name for name in REQUIRED if name not in columns]
    if not missing:
        return
    near = difflib.get_close_matches(missing[0], columns, n=1)
    hint = f"; is it {near[0]!r}?" if near else ""
    raise ValueError(
        f"{path} has no column {missing[0]!r}{hint} (its columns are: "
        f"{', '.join(columns[:25])}; needed are {', '.join(REQUIRED)})"
    )


def with_pixels(events: Events) -> Events:
    """The events of which at least one pixel was observed."""
    return events.take(events.pct_missing < _everything(events))


def _everything(events: Events) -> float:
    """`pct_missing` of an event without pixels: a share, or percent."""
    return 1.0 if events.pct_missing.max() <= 1 else 100.0


def _check_some_pixel(events: Events, used: Events, path: Path) -> None:
    """Rejects events whose pixels are all missing."""
    empty = used.pct_missing >= _everything(events)
    if empty.any():
        names = ", ".join(map(str, used.id[empty][:3]))
        raise ValueError(
            f"{path}: event {names} has no observed pixels (pct_missing="
            f"{used.pct_missing[empty][0]:g}); set `max_missing` below that"
        )


def _check_places(events: Events, path: Path) -> None:
    """Rejects two events at the same position in a file."""
    places: dict[tuple[str, int], str] = {}
    for name, index, event in zip(
        events.file_name, events.file_index, events.id, strict=True
    ):
        other = places.setdefault((name, index), event)
        if other != event:
            raise ValueError(
                f"{path}: the ids {other!r} and {event!r} both have file_index={index} "
                f"of {name}; one of the rows is wrong"
            )


def _as_numbers(table: pd.DataFrame, column: str) -> np.ndarray:
    """float64 `[n]`; NaN where a cell does not contain a number."""
    return np.asarray(pd.to_numeric(table[column], errors="coerce"), np.float64)


def _line(table: pd.DataFrame, wrong: np.ndarray) -> str:
    """ "line 12 (id 'S1')" of the first row that is wrong."""
    row = int(np.argmax(wrong))
    return f"line {table.index[row] + 2} (id {table['id'].iloc[row]!r})"


def _texts(path: Path, table: pd.DataFrame, column: str) -> np.ndarray:
    wrong = table[column].isna().to_numpy()
    if wrong.any():
        raise ValueError(f"{path}: {_line(table, wrong)} has no {column}")
    return table[column].astype(str).to_numpy(object)


def _texts_or_none(table: pd.DataFrame, column: str) -> np.ndarray:
    """Texts `[n]`; "" where the catalog has none."""
    texts = table[column].astype(str)
    return texts.where(table[column].notna(), "").to_numpy(object)


def _file_index(path: Path, table: pd.DataFrame) -> np.ndarray:
    numbers = _as_numbers(table, "file_index")
    wrong = ~((numbers >= 0) & (numbers == np.floor(numbers)))
    if wrong.any():
        value = table["file_index"].iloc[int(np.argmax(wrong))]
        raise ValueError(
            f"{path}: {_line(table, wrong)} has file_index={value}; expected a whole "
            "number of at least 0"
        )
    return numbers.astype(np.int64)


def _times(path: Path, table: pd.DataFrame) -> np.ndarray:
    texts = table["time_utc"].astype(str)
    times = pd.to_datetime(texts, format="ISO8601", errors="coerce", utc=True)
    wrong = times.isna().to_numpy()
    if wrong.any():
        raise ValueError(
            f"{path}: {_line(table, wrong)} has "
            f"time_utc={texts.iloc[int(np.argmax(wrong))]!r}, which is not a time; "
            "expected for example '2019-05-12 18:30:00'"
        )
    return times.dt.tz_localize(None).to_numpy("datetime64[s]")


def _offsets(path: Path, table: pd.DataFrame) -> list[np.ndarray]:
    """Minutes of the frames; most events share one array."""
    texts = table["minute_offsets"].astype(object)
    texts = texts.map(lambda x: "" if pd.isna(x) else str(x))
    parsed: dict[str, np.ndarray] = {}
    for text in texts.unique():
        try:
            parsed[text] = np.array([int(m) for m in text.split(":") if text], np.int32)
        except ValueError:
            wrong = (texts == text).to_numpy()
            raise ValueError(
                f"{path}: {_line(table, wrong)} has minute_offsets={text!r}; expected "
                "whole minutes separated by colons, such as -120:-115:-110"
            ) from None
    return [parsed[text] for text in texts]


def _numbers(
    path: Path, table: pd.DataFrame, columns: Sequence[str], required: bool = False
) -> np.ndarray:
    """Columns as float64 `[n, columns]`; NaN where a cell is empty."""
    numbers = {}
    for column in columns:
        values = _as_numbers(table, column)
        wrong = np.isnan(values) & (required | table[column].notna().to_numpy())
        if wrong.any():
            value = table[column].iloc[int(np.argmax(wrong))]
            raise ValueError(
                f"{path}: {_line(table, wrong)} has {column}={value}; expected a number"
            )
        numbers[column] = values
    return np.stack(list(numbers.values()), axis=1)
