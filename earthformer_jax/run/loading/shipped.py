"""The trained models that come with the package, by name."""

from earthformer_jax import pretrained
from earthformer_jax.run.loading import exported
from earthformer_jax.run.programs.kept import Programs
from earthformer_jax.run.trained import TrainedModel
from earthformer_jax.settings import ConfigError, nearest


def names() -> list[str]:
    """The names that `load` knows."""
    return pretrained.names()


def load(name: str, programs: Programs | None = None) -> TrainedModel:
    """A model that comes with the package; `programs` as for `loading.load`.

    Raises:
        ConfigError: if there is none of that name.
    """
    known = names()
    if name not in known:
        raise ConfigError(
            f"{name!r} is not a model that comes with the package"
            f"{nearest(name, known) or ': ' + ', '.join(known)}"
        )
    return exported.load(pretrained.path(name), programs)
