"""A table of the paper as data: rows of models, columns of scores, and its claims."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

# Config files, and the sizes of `models.paper` that their data have in the paper.
SIZES = {
    "moving_mnist": "mnist",
    "nbody_mnist": "mnist",
    "sevir": "sevir",
    "enso": "enso",
}
# What the paper trained on (its table 2) and for how long (table 10).
PAPER_DATA = {
    "moving_mnist": "the official file, 8,100 training and 1,000 test sequences",
    "nbody_mnist": "its own files, 20,000 training and 1,000 test sequences",
    "sevir": "SEVIR, 35,718 training and 12,159 test sequences",
    "enso": "ICAR-ENSO, 5,205 training and 1,667 test sequences",
}
PAPER_STEPS = "at most 100 epochs, batches of 64"
REFERENCE = "persistence"  # the simplest forecast; other ones are printed too


@dataclasses.dataclass(frozen=True)
class Column:
    """A score.

    Attributes:
        key: of the score in scores.json, or in its verification.
        heading: of the column.
        digits: after the decimal point.
        scale: the printed value is that of scores.json times this.
        kelvin: of an error, what K^2 are times `scale` where scores.json has them.
        lower_is_better: as for errors.
    """

    key: str
    heading: str
    digits: int
    scale: float = 1.0
    kelvin: float = 1.0
    lower_is_better: bool = False

    def scale_in(self, mse_units: str) -> float:
        """From scores.json, whose errors have these units, to the printed value."""
        return self.scale * (self.kelvin if mse_units == "K^2" else 1.0)

    def text(self, value: float | None) -> str:
        """A value in the units of the table; "–" if there is none."""
        return "–" if value is None else f"{value:.{self.digits}f}"


@dataclasses.dataclass(frozen=True)
class Row:
    """A model of a table.

    Attributes:
        key: of --only, and the name of its folder. Rows of the same key in several
            tables are the same training.
        label: the first cell.
        model: its name.
        options: what differs from the config's model, at every size.
        small: what else differs at the scales test and quick.
        costs: the paper's millions of parameters and GFLOPs, None where not known.
        flops: that the paper counts for one multiply-add.
        scores: by data, the paper's values in the order of the columns.
    """

    key: str
    label: str
    model: str = "earthformer"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    small: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    costs: tuple[float | None, float | None] = (None, None)
    flops: int = 1
    scores: Mapping[str, Sequence[float | None]] = dataclasses.field(
        default_factory=dict
    )


@dataclasses.dataclass(frozen=True)
class Claim:
    """An ordering that the paper's numbers show.

    Attributes:
        text: in words.
        better: key of a row.
        worse: key of the row that it surpasses in the first column.
    """

    text: str
    better: str
    worse: str


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of the paper.

    Attributes:
        name: of the script, "table4".
        title: what it shows.
        data: config files.
        columns: by data.
        rows: by key.
        claims: orderings to test.
        references: by reference forecast and data, the paper's values.
        notes: what a reader has to know.
    """

    name: str
    title: str
    data: Sequence[str]
    columns: Mapping[str, Sequence[Column]]
    rows: Mapping[str, Row]
    claims: Sequence[Claim] = ()
    references: Mapping[str, Mapping[str, Sequence[float | None]]] = dataclasses.field(
        default_factory=dict
    )
    notes: Sequence[str] = ()

    def __post_init__(self):
        for key, row in self.rows.items():
            if key != row.key:
                raise ValueError(f"rows[{key!r}] has the key {row.key!r}")
            for data, values in row.scores.items():
                self._check_values(f"row {key!r}", data, values)
        for name, by_data in self.references.items():
            for data, values in by_data.items():
                self._check_values(f"reference {name!r}", data, values)
        for claim in self.claims:
            for key in (claim.better, claim.worse):
                if key not in self.rows:
                    raise ValueError(f"claim {claim.text!r}: {key!r} is not a row")

    def _check_values(self, of: str, data: str, values: Sequence) -> None:
        if data not in self.data:
            raise ValueError(f"{of}: {data!r} is not one of {list(self.data)}")
        if len(values) != len(self.columns[data]):
            raise ValueError(
                f"{of} on {data}: {len(values)} values for "
                f"{len(self.columns[data])} columns"
            )


def value_of(result: Mapping, key: str, forecast: str = "model") -> float | None:
    """A score of a result; None if it has none."""
    scores = result["forecasts"][forecast]
    return scores.get(key, scores.get("verification", {}).get(key))


def by_key(*rows: Row) -> dict[str, Row]:
    """Rows by key, in order.

    Raises:
        ValueError: if two of them have the same key.
    """
    found = {row.key: row for row in rows}
    if len(found) < len(rows):
        raise ValueError(f"keys {[row.key for row in rows]} are not unique")
    return found
