"""Pure functions of arrays, in plain JAX: cuboids, attention, patterns, resampling.

Every function here can be differentiated in any mode. `ops.tuned` holds functions with
the same signatures that are faster on some machines. Some of them define their own
gradients; `forward_mode` switches those off.
"""

from earthformer_jax.ops.derivatives import forward_mode

__all__ = ["forward_mode"]
