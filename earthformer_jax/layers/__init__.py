"""Flax modules: parameters around the pure functions of `earthformer_jax.ops`."""

from earthformer_jax.layers.conv_lstm import ConvLSTM
from earthformer_jax.layers.fa_conv_lstm import FAConvLSTM
from earthformer_jax.layers.subspace_head import SubspaceHead

__all__ = ["ConvLSTM", "FAConvLSTM", "SubspaceHead"]
