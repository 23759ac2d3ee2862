"""Table 3: depth and hierarchy of the Earthformer on MovingMNIST.

    python experiments/table3.py --scale=quick --data=nbody_mnist
    python experiments/table3.py --costs

"Depth 4" has the blocks and channels of "depth 2,2" but never merges positions between
the levels, which is how the paper's parameters and GFLOPs come out. The paper has no
numbers for N-body MNIST here; the rows can be trained on it all the same.
"""

from paper.mnist import COLUMNS, DATA, NO_GLOBAL, NO_HIERARCHY, SMALL, depths
from paper.program import main
from paper.table import Claim, Row, Table, by_key

# Depth: parameters, GFLOPs; MSE, MAE, SSIM; without hierarchy, then with it.
FLAT = {
    2: (1.4, 17.9, 63.80, 140.6, 0.8324),
    4: (3.1, 36.3, 52.46, 114.8, 0.8685),
    6: (4.9, 54.6, 50.49, 110.0, 0.8738),
    8: (6.6, 73.0, 48.04, 104.6, 0.8797),
}
HIERARCHICAL = {
    2: (1.4, 11.5, 60.99, 135.7, 0.8388),
    4: (3.1, 18.9, 50.41, 106.9, 0.8805),
    6: (4.9, 26.3, 47.69, 100.1, 0.8873),
    8: (6.6, 33.7, 46.91, 101.5, 0.8825),
}


def _row(depth: int, hierarchical: bool) -> Row:
    each = depth // 2
    costs_and_scores = (HIERARCHICAL if hierarchical else FLAT)[depth]
    options = NO_GLOBAL | depths(each)
    if not hierarchical:
        options |= NO_HIERARCHY
    name = f"{each},{each}" if hierarchical else f"{depth}"
    return Row(
        key=f"depth-{name.replace(',', '-')}",
        label=f"depth {name}",
        options=options,
        small=SMALL,
        costs=costs_and_scores[:2],
        scores={"moving_mnist": costs_and_scores[2:]},
    )


ROWS = by_key(*(_row(depth, kind) for kind in (False, True) for depth in FLAT))
CLAIMS = (
    *(
        Claim(
            f"hierarchy helps at depth {depth}",
            f"depth-{depth // 2}-{depth // 2}",
            f"depth-{depth}",
        )
        for depth in FLAT
    ),
    *(
        Claim(f"depth {d + 2} beats {d}", f"depth-{d + 2}", f"depth-{d}")
        for d in (2, 4, 6)
    ),
    *(
        Claim(
            f"depth {d + 1},{d + 1} beats {d},{d}",
            f"depth-{d + 1}-{d + 1}",
            f"depth-{d}-{d}",
        )
        for d in (1, 2, 3)
    ),
)
TABLE = Table(
    name="table3",
    title="Table 3: depth and hierarchy, axial attention without global vectors",
    data=DATA,
    columns=COLUMNS,
    rows=ROWS,
    claims=CLAIMS,
    notes=(
        "GFLOPs: convolutions after up-sampling are folded with it, which saves 0.8 "
        "without hierarchy and 1.3 with it; the rest of the difference grows with "
        "depth (0.08 for each further block of a level).",
        "The scales test and quick have a quarter of the channels and the same depths "
        "(test: one block on each level).",
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(TABLE, __doc__))
