"""What the values of a data set say about how much it rains."""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp

from earthformer_jax.data.readers.values.units import conversion

LEAST_RATE = 0.1  # mm/h, below which it does not rain
# dBZ = 10 log10(200 R^1.6) with R in mm/h, after Marshall and Palmer.
MARSHALL_PALMER = 200.0, 1.6
RAIN_NAMES = r"rain|precip|^(pr|tp|rr)$"
# In units of water rather than of wind, or of currents, which are in cm s-1.
DEPTHS = r"mm|kg|inch"


@dataclasses.dataclass(frozen=True)
class Rain:
    """How physical values become decibels of rain, 10 log10 of its rate.

    Attributes:
        least: value from which on it rains.
        decibels: in one unit of values that are logarithmic, such as dBZ; None: the
            values are proportional to the rate.
    """

    least: float
    decibels: float | None = None

    def above(self, values: jax.Array) -> jax.Array:
        """Decibels above the least rain, float32; 0 where it does not rain."""
        values = values.astype(jnp.float32)
        if self.decibels is not None:
            return self.decibels * jnp.maximum(values - self.least, 0)
        return 10 * jnp.log10(jnp.maximum(values / self.least, 1))


def of_units(units: str, name: str = "", standard_name: str = "") -> Rain | None:
    """How values are rain, if their units say that they are.

    Args:
        units: "mm/h", "kg m-2 s-1", "dBZ". Velocities, "m s-1" or "cm s-1", are also
            those of winds and currents and are rain only if a name says so.
        name: of the variable in its file.
        standard_name: in the CF conventions; "" if unknown.

    Returns:
        None if they are neither a rate nor a reflectivity.
    """
    if units.strip().lower() == "dbz":
        factor, power = MARSHALL_PALMER
        least = 10 * math.log10(factor) + 10 * power * math.log10(LEAST_RATE)
        return Rain(least, 1 / power)
    is_named = any(re.search(RAIN_NAMES, x.lower()) for x in (name, standard_name))
    if not is_named and not re.search(DEPTHS, units.lower()):
        return None
    found = conversion("mm/h", units)
    if found is None or found[1] != 0:
        return None
    return Rain(LEAST_RATE * found[0])
