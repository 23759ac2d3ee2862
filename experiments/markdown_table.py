"""A Markdown table, the same for every experiment."""

from collections.abc import Iterable, Sequence


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The table without a line end after its last row.

    Args:
        heads: of the columns.
        rows: a cell for each column.
    """
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
