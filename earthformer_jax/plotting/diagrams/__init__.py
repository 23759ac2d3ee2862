"""Diagrams of verification: performance at thresholds, and power spectra."""

from earthformer_jax.plotting.diagrams.performance import performance
from earthformer_jax.plotting.diagrams.spectra import spectra

__all__ = ["performance", "spectra"]
