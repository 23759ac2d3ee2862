r"""A search over patterns, sizes and shifts of cuboid attention under a FLOP budget.

    python experiments/search.py --costs --number=20             # what fits the budget
    python experiments/search.py --scale=quick --number=8        # and how good it is
    python experiments/search.py --patterns=axial --vectors=0,1,2,4,8,16 --number=0
    python experiments/search.py --patterns=axial --hierarchy=yes,no --number=0

Candidates are the named patterns of the paper's table 4 and random ones, of one to
three layers with cuboids of any size, local or dilated, shifted or not; each with every
number of global vectors asked for, and with or without hierarchy. Those with more
multiply-adds than the budget, at the paper's size (depth 4,4 on MovingMNIST), are left
out. The others are trained (scale quick: depth 1,1 and a quarter of the channels) and
ranked by their validation score; only the winner's test score is shown, beside that of
the axial pattern and persistence, since a choice made by test scores would flatter it.

Results are kept: a candidate that is done is not trained again.
"""

import argparse
import dataclasses
import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from markdown_table import markdown
from paper.costs import Costs, costs_of
from paper.mnist import DATA, NO_GLOBAL, NO_HIERARCHY, PATTERNS, SMALL, depths
from paper.program import changes_of
from paper.runs import SCALES, Mismatch, config_of, folder_of, trained
from paper.table import Row

from earthformer_jax import models
from earthformer_jax.models import paper
from earthformer_jax.models.contract import Forecaster
from earthformer_jax.models.earthformer import Earthformer
from earthformer_jax.ops import patterns
from earthformer_jax.ops.cuboid import CuboidSpec
from earthformer_jax.ops.resample import Grid
from earthformer_jax.reports import scoring
from earthformer_jax.settings import ConfigError

BUDGET = 33.7  # billions, what the paper counts for its axial pattern
WHOLE = 0  # in a size: the whole axis
TIMES, SIDES = (1, 2, 5, WHOLE), (1, 2, 4, 8, WHOLE)


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer of a pattern, for any grid.

    Attributes:
        size: of the cuboids along (t, h, w); `WHOLE` for the whole axis.
        dilated: rather than local.
        shifted: by half a cuboid; only if local.
    """

    size: Grid
    dilated: bool = False
    shifted: bool = False

    def cut(self, grid: Grid) -> CuboidSpec:
        """The layer on a grid."""
        size = tuple(n or g for n, g in zip(self.size, grid, strict=True))
        shift = tuple(n // 2 for n in size) if self.shifted else (0, 0, 0)
        return CuboidSpec(size, "ddd" if self.dilated else "lll", shift)

    def __str__(self) -> str:
        size = "x".join(str(n) if n else "all" for n in self.size)
        return size + "d" * self.dilated + "s" * self.shifted


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A pattern, a number of global vectors, and whether there is a hierarchy.

    Attributes:
        pattern: a name of `ops.patterns`, or layers.
        vectors: number of global vectors.
        hierarchy: whether the second level has half the height and width.
    """

    pattern: str | tuple[Layer, ...]
    vectors: int
    hierarchy: bool = True

    @property
    def name(self) -> str:
        """Of its folder and row."""
        text = self.pattern
        if not isinstance(text, str):
            text = "_".join(map(str, text))
        return f"{text}-g{self.vectors}" + "-flat" * (not self.hierarchy)

    @property
    def options(self) -> dict[str, Any]:
        """Options of the model without its pattern."""
        options = dict(num_global_vectors=self.vectors) if self.vectors else NO_GLOBAL
        return dict(options) | ({} if self.hierarchy else NO_HIERARCHY)

    def row(self) -> Row:
        """The training of a candidate, with its pattern if that has a name."""
        named = isinstance(self.pattern, str)
        options = self.options | ({"enc_pattern": self.pattern} if named else {})
        return Row(
            key=self.name,
            label=self.name,
            options=options | depths(4),
            small=SMALL | depths(1),
        )

    def model(self, options: Mapping[str, Any], inputs, targets) -> Forecaster:
        """The Earthformer with this pattern.

        Args:
            options: all others.
            inputs, targets: shapes.
        """
        pattern = self.pattern
        if not isinstance(pattern, str):
            plain = cast(
                Earthformer,
                models.create_model("earthformer", inputs, targets, **options),
            )
            pattern = tuple(
                tuple(layer.cut(grid) for layer in pattern)
                for grid in plain.memory_grids
            )
        options = {**options, "enc_pattern": pattern}
        return models.create_model("earthformer", inputs, targets, **options)


def drawn(rng: np.random.Generator) -> tuple[Layer, ...]:
    """A random pattern that mixes along time, height and width."""
    while True:
        layers = tuple(
            Layer(
                (
                    int(rng.choice(TIMES)),
                    int(rng.choice(SIDES)),
                    int(rng.choice(SIDES)),
                ),
                dilated=(kind := int(rng.integers(3))) == 1,
                shifted=kind == 2,
            )
            for _ in range(rng.integers(1, 4))
        )
        if (1, 1, 1) in [layer.size for layer in layers]:
            continue  # attends to nothing but itself
        if all(any(layer.size[axis] != 1 for layer in layers) for axis in range(3)):
            return layers


def paper_cost(candidate: Candidate) -> Costs:
    """Costs at the paper's size, depth 4,4 on MovingMNIST."""
    options = dict(candidate.options) | depths(4) | dict(scan_blocks=True)
    return costs_of(candidate.model(options, *paper.SHAPES["mnist"]))


def result_of(candidate: Candidate, a: argparse.Namespace, changes) -> dict | None:
    """The result of a candidate, trained if need be; None if it was interrupted."""
    row = candidate.row()
    config = config_of(row, a.data, a.scale, a.seed, changes)
    folder = folder_of(a.out, row, a.data, a.scale, a.seed)
    if isinstance(candidate.pattern, str):
        return trained(folder, config)

    def make(inputs, targets):
        options = config.model.to_dict()
        del options["name"]
        return candidate.model(options, inputs, targets)

    return trained(folder, config, candidate.name, make)


def table(
    costs: Mapping[Candidate, Costs], results: Mapping[Candidate, Mapping], a
) -> str:
    """The candidates, best validation score first, and what to know of the winner."""
    lines = [
        f"# Patterns of at most {a.budget:g} billion multiply-adds\n",
        "Costs are those of the paper's size. A layer is time x height x width of its "
        "cuboids, d: dilated, s: shifted by half a cuboid; g: global vectors.\n",
    ]
    rows = []
    ranked = sorted(results, key=lambda c: results[c]["validation"])
    for candidate in [*ranked, *(c for c in costs if c not in results)]:
        parameters, multiply_adds = costs[candidate]
        score = "over budget" if multiply_adds > 1e9 * a.budget else ""
        if candidate in results:
            score = f"{results[candidate]['validation']:.2f}"
        counted = f"{parameters / 1e6:.2f}", f"{multiply_adds / 1e9:.1f}"
        rows.append([candidate.name, *counted, score])
    heads = ["pattern", "parameters (M)", "GFLOPs", "validation MSE"]
    lines.append(markdown(heads, rows))
    if ranked:
        best = results[ranked[0]]
        shown = {ranked[0].name: best["forecasts"]["model"]["mse"]}
        for candidate in ranked[1:]:
            if candidate.pattern == "axial" and candidate.hierarchy:
                shown[candidate.name] = results[candidate]["forecasts"]["model"]["mse"]
        shown["persistence"] = best["forecasts"]["persistence"]["mse"]
        text = ", ".join(f"{name} {value:.2f}" for name, value in shown.items())
        lines.append(
            f"\nTest MSE: {text} ({best['test_examples']:,} sequences; the winner of "
            f"{len(ranked)} on {a.data}, one training each: differences of a few per "
            "cent are within what another seed gives)."
        )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Counts, trains and ranks candidates.

    Returns:
        0; 1 if a training was interrupted, which the same command resumes.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--patterns", default=",".join(PATTERNS), help="names")
    parser.add_argument("--number", type=int, default=4, help="of random patterns")
    parser.add_argument("--vectors", default="0", help="numbers of global vectors")
    parser.add_argument("--hierarchy", default="yes", help="yes, no, or yes,no")
    parser.add_argument("--budget", type=float, default=BUDGET, help="billions")
    parser.add_argument("--data", choices=DATA, default="nbody_mnist")
    parser.add_argument("--scale", choices=SCALES, default="quick")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--path", default="", help="files of the data set")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--costs", action="store_true", help="train nothing")
    parser.add_argument("--out", type=pathlib.Path, default="runs/search")
    a = parser.parse_args(arguments)
    candidates = candidates_of(parser, a)
    changes = changes_of(parser, a)
    costs = {candidate: paper_cost(candidate) for candidate in candidates}
    results: dict[Candidate, dict] = {}
    fitting = [c for c in costs if costs[c].multiply_adds <= 1e9 * a.budget]
    if not fitting:
        least = min(x.multiply_adds for x in costs.values()) / 1e9
        parser.error(f"--budget={a.budget:g}: the cheapest candidate needs {least:.1f}")
    if a.costs:
        print(table(costs, results, a))
        return 0
    logging.basicConfig(level=logging.WARNING)
    try:
        for candidate in fitting:
            result = result_of(candidate, a, changes)
            if result is None:
                print("interrupted: the same command resumes")
                return 1
            results[candidate] = result
            print(f"{candidate.name}: {result['validation']:.3f}", flush=True)
    except (ConfigError, Mismatch) as error:
        parser.error(str(error))
    text = table(costs, results, a)
    (a.out / f"search-{a.data}-{a.scale}.md").write_text(text)
    scoring.write_json(
        a.out / f"search-{a.data}-{a.scale}.json",
        {c.name: x["validation"] for c, x in results.items()},
    )
    print(text, flush=True)
    return 0


def candidates_of(parser, a: argparse.Namespace) -> list[Candidate]:
    """What the command line asks for; anything that is unknown ends the program."""
    names = [name for name in a.patterns.split(",") if name]
    for name in names:
        if name not in patterns.self_attention_names():
            parser.error(
                f"--patterns={name}: expected some of {', '.join(PATTERNS)}, or "
                "another name of ops.patterns"
            )
    if a.number < 0 or not (names or a.number):
        parser.error(f"--number={a.number}: expected at least {int(not names)}")
    if not all(x.isdigit() for x in a.vectors.split(",")):
        parser.error(f"--vectors={a.vectors}: expected numbers, such as 0,8")
    if not set(a.hierarchy.split(",")) <= {"yes", "no"}:
        parser.error(f"--hierarchy={a.hierarchy}: expected yes, no, or yes,no")
    rng = np.random.default_rng(a.seed)
    found = [*names, *(drawn(rng) for _ in range(a.number))]
    return list(
        dict.fromkeys(
            Candidate(pattern, int(vectors), hierarchy == "yes")
            for pattern in found
            for vectors in a.vectors.split(",")
            for hierarchy in a.hierarchy.split(",")
        )
    )


if __name__ == "__main__":
    raise SystemExit(main())
