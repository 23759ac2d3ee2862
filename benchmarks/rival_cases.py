"""The recurrent models that `rivals.py` compares, and the arrays they are given.

Frames are `[b, t, h, w, c]`, ten in and ten out. Sizes are those of the configs of
OpenSTL for moving digits, which are the published ones.
"""

import dataclasses

import numpy as np

FRAMES = 10
FILTERS, KERNEL = 32, 3  # of the single layer


@dataclasses.dataclass(frozen=True)
class Case:
    """What is compared.

    Attributes:
        sides: who takes part, ours first.
        size: height and width of the frames.
        channels: of the frames.
        same: whether all sides are one model, whose forecasts have to agree.
        options: of our model.
    """

    sides: tuple[str, ...]
    size: int = 64
    channels: int = 1
    same: bool = True
    options: dict = dataclasses.field(default_factory=dict)


CASES = {
    # one layer, all of whose hidden states are the result
    "conv_lstm": Case(
        ("ours", "keras on jax", "keras on torch", "openstl"), 32, FILTERS
    ),
    "predrnn": Case(("ours", "openstl")),
    "phydnet": Case(("ours", "openstl")),
    # a forecast of the same frames by another network: our Earthformer's
    "simvp": Case(("ours", "openstl"), same=False),
    # small ones, to check that everything runs
    "tiny_conv_lstm": Case(("ours", "keras on jax"), 8, FILTERS),
    "tiny_predrnn": Case(
        ("ours", "openstl"), 16, options=dict(num_layers=1, features=8)
    ),
}


def kind(case: str) -> str:
    """The model of a case: "conv_lstm", "predrnn", "phydnet" or "simvp"."""
    return case.removeprefix("tiny_")


def example(case: str, batch: int) -> dict[str, np.ndarray]:
    """Inputs and targets between 0 and 1, the same numbers in every process."""
    random, chosen = np.random.default_rng(0), CASES[case]
    shape = (batch, FRAMES, chosen.size, chosen.size, chosen.channels)
    return {
        name: random.uniform(size=shape).astype(np.float32)
        for name in ("inputs", "targets")
    }


def layer_weights() -> list[np.ndarray]:
    """Kernel and recurrent kernel `[h, w, c, 4 filters]`, gates i, f, c, o; bias 0."""
    random = np.random.default_rng(1)
    shape = (KERNEL, KERNEL, FILTERS, 4 * FILTERS)
    kernels = [random.normal(0, 0.05, shape).astype(np.float32) for _ in range(2)]
    return [*kernels, np.zeros(4 * FILTERS, np.float32)]
