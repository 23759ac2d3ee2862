"""Precipitation nowcasting on SEVIR: the next hour of radar images from the last.

The images show vertically integrated liquid (VIL), coded 0 to 254, and come from one of

- no path: the embedded radar twin (`data.sevir.twin`);
- the files of SEVIR or of SEVIR-LR, or others in the same layout
  (`data.sevir.catalog`, `data.sevir.files`);
- a folder that the TFDS builder prepared, one example per event.

Windows are cut from events and normalised while reading (`data.sevir.windows`); missing
pixels are never treated as rain.

Reference:
    Veillette et al. 2020, SEVIR: A Storm Event Imagery Dataset for Deep Learning
    Applications in Radar and Satellite Meteorology, NeurIPS; Gao et al. 2022,
    Earthformer, section 4.2.
"""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from earthformer_jax.data import tfds_source
from earthformer_jax.data.augment import Augment, center_crop, check_crop
from earthformer_jax.data.dataset import Channel, Data, Dataset, DataSettings, Display
from earthformer_jax.data.leaks import Spans
from earthformer_jax.data.readers import paths
from earthformer_jax.data.references import persistence
from earthformer_jax.data.sevir import (
    catalog as catalog_lib,
)
from earthformer_jax.data.sevir import (
    division,
    twin,
)
from earthformer_jax.data.sevir import (
    files as files_lib,
)
from earthformer_jax.data.sevir import (
    windows as windows_lib,
)
from earthformer_jax.data.sevir.catalog import SPLITS
from earthformer_jax.data.sevir.files import EventFiles
from earthformer_jax.data.sevir.windows import NORMALIZATIONS, Windows
from earthformer_jax.data.source import Example, Source
from earthformer_jax.data.task import ForecastFrames
from earthformer_jax.metrics.precipitation import RainScores
from earthformer_jax.settings import (
    NOT_NEGATIVE,
    ConfigError,
    at_least,
    choice,
    setting,
    settings_from,
)

CATALOG, DATA = "CATALOG.csv", "data"
SPLIT_RULES = ("date", "fraction")
MSE_UNITS = "(code / 255)^2"

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Settings(DataSettings):
    """Settings of SEVIR.

    Attributes:
        name: "sevir".
        path: the folder with CATALOG.csv and data/, or the folder of a prepared TFDS
            data set; empty (default): the radar twin.
        catalog_path: the catalog, if it is elsewhere; `path` is then the folder that
            the file names in the catalog are relative to, or its parent.
        skip_missing_files: leave out events whose files are missing, to use part of
            SEVIR.
        max_missing: largest `pct_missing` of an event that is used, in the units of the
            catalog (SEVIR: a share, 0 to 1). 0 in the paper.
        split: "date": by the four limits below; "fraction": 70, 15 and 15 % of the
            events sorted by time, within `train_from` and `test_until`, with the
            events of an episode together. Windows that share time and place with an
            earlier split are left out.
        train_from: training events are later, "YYYY-MM-DD" or "YYYY-MM-DD HH:MM" UTC;
            empty (default): no limit.
        train_until: training events are no later, validation events are later.
        validate_until: validation events are no later, test events are later.
        test_until: test events are no later; empty (default): no limit.
        in_len: number of input frames.
        out_len: number of target frames.
        stride: frames from the start of one window to the start of the next in the same
            event.
        time_step: use every n-th frame. 2 with `space_step` 3 gives SEVIR-LR.
        space_step: n × n pixels are reduced to their maximum.
        normalization: "01": code / 255; "sevir": (code - 33.44) / 47.54.
        crop: rows and columns to cut out, at a random place in training and from the
            centre otherwise; () for all.
        flip: flip training examples vertically and horizontally at random.
        rotate: rotate training examples by multiples of 90 degrees at random.
        twin_train: number of training windows of the twin.
        twin_validation: number of validation windows of the twin.
        twin_test: number of test windows of the twin. All three default to the paper's
            numbers.
    """

    name: str = "sevir"
    path: str = ""
    catalog_path: str = ""
    skip_missing_files: bool = False
    max_missing: float = setting(0.0, NOT_NEGATIVE)
    split: str = setting("date", choice(*SPLIT_RULES))
    train_from: str = ""
    train_until: str = "2019-01-01"
    validate_until: str = "2019-06-01"
    test_until: str = ""
    in_len: int = setting(13, at_least(1))
    out_len: int = setting(12, at_least(1))
    stride: int = setting(12, at_least(1))
    time_step: int = setting(1, at_least(1))
    space_step: int = setting(1, at_least(1))
    normalization: str = setting("01", choice(*NORMALIZATIONS))
    crop: tuple[int, ...] = ()
    flip: bool = False
    rotate: bool = False
    twin_train: int = setting(35718, at_least(1))
    twin_validation: int = setting(9060, at_least(1))
    twin_test: int = setting(12159, at_least(1))

    @property
    def span(self) -> int:
        """Frames of the files that one window extends over."""
        return (self.in_len + self.out_len - 1) * self.time_step + 1

    @property
    def dates(self) -> catalog_lib.Dates:
        """Limits of the splits; only the outer ones unless events are split by date."""
        names = ("train_from", "train_until", "validate_until", "test_until")
        inner = names[1:3] if self.split == "fraction" else ()
        return catalog_lib.Dates.parse(
            {name: "" if name in inner else getattr(self, name) for name in names}
        )

    def check(self) -> None:
        """Rejects values that are valid individually but not in combination.

        Raises:
            ConfigError: if there are any; the message names them.
            ValueError: if a date is invalid, or the dates are out of order.
        """
        if self.catalog_path and not self.path:
            raise ConfigError(
                f"catalog_path={self.catalog_path} needs `path`, the folder of the "
                "files it lists"
            )
        dates = self.dates
        if self.split == "date":
            for name in ("train_until", "validate_until"):
                if getattr(dates, name) is None:
                    raise ConfigError(
                        f"{name}='' is not a date; write YYYY-MM-DD, or set "
                        "split='fraction' to divide events by number"
                    )


@dataclasses.dataclass(frozen=True)
class Cropped:
    """The middle of every example of a source."""

    source: Source
    crop: tuple[int, int]

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Example:
        return center_crop(self.source[index], self.crop)


@dataclasses.dataclass(frozen=True)
class Origin:
    """The events of each split, and how windows are cut from them.

    Attributes:
        events: by split.
        description: their origin, and what was left out.
        time_step: stored frames from one frame of an example to the next.
        space_step: see `Settings`.
        which: the windows of each split to use; empty: all.
        spans: when and where these windows are; empty if they cannot overlap.
    """

    events: Mapping[str, windows_lib.EventSource]
    description: str
    time_step: int
    space_step: int
    which: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    spans: Mapping[str, Spans] = dataclasses.field(default_factory=dict)


def events(config: Mapping[str, Any]) -> Mapping[str, EventFiles]:
    """The events of each split that settings select, complete and as stored codes.

    Args:
        config: any of the fields of `Settings`; `path` is required.

    Returns:
        "train", "validation" and "test": sequences of {"vil": uint8 `[t, h, w, 1]`,
        "time": int32 `[t]`, "corners": float32 `[4]`, "event": int32}.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: if a setting is invalid or a file cannot be used.
    """
    settings = settings_from(Settings, config, "the SEVIR data")
    if not settings.path:
        raise ValueError(f"path={settings.path!r}: expected the folder with {CATALOG}")
    used = _selected(settings)
    splits, dropped = division.divide_whole(used.events, settings.dates, used.make)
    if dropped:
        logger.info(
            "left out %d events that share time and place with an earlier split",
            dropped,
        )
    return splits


def load(config: Mapping[str, Any]) -> Dataset:
    """Loads the data set that settings describe.

    Args:
        config: any of the fields of `Settings`.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: if a setting is invalid or a file cannot be used.
    """
    settings = settings_from(Settings, config, "the SEVIR data")
    if not settings.path:
        origin = _twin(settings)
    elif tfds_source.is_prepared(settings.path):
        origin = _prepared(settings)
    else:
        origin = _files(settings)
    normalization = NORMALIZATIONS[settings.normalization]
    windows = {
        split: Windows(
            part,
            settings.in_len,
            settings.out_len,
            stride=settings.stride,
            time_step=origin.time_step,
            space_step=origin.space_step,
            normalization=normalization,
            which=origin.which.get(split),
        )
        for split, part in origin.events.items()
    }
    augment = _augment(settings, windows["train"].size)
    frame = _frame(origin)
    data = Data(
        name=settings.name,
        description=_description(settings, origin, windows, frame),
        train=windows["train"],
        validation=_cropped(windows["validation"], settings.crop),
        test=_cropped(windows["test"], settings.crop),
        loss_weights=np.ones((1, 1, 1, 1), np.float32),
        normalization=normalization,
        augment=augment,
        display=Display(
            channels=(
                Channel(
                    "VIL",
                    "code",
                    normalization.scale,
                    normalization.offset,
                    limits=(0, 255),
                    colormap="turbo",
                ),
            ),
            frame=frame,
            south_first=True,
        ),
        spans=origin.spans,
    )
    task = ForecastFrames(
        metric=RainScores(scale=normalization.scale, offset=normalization.offset),
        references={"persistence": persistence(settings.out_len, 1)},
        mse_units=MSE_UNITS,
    )
    return Dataset(data, task)


def _cropped(source: Source, crop: Sequence[int]) -> Source:
    if not crop:
        return source
    height, width = crop
    return Cropped(source, (height, width))


def _twin(settings: Settings) -> Origin:
    if twin.DOMAIN % settings.space_step:
        raise ValueError(
            f"space_step={settings.space_step} does not divide the "
            f"{twin.DOMAIN} pixels of the radar twin"
        )
    return Origin(
        {
            split: windows_lib.TwinEvents(
                twin.RadarTwin(
                    split,
                    getattr(settings, f"twin_{split}"),
                    settings.in_len + settings.out_len,
                    settings.seed,
                    settings.time_step,
                    settings.space_step,
                )
            )
            for split in SPLITS
        },
        f"embedded radar twin (seed {settings.seed})",
        time_step=1,
        space_step=1,
    )


def _prepared(settings: Settings) -> Origin:
    path = Path(settings.path).expanduser()
    prepared = {
        split: windows_lib.PreparedEvents(tfds_source.open_split(path, split))
        for split in SPLITS
    }
    for split, split_events in prepared.items():
        if split_events.frames[0] < settings.span:
            raise ValueError(
                f"path={settings.path} has {split_events.frames[0]} frames "
                f"per event ({split}), but one example needs {settings.span}; shorten "
                "`in_len` or `out_len`, or lower `time_step`"
            )
    return Origin(
        prepared,
        f"SEVIR VIL prepared in {path}",
        settings.time_step,
        settings.space_step,
    )


@dataclasses.dataclass(frozen=True)
class Selected:
    """The events of a catalog to use, before they are divided.

    Attributes:
        events: in the order of their ids.
        make: opens the files of some of them.
        catalog: the catalog.
        left_out: descriptions of the others.
    """

    events: catalog_lib.Events
    make: Callable[[catalog_lib.Events], EventFiles]
    catalog: Path
    left_out: list[str]


def _selected(settings: Settings) -> Selected:
    catalog, root = _find(settings)
    every = catalog_lib.read(catalog)
    used, left_out = catalog_lib.select(every, settings.max_missing, catalog)
    inside = catalog_lib.within(used, settings.dates, catalog)
    if len(inside) < len(used):
        left_out.append(f"{len(used) - len(inside)} events outside the dates")
    there, layouts, not_there = files_lib.check(
        root, inside, settings.span, settings.skip_missing_files
    )
    files = files_lib.VilFiles(root, layouts)

    def make(part: catalog_lib.Events) -> EventFiles:
        return EventFiles(files, part, layouts)

    return Selected(there, make, catalog, left_out + not_there)


def _files(settings: Settings) -> Origin:
    used = _selected(settings)

    def cut(part: EventFiles) -> Windows:
        return Windows(
            part,
            settings.in_len,
            settings.out_len,
            stride=settings.stride,
            time_step=settings.time_step,
        )

    divided = division.divide(used.events, settings.dates, used.make, cut)
    left_out = used.left_out + divided.left_out
    gaps = int(np.sum(used.events.pct_missing > 0))
    return Origin(
        divided.events,
        f"SEVIR VIL of {used.catalog} (split by {settings.split}"
        + (f"; left out: {', '.join(left_out)}" if left_out else "")
        + f"; {gaps} events with missing pixels, which are masked)",
        settings.time_step,
        settings.space_step,
        divided.which,
        divided.spans,
    )


def _find(settings: Settings) -> tuple[Path, Path]:
    """The catalog, and the folder that its file names are relative to."""
    path = paths.existing(settings.path, "path")
    if settings.catalog_path:
        catalog = paths.existing(settings.catalog_path, "catalog_path")
    elif path.is_file():
        catalog, path = path, path.parent
    else:
        catalog = path / CATALOG
    if not catalog.is_file():
        there = ", ".join(sorted(entry.name for entry in path.iterdir())[:8])
        raise FileNotFoundError(
            f"path={settings.path} contains no {CATALOG} (it contains: "
            f"{there or 'nothing'}); give the folder with {CATALOG} and {DATA}/, or "
            "the catalog as `catalog_path`"
        )
    return catalog, path / DATA if (path / DATA).is_dir() else path


def _augment(settings: Settings, size: tuple[int, int]) -> Augment | None:
    """The augmentation of training examples; `size` is that of the fields."""
    crop: tuple[int, int] | tuple[()] = ()
    if settings.crop:
        rows, columns = settings.crop
        crop = (rows, columns)
        check_crop(size, crop)
        if settings.rotate and crop[0] != crop[1]:
            raise ValueError(
                f"rotate=True needs square fields, which crop={crop} does not give; "
                "crop a square, or use `flip`"
            )
    if not (crop or settings.flip or settings.rotate):
        return None
    return Augment(settings.flip, settings.flip, settings.rotate, crop)


def _frame(origin: Origin) -> str:
    """ "5 min", or "2 or 5 min" if events differ."""
    minutes = set().union(*(part.minutes for part in origin.events.values()))
    steps = [str(step * origin.time_step) for step in sorted(minutes)]
    return f"{' or '.join(steps)} min"


def _description(
    settings: Settings, origin: Origin, windows: Mapping[str, Windows], frame: str
) -> str:
    """One line: origin, windows of each split, units."""
    h, w = windows["train"].size
    crop = " x ".join(map(str, settings.crop))
    sizes = ", ".join(
        f"{split} ({len(windows[split])} windows of "
        f"{len(np.unique(windows[split].of_event))} events)"
        for split in SPLITS
    )
    return (
        f"{origin.description}; {settings.in_len} -> {settings.out_len} frames of "
        f"{frame}, {f'{crop} of ' if crop else ''}{h} x {w} pixels; {sizes}; "
        f"{windows_lib.UNITS[settings.normalization]}"
    )
