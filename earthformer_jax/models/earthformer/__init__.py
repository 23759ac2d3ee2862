"""Earthformer (Gao et al. 2022), from its attention layers to the whole model."""

from earthformer_jax.models.earthformer.captured import (
    AttentionWeights,
    Captured,
    attention_map,
    global_map,
    inspect,
)
from earthformer_jax.models.earthformer.model import Earthformer
from earthformer_jax.models.earthformer.variants import VARIANTS

__all__ = [
    "VARIANTS",
    "AttentionWeights",
    "Captured",
    "Earthformer",
    "attention_map",
    "global_map",
    "inspect",
]
