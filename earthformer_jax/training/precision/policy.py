"""The section `precision` of a config: types of numbers, stated in one place.

What a model multiplies is of the type `compute`; parameters are kept in the type
`params`. Whatever these are, sums are in float32: those of products, norms, softmax,
losses, gradients over examples, micro-batches and devices, and the moments of Adam.
Inputs, targets and forecasts are float32.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import jax
import ml_collections
import numpy as np

from earthformer_jax.checks import DTYPES
from earthformer_jax.settings import ConfigError, at_least, choice, number, setting
from earthformer_jax.training.precision import loss_scale as scale_lib

Method = TypeVar("Method", bound=Callable[..., Any])

FLOAT32, BFLOAT16, FLOAT16 = "float32", "bfloat16", "float16"
# What each type of the arithmetic is called where a model is made.
_FIELDS = dict(zip(("compute", "params"), DTYPES, strict=True))


@dataclasses.dataclass(frozen=True)
class PrecisionSettings:
    """Types of numbers; sums are in float32 whatever they are.

    Attributes:
        compute: type of what a model multiplies, and of the fields between its layers;
            float16 with a scaled loss.
        params: type that parameters are kept in between steps.
        matmul: how exactly float32 numbers are multiplied. default: as fast as the
            device can (CPUs in float32, GPUs in TF32, TPUs in one pass of bfloat16);
            high: TF32, and three passes; highest: float32 everywhere.
        loss_scale: of float16: what the loss of the first step is multiplied by.
        loss_scale_window: of float16: steps in a row without overflow after which the
            scale is doubled.
    """

    compute: str = setting(FLOAT32, choice(FLOAT32, BFLOAT16, FLOAT16))
    params: str = setting(FLOAT32, choice(FLOAT32, BFLOAT16))
    matmul: str = setting("default", choice("default", "high", "highest"))
    loss_scale: float = setting(
        scale_lib.FIRST,
        number("from 1 to 2**24", lambda x: scale_lib.LEAST <= x <= scale_lib.MOST),
    )
    loss_scale_window: int = setting(scale_lib.WINDOW, at_least(1))

    def check(self) -> None:
        """Refuses options of float16 for other types.

        Raises:
            ConfigError: naming them.
        """
        if self.compute == FLOAT16:
            return
        given = {"loss_scale": self.loss_scale}
        given["loss_scale_window"] = self.loss_scale_window
        wrong = [
            f"{name}={value!r} is not an option of compute={self.compute!r}; expected "
            f"the default, {getattr(type(self), name)!r}"
            for name, value in given.items()
            if value != getattr(type(self), name)
        ]
        if wrong:
            raise ConfigError(*wrong)

    @property
    def first_scale(self) -> float | None:
        """What the loss of the first step is multiplied by; None: it is not scaled."""
        return self.loss_scale if self.compute == FLOAT16 else None

    def describe(self) -> str:
        """One line for the log and the plan."""
        text = f"{self.compute} arithmetic, {self.params} parameters, float32 sums"
        return text + ("" if self.matmul == "default" else f", {self.matmul} products")


def move_from_model(config: ml_collections.ConfigDict) -> None:
    """Moves `model.dtype` and `model.param_dtype` of an unlocked config to here.

    That is where they were until there was a section for them. An empty one is float32.

    Raises:
        ConfigError: if they contradict the section.
    """
    model = config.get("model")
    if not isinstance(model, ml_collections.ConfigDict):
        return
    if not isinstance(config.get("precision", {}), Mapping | ml_collections.ConfigDict):
        return  # which checking rejects
    for field, before in _FIELDS.items():
        if before not in model:
            continue
        value = _name(model[before])
        del model[before]
        if "precision" not in config:
            config.precision = {}
        if config.precision.get(field, value) != value:
            raise ConfigError(
                f"config.model.{before}={value!r} and config.precision.{field}="
                f"{config.precision[field]!r}: leave the first out"
            )
        config.precision[field] = value


def successor(name: str) -> str:
    """The field that replaces one of the model: "precision.compute" of "model.dtype".

    Empty for any other field.
    """
    after = {f"model.{old}": f"precision.{new}" for new, old in _FIELDS.items()}
    return after.get(name, "")


def _name(value: Any) -> Any:
    """ "bfloat16" of a type or its name; what is no type stays, to be rejected."""
    if value is None or value == "":
        return FLOAT32
    try:
        return np.dtype(value).name
    except TypeError:
        return value


def model_options(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """What a model of a complete config is made with: "name", and its options.

    Args:
        config: the whole config; without a section `precision` all is float32.
    """
    types = config.get("precision", {})
    given = {old: types.get(new, FLOAT32) for new, old in _FIELDS.items()}
    given = {name: value for name, value in given.items() if value != FLOAT32}
    return config.model.to_dict() | given


def products(config: ml_collections.ConfigDict) -> Any:
    """A context in which programs are traced: `precision.matmul` holds in them.

    Args:
        config: the whole config.
    """
    matmul = config.get("precision", {}).get("matmul", "default")
    if matmul == "default":  # or what a program that calls this one has chosen
        return contextlib.nullcontext()
    return jax.default_matmul_precision(matmul)


def with_products(method: Method) -> Method:
    """A method of an object with a whole `config`, in which `products` holds."""

    @functools.wraps(method)
    def called(self, *args, **kwargs):
        with products(self.config):
            return method(self, *args, **kwargs)

    return cast(Method, called)
