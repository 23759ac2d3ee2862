"""Tables of the paper as Markdown, ours beside theirs."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from markdown_table import markdown

from paper.costs import Costs, differs
from paper.table import (
    PAPER_DATA,
    PAPER_STEPS,
    REFERENCE,
    Claim,
    Column,
    Row,
    Table,
    value_of,
)

# By row, the results of its seeds.
Results = Mapping[str, Sequence[Mapping[str, Any]]]


def values_of(results: Sequence[Mapping], column: Column, forecast="model"):
    """The values of a column, one for each seed, in the units of the table."""
    found = [
        column.scale_in(result["data"]["mse_units"]) * value
        for result in results
        if (value := value_of(result, column.key, forecast)) is not None
    ]
    return np.array(found, float)


def cell(column: Column, ours: np.ndarray, printed: float | None) -> str:
    """ "ours (paper)"; several seeds give their mean and half their range."""
    text = column.text(float(ours.mean()) if ours.size else None)
    if ours.size > 1:
        text += f" ± {np.ptp(ours) / 2:.{column.digits}f}"
    return f"{text} ({column.text(printed)})"


def cost_cells(row: Row, costs: Costs) -> list[str]:
    """Parameters and GFLOPs; a star marks those that differ from the paper's."""
    million, giga = costs.parameters / 1e6, row.flops * costs.multiply_adds / 1e9
    cells = []
    for ours, printed, digits in zip((million, giga), row.costs, (2, 1), strict=True):
        decimals = len(str(printed).rpartition(".")[2]) if printed is not None else 0
        star = "*" if differs(ours, printed, 10.0**-decimals) else ""
        shown = "–" if printed is None else f"{printed:g}"
        cells.append(f"{ours:.{digits}f}{star} ({shown})")
    return cells


def scores_table(
    table: Table, data: str, results: Results, costs: Mapping[str, Costs]
) -> str:
    """The rows of one data set, then its reference forecasts.

    Args:
        table: the table.
        data: one of its data sets.
        results: of the rows that are trained.
        costs: of every row to show, at the paper's size.
    """
    columns = table.columns[data]
    heads = ["model", "parameters (M)", "GFLOPs", *(c.heading for c in columns)]
    rows = []
    nothing = [None] * len(columns)
    for key, cost in costs.items():
        row = table.rows[key]
        printed = row.scores.get(data, nothing)
        done = results.get(key, ())
        cells = [row.label, *cost_cells(row, cost)]
        for column, value in zip(columns, printed, strict=True):
            cells.append(cell(column, values_of(done, column), value))
        rows.append(cells)
    first = next(iter(results.values()), [])[:1]
    scored = [n for r in first for n in r["forecasts"] if n != "model"]
    for name in dict.fromkeys([*scored, *table.references]):
        printed = table.references.get(name, {}).get(data, nothing)
        cells = [f"*{name}*", "", ""]
        for column, value in zip(columns, printed, strict=True):
            seen = first if name in scored else []
            cells.append(cell(column, values_of(seen, column, name), value))
        rows.append(cells)
    return markdown(heads, rows) + "\n"


def comparable(table: Table, data: str, scale: str, results: Results) -> str:
    """What the two numbers of a cell have in common, and what not."""
    lines = [
        f"Each cell: ours (the paper's). The simple reference is *{REFERENCE}*; where "
        "there are others, a model has to beat the strongest of them. Parameters and "
        "GFLOPs are those of the paper's size, whatever was trained; a star marks more "
        "than 1 % from the paper.",
        f"The paper: {PAPER_DATA[data]}; {PAPER_STEPS}.",
    ]
    first = next(iter(results.values()), None)
    if first is None:
        return "\n".join([*lines, "Ours: nothing is trained yet.\n"])
    one = first[0]
    sizes = " to ".join("x".join(map(str, one[key])) for key in ("inputs", "targets"))
    steps, batch = (one["config"][f"train.{k}"] for k in ("steps", "batch_size"))
    lines.append(
        f"Ours: scale {scale}; {one['description']}; {sizes}; "
        f"{one['train_examples']:,} training and {one['test_examples']:,} test "
        f"examples; {steps} steps of {batch}; seeds: "
        f"{max(map(len, results.values()))}."
    )
    if scale == "paper" and one["config"].get("data.path"):
        lines.append(
            "The scores are comparable if these are the paper's files and the steps "
            "cover its epochs."
        )
    else:
        text = (
            "The scores are not comparable in value: other data, a smaller model and "
            "fewer steps. Only the order of the rows is."
        )
        if scale == "paper":
            text = "The scores are not comparable in value: the data are others."
        if "mnist" in data and one["targets"][1:3] != [64, 64]:
            text += (
                f" MSE and MAE are sums over {np.prod(one['targets'][1:3]):,} pixels, "
                "the paper's over 4,096."
            )
        lines.append(text)
    return "\n".join(lines) + "\n"


def claims_table(
    table: Table,
    data: str,
    results: Results,
    intervals: Mapping[Claim, tuple[float, float]] = MappingProxyType({}),
) -> str:
    """The paper's orderings of which both rows are trained; "" if there are none.

    Args:
        table: the table.
        data: one of its data sets.
        results: of the rows that are trained.
        intervals: by claim, of our gain: 90 % over test examples, of paired
            forecasts. Without one, the range over seeds is given.
    """
    column = table.columns[data][0]
    heads = [
        *(f"claim, by {column.heading}", "the paper's gain"),
        *("our gain [90 %, or range of seeds]", "verdict"),
    ]
    rows = []
    for claim in table.claims:
        if not {claim.better, claim.worse} <= results.keys():
            continue
        printed = [
            table.rows[k].scores.get(data, [None])[0]
            for k in (claim.worse, claim.better)
        ]
        worse, better = (
            values_of(results[k], column) for k in (claim.worse, claim.better)
        )
        sign = 1.0 if column.lower_is_better else -1.0
        gains = sign * (worse - better)
        paper = None
        if printed[0] is not None and printed[1] is not None:
            paper = sign * (printed[0] - printed[1])
        ours = column.text(float(gains.mean()))
        same = "same order" if gains.mean() > 0 else "other order"
        verdict = f"{same}, one training each"
        if claim in intervals:
            low, high = intervals[claim]
            ours += f" [{column.text(low)}, {column.text(high)}]"
            verdict = same if low > 0 or high < 0 else "not told apart"
        elif len(gains) > 1:
            low, high = gains.min(), gains.max()
            ours += f" [{column.text(low)}, {column.text(high)}]"
            verdict = (
                f"{same} for every seed" if low > 0 or high < 0 else "not told apart"
            )
        rows.append([claim.text, column.text(paper), ours, verdict])
    return markdown(heads, rows) + "\n" if rows else ""
