"""What a model consists of and costs: layers, parameters, multiply-adds, memory.

Everything is found by tracing: nothing is compiled and nothing runs, so that it takes
seconds for any model. All numbers are for one example.
"""

import dataclasses
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util

from earthformer_jax import models
from earthformer_jax.models import paper
from earthformer_jax.models.contract import Forecaster, Variables, uses_targets
from earthformer_jax.profiling.multiply_adds import multiply_adds, residual_bytes

RNGS = ("params", "dropout", "sampling")


@dataclasses.dataclass(frozen=True)
class Layer:
    """A module that has its own parameters.

    Attributes:
        path: of the module in the tree of parameters.
        kind: its class.
        outputs: shapes of its outputs; inside a recurrence, those of one step.
        parameters: number of its own trained values, without those of submodules.
    """

    path: str
    kind: str
    outputs: tuple[tuple[int, ...], ...]
    parameters: int


@dataclasses.dataclass(frozen=True)
class Structure:
    """What tracing `init` reveals.

    Attributes:
        layers: in the order of their first call.
        variables: shapes and types, by collection.
    """

    layers: tuple[Layer, ...]
    variables: Variables

    def size(self, collection: str) -> int:
        """Number of values in a collection of variables."""
        return sum(a.size for a in jax.tree.leaves(self.variables.get(collection, {})))


def structure(model: Forecaster, input_shape: Sequence[int]) -> Structure:
    """Layers and variables of a model.

    Args:
        model: forecaster of `[b, T, H, W, C]`.
        input_shape: (T, H, W, C).
    """
    called: dict[tuple[str, ...], tuple[str, Any]] = {}

    def note(call, args, kwargs, context):
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        module, path = context.module, context.module.path
        called.setdefault(path, (type(module).__name__, ()))  # in order of the calls
        result = call(*args, **kwargs)
        shapes = tuple(tuple(x.shape) for x in jax.tree.leaves(result))
        called[path] = (type(module).__name__, shapes)
        return result

    with nn.intercept_methods(note):
        variables = jax.eval_shape(
            lambda x: model.init(_keys(), x, train=False), _batch(input_shape)
        )
    own: dict[tuple[str, ...], int] = {}
    leaves: dict[tuple[str, ...], Any]
    leaves = traverse_util.flatten_dict(variables.get("params", {}))
    for path, leaf in leaves.items():
        own[path[:-1]] = own.get(path[:-1], 0) + leaf.size
    order = [p for p in called if p in own] + [p for p in own if p not in called]
    layers = (Layer("/".join(p), *called.get(p, ("", ())), own[p]) for p in order)
    return Structure(tuple(layers), variables)


def forecast_cost(
    model: Forecaster, input_shape: Sequence[int], variables: Variables
) -> int:
    """Multiply-adds of one forecast.

    Args:
        model: forecaster of `[b, T, H, W, C]`.
        input_shape: (T, H, W, C).
        variables: shapes and types, as of `structure`.
    """
    return multiply_adds(model.apply, variables, _batch(input_shape))


def activation_bytes(
    model: Forecaster,
    input_shape: Sequence[int],
    target_shape: Sequence[int],
    variables: Variables,
) -> int:
    """Bytes that a training step keeps for its backward pass; see `residual_bytes`.

    An estimate: XLA's temporary memory per further example, compiled for a CPU, was 0.5
    (UNet), 1.0 (Earthformer) and 1.3 times (ConvLSTM) as much.

    Args:
        model: forecaster of `[b, T, H, W, C]`.
        input_shape: (T, H, W, C).
        target_shape: (K, H, W, C_out).
        variables: shapes and types, as of `structure`.
    """

    def forward(params, others, inputs, targets, step):
        taught = uses_targets(model)
        forecast, changed = model.apply(
            {"params": params, **others},
            inputs,
            train=True,
            rngs=_keys(),
            mutable=["losses", "batch_stats"],
            **(dict(targets=targets, step=step) if taught else {}),
        )
        return (forecast, changed.get("losses", {})), changed

    others = {k: v for k, v in variables.items() if k == "batch_stats"}
    return residual_bytes(
        forward,
        variables.get("params", {}),
        others,
        _batch(input_shape),
        _batch(target_shape),
        jax.ShapeDtypeStruct((), jnp.int32),
    )


def describe(
    model: Forecaster,
    input_shape: Sequence[int],
    target_shape: Sequence[int],
    title: str,
) -> str:
    """The text of `--mode=summary`.

    Args:
        model: forecaster of `[b, T, H, W, C]`.
        input_shape: (T, H, W, C).
        target_shape: (K, H, W, C_out).
        title: the heading, such as the name of the model.
    """
    found = structure(model, input_shape)
    rows = [
        (
            layer.path or "(the model)",
            layer.kind,
            ", ".join(map(_shape, layer.outputs)),
            f"{layer.parameters:,}",
        )
        for layer in found.layers
    ]
    cost = forecast_cost(model, input_shape, found.variables)
    memory = activation_bytes(model, input_shape, target_shape, found.variables)
    lines = [
        f"{title}: {_shape(input_shape)} to {_shape(target_shape)}",
        "",
        *(_table(("layer", "kind", "output", "parameters"), rows) if rows else ()),
        *([""] if rows else ()),
        f"parameters         {found.size('params'):,}",
    ]
    if found.size("batch_stats"):
        lines.append(f"batch statistics   {found.size('batch_stats'):,}")
    return "\n".join(
        [
            *lines,
            f"multiply-adds      {cost:,} in one forecast",
            f"activation memory  {memory / 2**20:,.1f} MiB per example: what the "
            "backward pass keeps,",
            "                   before the compiler recomputes or fuses any of it",
        ]
    )


def zoo() -> str:
    """The text of `--mode=summary --all`: every forecaster at the paper's sizes.

    Raises:
        ValueError: if a model cannot be built for one of the data sets; its entry in
            `models.paper.PAPER_OPTIONS` then needs other options.
    """
    lines = []
    for data, title in paper.DATA.items():
        inputs, targets = paper.SHAPES[data]
        lines += [f"{title}: {_shape(inputs)} to {_shape(targets)}", ""]
        rows = [_zoo_row(label, data) for label in labels()]
        lines += [*_table(_ZOO_HEADER, rows), ""]
    lines += [*_ZOO_NOTES, *_remarks(labels())]
    return "\n".join(lines)


def labels() -> list[str]:
    """Rows of the zoo: entries of `PAPER_OPTIONS` and models that have none."""
    known = [n for n in models.names() if n not in models.RESTORERS]
    rows = [*paper.PAPER_OPTIONS, *(n for n in known if n not in paper.PAPER_OPTIONS)]
    return [label for label in rows if _options(label, "mnist")["name"] in known]


_ZOO_HEADER = (
    "model",
    "parameters (M)",
    "paper",
    "multiply-adds (G)",
    "paper's GFLOPs",
    "the paper counts",
)
_ZOO_NOTES = (
    "Parameters are trained numbers in millions. Multiply-adds are those of matrix",
    "products and convolutions in one forecast, in billions. The paper's column GFLOPs",
    "counts multiply-adds, or twice as much where the last column says so.",
)


def _zoo_row(label: str, data: str) -> tuple[str, ...]:
    inputs, targets = paper.SHAPES[data]
    options = _options(label, data)
    try:
        model = models.create_model(input_shape=inputs, target_shape=targets, **options)
    except ValueError as error:
        raise ValueError(f"model {label!r} for {data}: {error}") from error
    found = structure(model, inputs)
    printed = paper.PAPER_COSTS.get(label, {}).get(data)
    factor = paper.FLOPS_PER_MULTIPLY_ADD.get(label, 1)
    return (
        label,
        f"{found.size('params') / 1e6:.2f}",
        f"{printed[0]:.1f}" if printed else "",
        f"{forecast_cost(model, inputs, found.variables) / 1e9:.2f}",
        f"{printed[1]:g}" if printed else "",
        (f"{factor} x " * (factor > 1) + "multiply-adds") if printed else "",
    )


def _options(label: str, data: str) -> dict[str, Any]:
    return {"name": label} | dict(paper.PAPER_OPTIONS.get(label, {}).get(data, {}))


def _remarks(shown: Sequence[str]) -> Iterator[str]:
    for label, remark in paper.REMARKS.items():
        if label in shown:
            yield from textwrap.wrap(f"{label}: {remark}.", 80)


def _keys():
    """Random keys, made inside a trace."""
    return {name: jax.random.key(i) for i, name in enumerate(RNGS)}


def _batch(shape: Sequence[int]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *shape), jnp.float32)


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "()"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; columns of numbers are aligned to the right."""
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [
        any(cell for cell in column[1:])
        and all(
            cell.replace(",", "").replace(".", "").isdigit() or not cell
            for cell in column[1:]
        )
        for column in columns
    ]

    def line(cells):
        parts = [
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(cells, widths, right, strict=True)
        ]
        return f"| {' | '.join(parts)} |"

    rule = [
        "-" * (width - is_right) + ":" * is_right
        for width, is_right in zip(widths, right, strict=True)
    ]
    return [line(header), line(rule), *map(line, rows)]
