"""Code shared by the TFDS builders in `datasets/`.

They write ArrayRecord, which allows random access without TensorFlow, and keep the
order of the examples. Importing this module requires tensorflow-datasets. Examples are
made one after the other in this process or, where the builder is given options of
Apache Beam, on the machines of a Beam pipeline. What runs there is in this package, for
`datasets/` is not installed on them.
"""

import functools
import importlib.util
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow_datasets as tfds

from earthformer_jax.data.source import Example

BEAM_OPTIONS = "--beam_pipeline_options"


class ArrayRecordBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A builder that writes ArrayRecord unless another format is requested.

    Attributes:
        takes_beam: whether Apache Beam can make the examples.
    """

    takes_beam = True

    def __init__(self, *, file_format: str | None = "array_record", **kwargs: Any):
        super().__init__(file_format=file_format, **kwargs)
        self._on_beam, self._at_most = False, None

    def download_and_prepare(  # pyright: ignore[reportIncompatibleVariableOverride]
        self,
        *,
        download_config: tfds.download.DownloadConfig | None = None,
        **kwargs: Any,
    ) -> None:
        """Makes and writes all examples.

        Args:
            download_config: with a runner or options of Beam, Beam makes the examples.
            **kwargs: further arguments of `tfds.core.DatasetBuilder`.

        Raises:
            ValueError: if Beam is requested, and is not installed or cannot be used.
        """
        options = download_config or tfds.download.DownloadConfig()
        self._on_beam = bool(options.beam_options or options.beam_runner)
        self._at_most = options.max_examples_per_split
        if self._on_beam and not self.takes_beam:
            raise ValueError(
                f"{BEAM_OPTIONS}: {self.name} is prepared by one process; leave it out"
            )
        if self._on_beam:
            check_beam()
        super().download_and_prepare(download_config=download_config, **kwargs)

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

    def _generate_examples(
        self, source: Sequence[Example], form: Callable[[Example], Example]
    ) -> Any:
        """The examples of a split, with their numbers as keys.

        Args:
            source: random access to all of them; can be pickled.
            form: gives an example the form in which it is stored; a function of an
                installed package, or a `functools.partial` of one.

        Returns:
            an iterator over (number, example), or a transform of Beam that makes them.
        """
        make = functools.partial(_numbered, source, form)
        if not self._on_beam:
            return map(make, range(len(source)))
        import apache_beam as beam  # pyright: ignore[reportMissingImports]

        # Shuffled, so that the numbers do not all stay on one machine.
        numbers = range(len(source))[: self._at_most]
        return beam.Create(numbers) | beam.Reshuffle() | beam.Map(make)


def check_beam() -> None:
    """Refuses to use Apache Beam where it is not installed.

    Raises:
        ValueError: if it is not.
    """
    if importlib.util.find_spec("apache_beam") is None:
        raise ValueError(
            f"{BEAM_OPTIONS} needs Apache Beam: pip install 'earthformer-jax[beam]'"
        )


def _numbered(
    source: Sequence[Example], form: Callable[[Example], Example], number: int
) -> tuple[int, Example]:
    return number, form(source[number])


def array(shape: tuple[int | None, ...], dtype: Any) -> tfds.features.Tensor:
    """A feature stored as raw bytes, which ArrayRecord compresses.

    Several sizes may be None. Without this encoding, integers are stored one by one and
    take several times as long to write and to read.
    """
    return tfds.features.Tensor(shape=shape, dtype=dtype, encoding="bytes")
