"""What counts in a batch: the observed values of examples that are not padding."""

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.checks import check_array


def as_pair(forecast, targets) -> tuple[jax.Array, jax.Array]:
    """Forecast and targets in float32.

    Raises:
        ValueError: unless both are `[b, k, h, w, c]`; one that is shorter would be
            compared many times.
    """
    sizes = check_array("targets", targets, "b k h w c")
    check_array("forecast", forecast, "b k h w c", sizes)
    return jnp.asarray(forecast, jnp.float32), jnp.asarray(targets, jnp.float32)


def broadcast_weights(weights, shape: tuple[int, ...]) -> np.ndarray:
    """float64 `[k, h, w, c]` of weights that are broadcastable to it.

    Raises:
        ValueError: if they are not.
    """
    weights = np.asarray(weights, np.float64)
    try:
        return np.broadcast_to(weights, shape)
    except ValueError:
        raise ValueError(
            f"weights has shape {weights.shape}: expected one that can be broadcast to "
            f"[k, h, w, c] = {list(shape)}"
        ) from None


def check_weights(weights) -> None:
    """Refuses weights of cells that are all zero; None: equal.

    Raises:
        ValueError: if they are.
    """
    if weights is not None and not np.sum(weights) > 0:
        raise ValueError("the weights of all cells are zero")


def check_names(targets, variables: tuple[str, ...]) -> None:
    """Refuses targets whose channels are not those that scores name; (): none named.

    Raises:
        ValueError: with both numbers.
    """
    channels = targets.shape[-1]
    if variables and channels != len(variables):
        raise ValueError(
            f"the targets have {channels} channels; the scores name "
            f"{len(variables)}: {', '.join(variables)}"
        )


def weighed(batch, weights) -> tuple[jax.Array, jax.Array]:
    """Which values count, and the weight of each.

    Args:
        batch: as for `counted`.
        weights: as for `broadcast_weights`; None: equal.

    Returns:
        bool `[b, k, h, w, c]`, True where a value counts and its weight is not 0; and
        float32 weights, `[]` or `[k, h, w, c]`, divided by the mean of all.
    """
    keep = counted(batch)
    if weights is None:
        return keep, jnp.ones((), jnp.float32)
    weights = broadcast_weights(weights, jnp.shape(batch["targets"])[1:])
    share = jnp.asarray(weights / weights.mean(), jnp.float32)
    return keep & (share > 0), share


def valid_of(batch) -> jax.Array:
    """`[b]` bool: which examples of a batch are real, not padding."""
    examples = jnp.shape(batch["targets"])[0]
    return jnp.asarray(batch.get("valid", jnp.ones(examples, bool)), bool)


def counted(batch) -> jax.Array:
    """Bool, like the targets: the values of real examples that are observed."""
    targets, valid, observed = batch["targets"], valid_of(batch), batch.get("observed")
    sizes = check_array("targets", jnp.asarray(targets), "b k h w c")
    check_array("valid", valid, "b", sizes)
    if observed is not None:
        check_array("observed", observed, "b k h w c", sizes, kind=bool)
    valid = valid[:, None, None, None, None]
    return jnp.broadcast_to(valid & batch.get("observed", True), jnp.shape(targets))
