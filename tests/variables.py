"""Random variables of a module, without compiling what makes the usual ones."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def drawn(init: Callable, *inputs: Any, scale: float = 0.2, **options: Any) -> Any:
    """Normal numbers, of which none is zero, in the place of `init(key, *inputs)`."""
    like = jax.eval_shape(lambda key: init(key, *inputs, **options), jax.random.key(0))
    random = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: random.normal(0, scale, x.shape).astype(x.dtype), like
    )
