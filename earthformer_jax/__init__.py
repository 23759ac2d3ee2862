"""Earth-system forecasting in JAX and Flax: from a config to a trained model.

    import earthformer_jax as ef

    config = ef.load_config("enso:quick", {"train.steps": 100})
    trained = ef.train(config, "runs/quick")
    scores = ef.evaluate("runs/quick")

    trained = ef.load("runs/quick")
    batch = trained.data.test[0]["inputs"][None]  # [1, t, h, w, c]
    forecast = trained(batch)  # [1, k, h, w, c]

A model on its own is a Flax module:

    model = ef.create_model("unet", (10, 64, 64, 1), (5, 64, 64, 1))

Names are imported when they are first used, so `import earthformer_jax` takes no time.
The rest of the package is in its folders: `earthformer_jax.ops`, `layers`, `models`,
`data`, `metrics` and so on.
"""

import difflib
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from earthformer_jax.models import create_model
    from earthformer_jax.models import names as model_names
    from earthformer_jax.run.api import evaluate, load, load_config, train
    from earthformer_jax.run.parts import load_data
    from earthformer_jax.run.trained import TrainedModel
    from earthformer_jax.settings import ConfigError
    from earthformer_jax.training.checkpoint import CheckpointError

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "ConfigError",
    "TrainedModel",
    "create_model",
    "evaluate",
    "load",
    "load_config",
    "load_data",
    "model_names",
    "train",
]

# The module of each name.
_MODULES = {
    "CheckpointError": "training.checkpoint",
    "ConfigError": "settings",
    "TrainedModel": "run.trained",
    "create_model": "models",
    "evaluate": "run.api",
    "load": "run.api",
    "load_config": "run.api",
    "load_data": "run.parts",
    "model_names": "models",
    "train": "run.api",
}
_NAMES_THERE = {"model_names": "names"}


def __getattr__(name: str) -> Any:
    """Imports a name of `__all__` when it is first used."""
    if name not in _MODULES:
        close = difflib.get_close_matches(name, __all__, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")
    module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    return globals().setdefault(name, getattr(module, _NAMES_THERE.get(name, name)))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
