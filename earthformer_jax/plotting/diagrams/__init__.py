"""Diagrams of verification: performance, power spectra, and forecasts compared."""

from earthformer_jax.plotting.diagrams.comparison import comparison
from earthformer_jax.plotting.diagrams.performance import performance
from earthformer_jax.plotting.diagrams.spectra import spectra

__all__ = ["comparison", "performance", "spectra"]
