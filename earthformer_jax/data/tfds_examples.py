"""Code shared by the TFDS builders in `datasets/`.

They write ArrayRecord, which allows random access without TensorFlow, and keep the
order of the examples. Importing this module requires tensorflow-datasets.
"""

import inspect
from typing import Any

import tensorflow_datasets as tfds


class ArrayRecordBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A builder that writes ArrayRecord unless another format is requested."""

    def __init__(self, *, file_format: str | None = "array_record", **kwargs: Any):
        super().__init__(file_format=file_format, **kwargs)

    def ordered_info(
        self, features: dict[str, Any], **kwargs: Any
    ) -> tfds.core.DatasetInfo:
        """The data set's information; examples stay in the order of their keys.

        Args:
            features: features by name.
            **kwargs: further arguments of `tfds.core.DatasetInfo`.
        """
        return tfds.core.DatasetInfo(
            builder=self,
            description=inspect.cleandoc(self.__doc__ or ""),
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
            **kwargs,
        )


def array(shape: tuple[int | None, ...], dtype: Any) -> tfds.features.Tensor:
    """A feature stored as raw bytes, which ArrayRecord compresses.

    Several sizes may be None. Without this encoding, integers are stored one by one and
    take several times as long to write and to read.
    """
    return tfds.features.Tensor(shape=shape, dtype=dtype, encoding="bytes")
