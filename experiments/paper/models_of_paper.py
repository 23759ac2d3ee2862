"""The models of tables 5, 6, 7 and 13 as rows, with the costs of `models.paper`."""

from collections.abc import Mapping, Sequence

from earthformer_jax.models import paper
from paper.mnist import NO_GLOBAL
from paper.table import SIZES, Claim, Row, by_key

# Key: the label of `models.paper`, and that of the table.
LABELS = {
    "unet": ("unet", "UNet"),
    "conv_lstm": ("conv_lstm", "ConvLSTM"),
    "predrnn": ("predrnn", "PredRNN"),
    "phydnet": ("phydnet", "PhyDNet"),
    "e3d_lstm": ("e3d_lstm", "E3D-LSTM"),
    "rainformer": ("rainformer", "Rainformer"),
    "earthformer-no-global": (
        "earthformer, no global vectors",
        "Earthformer, no global vectors",
    ),
    "earthformer": ("earthformer", "Earthformer"),
}
# A model of the same family that the paper does not have.
OURS = {"fa_conv_lstm": "FAConvLSTM"}
CLAIMS = (
    Claim("global vectors help", "earthformer", "earthformer-no-global"),
    *(
        Claim(f"Earthformer beats {LABELS[key][1]}", "earthformer", key)
        for key in LABELS
        if not key.startswith("earthformer")
    ),
)


def rows_of(
    data: str, scores: Mapping[str, Mapping[str, Sequence[float]]]
) -> dict[str, Row]:
    """The rows of a table of models.

    Args:
        data: a config file, for the costs.
        scores: the paper's, by key and data.
    """
    rows = [
        Row(
            key=key,
            label=label,
            model="earthformer" if key.startswith("earthformer") else key,
            options=NO_GLOBAL if key == "earthformer-no-global" else {},
            costs=paper.PAPER_COSTS[name][SIZES[data]],
            flops=paper.FLOPS_PER_MULTIPLY_ADD.get(name, 1),
            scores=scores.get(key, {}),
        )
        for key, (name, label) in LABELS.items()
    ]
    more = [Row(key=key, label=label, model=key) for key, label in OURS.items()]
    return by_key(*rows, *more)


def notes() -> tuple[str, ...]:
    """Why costs differ from the paper's, model by model."""
    twice = " and ".join(
        LABELS[key][1]
        for key, flops in paper.FLOPS_PER_MULTIPLY_ADD.items()
        if flops > 1
    )
    remarks = [f"{LABELS[key][1]}: {text}." for key, text in paper.REMARKS.items()]
    return (
        f"GFLOPs are multiply-adds, as in the paper; of {twice} twice as many, as the "
        "paper counts them.",
        *remarks,
        "At the scales test and quick the models have sizes that train in seconds or "
        "minutes; they are not equal in size or time.",
    )
