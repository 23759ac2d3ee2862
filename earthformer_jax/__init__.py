"""Functional JAX/Flax models for Earth-system forecasting."""

__version__ = "0.1.0"
