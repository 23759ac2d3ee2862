"""Pure functions of arrays, in plain JAX: cuboids, attention, patterns, resampling.

Every function here can be differentiated in any mode. `ops.tuned` holds functions of
the same signatures that are faster on some machines, of which a few have gradients of
their own; `forward_mode` switches those off.
"""

from earthformer_jax.ops.derivatives import forward_mode

__all__ = ["forward_mode"]
