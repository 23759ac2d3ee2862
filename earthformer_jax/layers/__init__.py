"""Flax modules: parameters around the pure functions of `earthformer_jax.ops`."""
