"""Where radar events come from: the twin, prepared folders, or catalogs and files."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from earthformer_jax.data import tfds_source
from earthformer_jax.data.leaks import Spans
from earthformer_jax.data.readers import paths
from earthformer_jax.data.sevir import (
    catalog as catalog_lib,
)
from earthformer_jax.data.sevir import (
    division,
)
from earthformer_jax.data.sevir import (
    files as files_lib,
)
from earthformer_jax.data.sevir import (
    twin as twin_lib,
)
from earthformer_jax.data.sevir import (
    windows as windows_lib,
)
from earthformer_jax.data.sevir.files import EventFiles
from earthformer_jax.data.sevir.settings import Settings
from earthformer_jax.data.sevir.windows import Windows
from earthformer_jax.data.splits import SPLITS

CATALOG, DATA = "CATALOG.csv", "data"


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


def twin_events(settings: Settings) -> Origin:
    """Events of the radar twin."""
    if twin_lib.DOMAIN % settings.space_step:
        raise ValueError(
            f"space_step={settings.space_step} does not divide the "
            f"{twin_lib.DOMAIN} pixels of the radar twin"
        )
    return Origin(
        {
            split: windows_lib.TwinEvents(
                twin_lib.RadarTwin(
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


def prepared_events(settings: Settings) -> Origin:
    """Events of a folder that TFDS prepared."""
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


def selected(settings: Settings) -> Selected:
    """The events of a catalog and its files.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: if a file cannot be used.
    """
    catalog, root = find(settings)
    every = catalog_lib.read(catalog)
    used, left_out = catalog_lib.select(every, settings.max_missing, catalog)
    inside = catalog_lib.within(used, settings.dates, catalog)
    if len(inside) < len(used):
        left_out.append(f"{len(used) - len(inside)} events outside the dates")
    there, make, not_there = opened(root, inside, settings, settings.span)
    return Selected(there, make, catalog, left_out + not_there)


def opened(
    root: Path, events: catalog_lib.Events, settings: Settings, span: int
) -> tuple[catalog_lib.Events, Callable[[catalog_lib.Events], EventFiles], list[str]]:
    """Opens the files of some events.

    Args:
        root: the folder that file names are relative to.
        events: of the catalog.
        settings: with `skip_missing_files`.
        span: frames that an event must have.

    Returns:
        the events whose files exist, what opens some of them, and descriptions of what
        was left out.

    Raises:
        FileNotFoundError: if files are missing.
        ValueError: if a file cannot be read or does not fit the catalog.
    """
    there, layouts, left_out = files_lib.check(
        root, events, span, settings.skip_missing_files
    )
    files = files_lib.VilFiles(root, layouts)

    def make(part: catalog_lib.Events) -> EventFiles:
        return EventFiles(files, part, layouts)

    return there, make, left_out


def file_events(settings: Settings) -> Origin:
    """Events of a catalog, divided.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: if a file cannot be used, or a split is empty.
    """
    used = selected(settings)

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


def find(settings: Settings) -> tuple[Path, Path]:
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
