"""ICAR-ENSO for TFDS: the series of each climate model, from the official files.

    python datasets/build.py datasets/icar_enso --config=cmip --manual_dir=FOLDER

See `datasets/README.md`; the layout is that of `earthformer_jax.data.enso.icar_tfds`.
"""

import numpy as np
import tensorflow_datasets as tfds

from earthformer_jax.data.enso import icar_tfds
from earthformer_jax.data.tfds_examples import ArrayRecordBuilder, array


class IcarEnso(ArrayRecordBuilder):
    """SST anomalies and Nino3.4 of 32 climate models (CMIP) or a reanalysis (SODA).

    One example is the whole monthly series of one model on 24 x 48 cells of 5 degrees,
    55S..60N and 95E..330E.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(
            name="cmip",
            description="CMIP_train.nc: 30 models to train, 1 to validate, 1 to test.",
        ),
        tfds.core.BuilderConfig(
            name="soda", description="SODA_train.nc: one series, split when read."
        ),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
    Download enso_round1_train_20210201.zip from
    https://tianchi.aliyun.com/dataset/dataDetail?dataId=98942 (a login is required, and
    the licence does not permit redistribution), and unpack it so that the folder holds
    CMIP_train.nc and CMIP_label.nc, or SODA_train.nc and SODA_label.nc.
    """

    takes_beam = False

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "sst": array((None, None, None), np.float32),
            "nino": array((None,), np.float32),
            "latitude": array((None,), np.float64),
            "longitude": array((None,), np.float64),
            "first_month": np.int32,
            "model": np.int32,
        }
        return self.ordered_info(
            features,
            homepage="https://tianchi.aliyun.com/dataset/dataDetail?dataId=98942",
        )

    def _split_generators(self, dl_manager):
        examples = icar_tfds.examples(dl_manager.manual_dir, self.builder_config.name)
        return {split: enumerate(of_split) for split, of_split in examples.items()}
