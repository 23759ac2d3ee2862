"""Table 12: the patterns of table 4 at depth 2,2.

    python experiments/table12.py --scale=quick --data=nbody_mnist
    python experiments/table12.py --costs

Of the paper's table only the row of the axial pattern with global vectors is given
here; costs and scores of the others are ours alone.
"""

from paper.mnist import PATTERNS, Numbers, pattern_rows, pattern_table
from paper.program import main

PAPER: Numbers = {
    (pattern, with_global): ((None, None), {})
    for pattern in PATTERNS
    for with_global in (False, True)
} | {
    ("axial", True): (
        (None, None),
        {
            "moving_mnist": (49.74, 105.2, 0.8838),
            "nbody_mnist": (18.49, 47.31, 0.9416),
        },
    )
}
ROWS = pattern_rows(depth=2, small_depth=1, numbers=PAPER)
TABLE = pattern_table(
    "table12",
    "Table 12: patterns of cuboid attention, depth 2,2",
    ROWS,
    "The scale quick has depth 1,1 and a quarter of the channels.",
)

if __name__ == "__main__":
    raise SystemExit(main(TABLE, __doc__))
