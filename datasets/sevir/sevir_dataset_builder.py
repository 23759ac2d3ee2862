r"""SEVIR for TFDS: the VIL images of every event, from the catalog and HDF5 files.

    python datasets/build.py datasets/sevir --config=full --manual_dir=FOLDER

FOLDER holds CATALOG.csv and data/. Settings of `earthformer_jax.data.sevir.sevir`
decide which events are used, and for which split; to depart from the paper's choice,
give a custom config:

    --config='{"name": "radar", "data": {"split": "fraction", "max_missing": 15}}'

Whole events are stored. Those that share time and place with an event of an earlier
split are left out.
"""

import dataclasses
import functools
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from earthformer_jax.data.sevir import sevir
from earthformer_jax.data.sevir.windows import thinned
from earthformer_jax.data.tfds_examples import ArrayRecordBuilder, array


@dataclasses.dataclass(eq=False)
class SevirConfig(tfds.core.BuilderConfig):
    """What is kept of the events.

    Attributes:
        time_step: n keeps every n-th frame.
        space_step: n keeps the maximum of each block of n x n pixels.
        data: fields of `config.data` that select events: max_missing, split,
            train_until, validate_until, skip_missing_files, ...
    """

    time_step: int = 1
    space_step: int = 1
    data: dict[str, Any] = dataclasses.field(default_factory=dict)


class Sevir(ArrayRecordBuilder):
    """Vertically integrated liquid (VIL) of storm events over the United States.

    One example is one event: codes from 0 to 254, with 255 for missing pixels and row 0
    in the south; the times of the frames in minutes since 1970-01-01 UTC; latitude and
    longitude of the lower left, then of the upper right corner; and the event's row in
    the catalog. Events and splits are those of the Earthformer paper unless the config
    changes them.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    BUILDER_CONFIGS = [
        SevirConfig(
            name="full",
            description="All frames and pixels: 49 of 384 x 384 every 5 minutes.",
        ),
        SevirConfig(
            name="lr",
            description="SEVIR-LR: 25 frames of 128 x 128 every 10 minutes; a pixel is "
            "the maximum of 3 x 3 pixels.",
            time_step=2,
            space_step=3,
        ),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
    Download the catalog and the VIL files of SEVIR into one folder:
      aws s3 cp --no-sign-request s3://sevir/CATALOG.csv CATALOG.csv
      aws s3 cp --no-sign-request --recursive s3://sevir/data/vil data/vil
    """

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "vil": array((None, None, None, 1), np.uint8),
            "time": array((None,), np.int32),
            "corners": array((4,), np.float32),
            "event": np.int32,
        }
        return self.ordered_info(
            features, homepage="https://registry.opendata.aws/sevir/"
        )

    def _split_generators(self, dl_manager):
        splits = sevir.events(
            {
                "name": "sevir",
                "path": str(dl_manager.manual_dir),
                "in_len": 1,  # events of any length
                "out_len": 1,
                **self.builder_config.data,
            }
        )
        lengths = {int(n) for events in splits.values() for n in events.frames}
        if len(lengths) > 1:
            raise ValueError(
                f"{dl_manager.manual_dir} has events of {sorted(lengths)} frames, "
                "which cannot be prepared together; give each length its own catalog"
            )
        config = self.builder_config
        form = functools.partial(
            thinned, time_step=config.time_step, space_step=config.space_step
        )
        return {
            split: self._generate_examples(events, form)
            for split, events in splits.items()
        }
