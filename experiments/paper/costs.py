"""Parameters and multiply-adds of a row at the paper's size, found by tracing."""

from typing import NamedTuple

from earthformer_jax import models
from earthformer_jax.models import paper
from earthformer_jax.models.contract import Forecaster
from earthformer_jax.models.earthformer.variants import VARIANTS
from earthformer_jax.profiling import summary
from paper.table import SIZES, Row

CLOSE = 0.01  # share by which costs may differ from the printed ones, beyond rounding


class Costs(NamedTuple):
    """Of one model.

    Attributes:
        parameters: trained numbers.
        multiply_adds: of one forecast; 0 if they were not counted.
    """

    parameters: int
    multiply_adds: int


def paper_model(row: Row, data: str) -> Forecaster:
    """The model of a row with the paper's options, for the paper's shapes."""
    size = SIZES[data]
    inputs, targets = paper.SHAPES[size]
    if row.model == "earthformer":
        options = VARIANTS[size] | {"scan_blocks": True}
    else:
        options = paper.PAPER_OPTIONS.get(row.model, {}).get(size, {})
    return models.create_model(
        row.model,
        input_shape=inputs,
        target_shape=targets,
        **{**options, **row.options},
    )


def costs_of(model: Forecaster, count_multiply_adds: bool = True) -> Costs:
    """Costs of a model, which is neither compiled nor run."""
    shape = model.input_shape  # pyright: ignore[reportAttributeAccessIssue]
    found = summary.structure(model, shape)
    multiply_adds = 0
    if count_multiply_adds:
        multiply_adds = summary.forecast_cost(model, shape, found.variables)
    return Costs(found.size("params"), multiply_adds)


def differs(ours: float, printed: float | None, unit: float) -> bool:
    """Whether a cost differs from the printed one by more than its rounding and 1 %.

    Args:
        ours: the cost.
        printed: the paper's; None: not known, so that nothing differs.
        unit: of the last printed digit.
    """
    if printed is None:
        return False
    return abs(ours - printed) > unit / 2 + CLOSE * printed
