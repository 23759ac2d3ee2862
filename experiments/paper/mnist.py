"""MovingMNIST and N-body MNIST: columns, and Earthformers of tables 3, 4, 5 and 12."""

from collections.abc import Mapping, Sequence
from typing import Any

from paper.table import Claim, Column, Row, Table, by_key

DATA = ("moving_mnist", "nbody_mnist")
SCORES = (
    Column("mse", "MSE", 2, lower_is_better=True),
    Column("mae", "MAE", 2, lower_is_better=True),
    Column("ssim", "SSIM", 4),
)
COLUMNS: Mapping[str, Sequence[Column]] = {data: SCORES for data in DATA}
NO_GLOBAL = dict(num_global_vectors=0, use_global_self_attn=False)
# Positions are never merged; channels are those of the two levels all the same.
NO_HIERARCHY = dict(downsample=(1, 1, 1), block_units=(64, 128))
# A quarter of the paper's channels; patterns, depths and global vectors are its own.
SMALL = dict(
    base_units=16,
    block_units=(16, 32),
    num_heads=2,
    stem="stack_conv",
    stem_stages=((16, (1, 2, 2), 1),),
)
# Names of `ops.patterns` by the paper's.
PATTERNS = {
    "axial": "Axial",
    "divided_st": "Divided Space-Time",
    "video_swin_2x8": "Video Swin 2x8",
    "video_swin_10x8": "Video Swin 10x8",
    "spatial_lg_2": "Spatial Local-Global 2",
    "spatial_lg_4": "Spatial Local-Global 4",
    "axial_space_dilate_2": "Axial Space Dilate 2",
    "axial_space_dilate_4": "Axial Space Dilate 4",
}
# (pattern, global vectors): the paper's costs and scores, in the order of the columns.
Numbers = Mapping[
    tuple[str, bool],
    tuple[tuple[float | None, float | None], Mapping[str, Sequence[float]]],
]
PATTERN_NOTES = (
    "The pattern is that of the encoder; the decoder is axial, with which the "
    "parameters agree with the paper's.",
    "GFLOPs: convolutions after up-sampling are folded with it, which saves 1.3; the "
    "rest of the difference grows with depth. Global vectors add 0.6 to 1.6 here, and "
    "0.2 to 0.6 in the paper.",
    "Axial Space Dilate with global vectors has 10.25 million parameters here, 10.30 "
    "in the paper; without them the counts agree.",
)


def pattern_rows(depth: int, small_depth: int, numbers: Numbers) -> dict[str, Row]:
    """A row for each pattern, without and with 8 global vectors.

    Args:
        depth: blocks on each of the two levels.
        small_depth: the same for the scale quick.
        numbers: the paper's; patterns that it does not have are left out.
    """
    rows = []
    for (pattern, with_global), (costs, scores) in numbers.items():
        options: dict[str, Any] = dict(enc_pattern=pattern, **depths(depth))
        options |= dict(num_global_vectors=8) if with_global else NO_GLOBAL
        rows.append(
            Row(
                key=f"{pattern}-{depth}" + "-global" * with_global,
                label=PATTERNS[pattern] + ", global vectors" * with_global,
                options=options,
                small=SMALL | depths(small_depth),
                costs=costs,
                scores=scores,
            )
        )
    return by_key(*rows)


def depths(number: int) -> dict[str, Any]:
    """Options of `number` blocks on each of two levels."""
    return dict(enc_depth=(number, number), dec_depth=(number, number))


def pattern_claims(rows: Mapping[str, Row]) -> tuple[Claim, ...]:
    """Global vectors help every pattern, and the axial one is the best."""
    plain = [key for key in rows if not key.endswith("-global")]
    helps = [
        Claim(f"{rows[key].label}: global vectors help", f"{key}-global", key)
        for key in plain
        if f"{key}-global" in rows
    ]
    best = next(key for key in rows if key.startswith("axial-"))
    axial = [best, f"{best}-global"] if f"{best}-global" in rows else [best]
    beats = [
        Claim(f"{rows[a].label} beats {rows[key].label}", a, key)
        for a in axial
        for key in rows
        if key not in axial and key.endswith("-global") == a.endswith("-global")
    ]
    return (*helps, *beats)


def pattern_table(name: str, title: str, rows: Mapping[str, Row], *notes) -> Table:
    """A table of patterns on both data sets."""
    return Table(
        name=name,
        title=title,
        data=DATA,
        columns=COLUMNS,
        rows=rows,
        claims=pattern_claims(rows),
        notes=(*PATTERN_NOTES, *notes),
    )
