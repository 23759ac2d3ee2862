r"""Where a trained Earthformer's attention looks, for one position of its forecast.

    python experiments/attention_maps.py --workdir=runs/enso --query=3,12,30

Draws figures/attention_maps.png in the workdir: one row per block, one map per frame.
The query is a lead time (counted from 1) and a row and column of the frame. Rows of the
encoder show what the same position attends to in the last input frame; those of
cross-attention show what the decoder reads from the encoder's memory for that lead
time. Weights are averaged over the heads; the layers of a block, such as attention
along time and then in the plane, are multiplied. The rest, up to 100 %, goes to global
vectors and padding.
"""

import argparse
import pathlib

import numpy as np

import earthformer_jax
from earthformer_jax import plotting
from earthformer_jax.models import earthformer
from earthformer_jax.plotting.style import lead_label

KINDS = {"block": "encoder", "self": "decoder", "cross": "cross-attention"}


def blocks(captured: earthformer.Captured) -> dict[str, list[str]]:
    """Names of the attention layers of each block, in the order of computation."""
    found = {}
    for layer in captured.attention:
        found.setdefault(layer.rpartition("/")[0], []).append(layer)
    return found


def rows(
    captured: earthformer.Captured,
    model: earthformer.Earthformer,
    query: tuple[int, int, int],
    frame: str,
) -> list[plotting.AttentionRow]:
    """One row of the figure for each block.

    Args:
        captured: what was captured for one example.
        model: the model.
        query: lead time from 1, row and column of the frame.
        frame: time from one frame to the next, "month".
    """
    lead, *place = query
    stem = np.prod([stage.factor for stage in model.stages], axis=0)
    inputs, targets = (
        [lead_label(frame, k, short=True) for k in range(*span)]
        for span in ((1 - model.input_shape[0], 1), (1, model.target_shape[0] + 1))
    )
    found = []
    for block, layers in blocks(captured).items():
        part, _, name = block.partition("/")
        kind, level, number = name.split("_")
        factor = stem * np.array(model.downsample) ** int(level)
        cell = tuple(int(n) for n in factor[1:])
        queries = captured.attention[layers[-1]].queries
        time = queries.grid[0] - 1 if part == "encoder" else lead - 1
        at = (time, *(p // n for p, n in zip(place, cell, strict=True)))
        weights = earthformer.attention_map(captured, layers, at)
        frames = (targets if kind == "self" else inputs)[-len(weights) :]
        own = None if kind == "cross" else time
        label = f"{KINDS[kind]}, level {level}, block {number}"
        found.append(
            plotting.AttentionRow(label, weights, frames, cell, (own, *at[1:]))
        )
    return found


def place(text: str) -> tuple[int, int, int]:
    """The query, "LEAD,ROW,COLUMN"."""
    lead, row, column = map(int, text.split(","))
    return lead, row, column


def main():
    """Reads the options and draws the figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--workdir", required=True, help="workdir of a trained Earthformer"
    )
    parser.add_argument(
        "--query",
        required=True,
        type=place,
        help="LEAD,ROW,COLUMN: lead time from 1, position in the frame from 0",
    )
    parser.add_argument(
        "--example", type=int, default=0, help="index in the test split"
    )
    parser.add_argument("--out", type=pathlib.Path, help="the file to write")
    a = parser.parse_args()
    trained = earthformer_jax.load(a.workdir)
    model, data = trained.model, trained.data
    if not isinstance(model, earthformer.Earthformer):
        parser.error(f"{a.workdir} holds no Earthformer: {type(model).__name__}")
    limits = model.target_shape[:3]
    steps, height, width = limits
    lead, row, column = a.query
    if any(
        not 0 <= i < n for i, n in zip((lead - 1, row, column), limits, strict=True)
    ):
        parser.error(
            f"--query takes a lead time of 1 to {steps}, a row of 0 to {height - 1} "
            f"and a column of 0 to {width - 1}; got {lead},{row},{column}"
        )
    inputs = data.test[a.example]["inputs"][None]
    captured = earthformer.inspect(model, trained.variables, inputs)
    weights = np.broadcast_to(data.loss_weights, model.target_shape)
    unknown = (weights == 0).all(axis=(0, 3))
    figure = plotting.attention_maps(
        rows(captured, model, a.query, data.display.frame),
        plane=(height, width),
        unknown=unknown if unknown.any() else None,
        south_first=data.display.south_first,
        title=(
            f"Attention of row {row}, column {column}, for the forecast of "
            f"{lead_label(data.display.frame, lead)}"
        ),
    )
    out = a.out or pathlib.Path(a.workdir, "figures", "attention_maps.png")
    plotting.save(figure, out)
    print(out)


if __name__ == "__main__":
    main()
