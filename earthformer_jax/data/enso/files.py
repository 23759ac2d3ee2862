"""What the files at a path are, and how they are read."""

from pathlib import Path

from earthformer_jax.data import tfds_source
from earthformer_jax.data.enso import gridded_sst, icar, icar_input, icar_tfds
from earthformer_jax.data.enso.settings import Settings
from earthformer_jax.data.readers import formats, layout
from earthformer_jax.data.readers.layout import Wanted


def find_icar(settings: Settings, *, labels: bool = True) -> icar.Months | None:
    """The months of ICAR-ENSO files; None if the path is that of other files.

    Args:
        settings: with a path.
        labels: whether the index of the label file is needed.

    Raises:
        FileNotFoundError: if the label file does not exist.
        ValueError: if the files cannot be used, or the path is a folder without any.
    """
    path = Path(settings.path).expanduser()
    if not labels and path.suffix == icar_input.SUFFIX and path.is_file():
        return icar_input.read(path)
    if tfds_source.is_prepared(path):
        return icar_tfds.read(path)
    train = icar.find(path)
    if train is not None:
        beside = icar.find_labels(train, settings.label_path) if labels else None
        return icar.read(train, beside, settings.variable)
    if path.is_dir() and not formats.is_zarr(path):
        raise ValueError(
            f"path={path} is a folder, but not a Zarr store, and contains neither "
            f"{' nor '.join(icar.TRAIN_FILES)}; to read several files, use a "
            f"pattern such as '{path}/*.nc'"
        )
    return None


def wanted_of(settings: Settings) -> Wanted:
    """What is read of a file of observed temperature."""
    return Wanted(
        variables=layout.words(settings.variable),
        level=settings.level,
        axes=settings.axes,
        missing=settings.missing,
        quantity=gridded_sst.SST,
    )
