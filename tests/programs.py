"""What compiled programs may cost, without measuring time.

    program = gradient_program(module, inputs)
    assert faults(program, inputs[0], limits) == []

Sizes are in fields, the bytes of a layer's input. Limits are what XLA plans in jax 0.10
and 0.12, whichever is more, and 3 % for other versions; products have to be exactly
those that are listed. If a limit is exceeded, a layer copies or stores more than it
did, or computes other products: either that is a mistake, or a measurement
(`benchmarks/layers.py`) shows that the layer got faster, and the limits change with it.
"""

import collections
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from earthformer_jax.profiling.operations import moved, operations
from earthformer_jax.run.planning.step import UNOPTIMISED

SPARE = 1.03
Sides = tuple[int, tuple[int, int, int]]  # as in `Product.sides`


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a program may do at most, and its products.

    Attributes:
        products: how often a call computes products of these sides.
        copied: fields written by copies.
        transposed: fields written by transposes (of which most are copied as well).
        accessed: fields that operations read and write, loops counted once.
        planned: fields of working memory.
        exponentials: fields of exponentials and hyperbolic tangents; None: unlimited.
        loops: that carry at least a field.
        across_rows: products whose left matrices do not lie as they are read.
    """

    products: Mapping[Sides, int]
    copied: float
    transposed: float
    accessed: float
    planned: float
    exponentials: float = 0
    loops: int = 0
    across_rows: int = 0


def shapes(*sizes: tuple[int, ...]) -> tuple[jax.ShapeDtypeStruct, ...]:
    """Descriptions of float32 arrays."""
    return tuple(jax.ShapeDtypeStruct(size, jnp.float32) for size in sizes)


def compiled(function: Callable, *arguments: Any) -> Any:
    """The program of a function of arrays, or of their descriptions.

    The machine code is not optimised, which takes most of the time of compiling and
    changes nothing that is checked here.
    """
    lowered = jax.jit(function).lower(*arguments)
    return lowered.compile(compiler_options=UNOPTIMISED)


def forward_program(module: Any, inputs: tuple) -> Any:
    """The program of a module without training."""
    variables = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    return compiled(module.apply, variables, *inputs)


def gradient_program(module: Any, inputs: tuple) -> Any:
    """The program of gradients of the sum of mean squares of a module's results."""
    variables = jax.eval_shape(module.init, jax.random.key(0), *inputs)

    def loss(variables, inputs):
        found = jax.tree.leaves(module.apply(variables, *inputs))
        return sum(jnp.mean(jnp.square(x)) for x in found)

    return compiled(jax.grad(loss, (0, 1)), variables, inputs)


def faults(program: Any, field: jax.ShapeDtypeStruct, limits: Limits) -> list[str]:
    """What a program does beyond its limits, a line for each; none if all is well."""
    size = field.dtype.itemsize * math.prod(field.shape)
    found = operations(program.as_text())
    products = collections.Counter()
    for one in found:
        if one.product:
            products[one.product.sides] += one.times
    names = ("exponential", "tanh", "logistic")
    numbers = {
        "copied": moved(found, ["copy"]) / size,
        "transposed": moved(found, ["transpose"]) / size,
        "accessed": program.cost_analysis()["bytes accessed"] / size,
        "planned": program.memory_analysis().temp_size_in_bytes / size,
        "exponentials": moved(found, names) / size,
        "loops": sum(one.kind == "while" and one.bytes >= size for one in found),
        "across_rows": sum(
            one.times for one in found if one.product and not one.product.along_rows
        ),
    }
    most = {name: SPARE * getattr(limits, name) for name in numbers}
    lines = [
        f"{name}: {number:.2f}, at most {most[name]:.2f}"
        for name, number in numbers.items()
        if number > most[name]
    ]
    for sides in sorted({*products, *limits.products}):
        have, want = products[sides], limits.products.get(sides, 0)
        if have != want:
            lines.append(f"products of sides {sides}: {have}, not {want}")
    return lines


# Nothing is computed for them, or only a part of the result is written.
_NOTHING = "parameter constant tuple get-tuple-element bitcast while call conditional"
_NOTHING += " fusion dynamic-update-slice"


def cost(program: Any) -> dict[str, float]:
    """Multiply-adds, and bytes of all results, of loops in all of their rounds.

    And "planned", bytes of working memory.
    """
    found = operations(program.as_text())
    products = [(x.times, x.product) for x in found if x.product]
    return dict(
        multiply_adds=sum(
            times * math.prod((x.batch, *x.sides[1])) for times, x in products
        ),
        results=sum(x.times * x.bytes for x in found if x.kind not in _NOTHING.split()),
        planned=program.memory_analysis().temp_size_in_bytes,
    )


def check_growth(least: Mapping, grown: Mapping, factor: float) -> None:
    """Products grow by a factor within 10 %, everything else by no more than that.

    It may grow less: weights, and what is done with them, do not grow.
    """
    ratios = {what: grown[what] / least[what] / factor for what in grown}
    assert 0.9 < ratios["multiply_adds"] and max(ratios.values()) < 1.1, ratios
