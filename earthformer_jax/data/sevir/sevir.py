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

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from earthformer_jax.data import tfds_source
from earthformer_jax.data.augment import Augment, check_crop
from earthformer_jax.data.dataset import Channel, Data, Dataset, Display
from earthformer_jax.data.nowcasting import references as nowcasting
from earthformer_jax.data.references import persistence
from earthformer_jax.data.sevir import beginnings as begin
from earthformer_jax.data.sevir import division
from earthformer_jax.data.sevir import windows as windows_lib
from earthformer_jax.data.sevir.files import EventFiles
from earthformer_jax.data.sevir.origin import (
    CATALOG,
    Origin,
    file_events,
    prepared_events,
    selected,
    twin_events,
)
from earthformer_jax.data.sevir.rain import RAIN
from earthformer_jax.data.sevir.settings import Settings
from earthformer_jax.data.sevir.windows import NORMALIZATIONS, Cropped, Windows
from earthformer_jax.data.source import Source
from earthformer_jax.data.splits import SPLITS
from earthformer_jax.data.task import ForecastFrames
from earthformer_jax.metrics import precipitation
from earthformer_jax.metrics.precipitation import RainScores
from earthformer_jax.settings import settings_from

MSE_UNITS = "(code / 255)^2"

logger = logging.getLogger(__name__)


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
    used = selected(settings)
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
        origin = twin_events(settings)
    elif tfds_source.is_prepared(settings.path):
        origin = prepared_events(settings)
    else:
        origin = file_events(settings)
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
                    colormap="vil",
                ),
            ),
            frame=frame,
            south_first=True,
        ),
        spans=origin.spans,
    )
    height, width = settings.crop or windows["test"].size
    task = ForecastFrames(
        metric=RainScores(scale=normalization.scale, offset=normalization.offset),
        verification=precipitation.verification(
            scale=normalization.scale,
            offset=normalization.offset,
            frame=(height, width),
        ),
        references={
            "persistence": persistence(settings.out_len, 1),
            **nowcasting.references(
                settings.in_len, settings.out_len, 1, normalization, RAIN
            ),
        },
        mse_units=MSE_UNITS,
    )
    return Dataset(data, task)


beginnings = begin.find
encoding = begin.encoding


def _cropped(source: Source, crop: Sequence[int]) -> Source:
    if not crop:
        return source
    height, width = crop
    return Cropped(source, (height, width))


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
