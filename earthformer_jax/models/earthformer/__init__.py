"""Earthformer (Gao et al. 2022), from its attention layers to the whole model."""

from earthformer_jax.models.earthformer.model import Earthformer

__all__ = ["Earthformer"]
