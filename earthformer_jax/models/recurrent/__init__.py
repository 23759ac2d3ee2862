"""Recurrent forecasters and the cells that they are made of."""

from earthformer_jax.models.recurrent.conv_lstm import ConvLSTM
from earthformer_jax.models.recurrent.fa_conv_lstm import FAConvLSTM
from earthformer_jax.models.recurrent.subspace_head import SubspaceHead

__all__ = ["ConvLSTM", "FAConvLSTM", "SubspaceHead"]
