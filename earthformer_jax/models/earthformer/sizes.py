"""How many positions attend to each other in an Earthformer, before it is traced."""

import dataclasses
import math

from earthformer_jax.models.earthformer.hierarchy import (
    cross_specs,
    per_level,
    self_specs,
)
from earthformer_jax.models.earthformer.model import Earthformer
from earthformer_jax.ops.cuboid import CuboidSpec
from earthformer_jax.ops.resample import Grid

SCORE_BYTES = 4  # they are float32
INDEX_BYTES = 4  # of the index into the bias table
INDEX_COPIES = 3  # while it is made


@dataclasses.dataclass(frozen=True)
class AttentionSize:
    """An attention layer.

    Attributes:
        option: of the model, which decides its size: "enc_pattern".
        queries: positions of a cuboid that attend.
        keys: positions of a cuboid that are attended to.
        cuboids: number of cuboids in one example.
        heads: attention heads.
        index: whether there is an index of all pairs of positions.
        scores: whether the scores of all pairs are kept, which one implementation of
            attention does without.
    """

    option: str
    queries: int
    keys: int
    cuboids: int
    heads: int
    index: bool
    scores: bool

    @property
    def index_bytes(self) -> int:
        """Memory of the host that making the index takes."""
        pairs = self.queries * self.keys
        return INDEX_COPIES * INDEX_BYTES * pairs if self.index else 0

    def score_bytes(self, examples: int) -> int:
        """Memory of the device that the scores of a batch take at least."""
        pairs = self.queries * self.keys * self.cuboids * self.heads
        return SCORE_BYTES * examples * pairs if self.scores else 0


def attention_sizes(model: Earthformer) -> list[AttentionSize]:
    """The attention layers of a checked model, each kind of block once."""
    sizes = []

    def add(option: str, queries: CuboidSpec, keys: CuboidSpec, grid: Grid) -> None:
        cuboids = math.prod(queries.padded(grid)) // queries.volume
        sizes.append(
            AttentionSize(
                option,
                queries.volume,
                keys.volume,
                cuboids,
                model.num_heads,
                model.use_relative_pos,
                model.attn_implementation != "cudnn",
            )
        )

    levels, frames = model.levels, model.target_shape[0]
    chosen = {
        name: per_level(getattr(model, name), levels, name)
        for name in ("enc_pattern", "dec_self_pattern", "dec_cross_pattern")
    }
    for level, memory in enumerate(model.memory_grids):
        field = (frames, *memory[1:])
        for option, grid in (("enc_pattern", memory), ("dec_self_pattern", field)):
            for spec in self_specs(chosen[option][level], memory):
                fitted = spec.fit(grid)
                add(option, fitted, fitted, grid)
        for spec in cross_specs(chosen["dec_cross_pattern"][level], memory):
            if level >= model.dec_cross_start:
                queries, keys = spec.cuboid(field), spec.cuboid(memory)
                add("dec_cross_pattern", queries, keys, field)
    return sizes
