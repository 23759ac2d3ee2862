"""Fitted forecasts as arrays, for models that correct them (`models.bases`).

All are in a common form: the mean of s linear systems with n state variables,

    state = sum(field * projection) + sum(memory * memory_projection) + start
    state <- transition[month] state, once for each month ahead
    field = sum(state * patterns)

in K and K months; with hidden states, the first one is

    state = sum over t of gains[month, t] amplitudes[t]

where the amplitudes, sum(field * projection), are those of all t input months and of
the memory of the last one. Arrays are filled up with zeros to fixed numbers s and n, so
that they have the same shapes whatever was chosen.
"""

from collections.abc import Callable, Mapping

import numpy as np

from earthformer_jax.data.enso.systems.fitting import Fitted
from earthformer_jax.data.normalization import Affine
from earthformer_jax.statistics import field_memory
from earthformer_jax.statistics.hidden import model as hidden
from earthformer_jax.statistics.linear_system import MONTHS

STATES = 32

Arrays = Mapping[str, np.ndarray]


def bases(
    fitted: Callable[[], Fitted],
    normalization: Affine,
    memory_scale: float,
    *,
    in_len: int,
    calendar: bool,
    memory: bool,
) -> dict[str, Callable[[], Arrays]]:
    """What models can correct, by name; each is called when it is needed.

    Args:
        fitted: returns what the reference forecasts have learned.
        normalization: from K to what the model sees.
        memory_scale: K months per unit of the memory that the model sees.
        in_len: input months.
        calendar: whether the model sees the calendar month.
        memory: whether it sees the memory.
    """
    found: dict[str, Callable[[], Arrays]] = {
        "damped_persistence": lambda: damped(fitted(), normalization)
    }
    units = {
        "scale": np.array(normalization.scale, np.float32),
        "offset": np.array(normalization.offset, np.float32),
        "memory_scale": np.array(memory_scale, np.float32),
    }
    if calendar:
        found["lim"] = lambda: _lim(fitted()) | units
    if calendar and memory:
        found["lim_field_memory"] = lambda: _lim_field_memory(fitted()) | units
        found["lim_hidden"] = lambda: _lim_hidden(fitted(), in_len) | units
    return found


def damped(fitted: Fitted, normalization: Affine) -> Arrays:
    """Factors `[k, h, w, 1]`, and the value that the forecast fades to."""
    return {
        "factors": fitted.damping[..., None].astype(np.float32),
        "center": np.array([normalization.encode(0.0)], np.float32),
    }


def _lim(fitted: Fitted) -> dict[str, np.ndarray]:
    if fitted.lim is None:
        raise _unfitted(fitted, "lim")
    basis, system = fitted.lim.basis, fitted.lim.system
    ocean, modes = basis.ocean_mask, len(basis.variance)
    projection = np.zeros((*ocean.shape, modes))
    projection[ocean] = basis.projection
    patterns = np.zeros((modes, *ocean.shape))
    patterns[:, ocean] = basis.patterns
    none = np.zeros_like(projection)
    start = np.zeros(modes)
    return _filled([(projection, none, start, patterns, system.transition)], 1)


def _lim_field_memory(fitted: Fitted) -> dict[str, np.ndarray]:
    model = fitted.lim_field_memory
    if model is None:
        raise _unfitted(fitted, "lim_field_memory")
    systems = [
        (x.projection, x.memory_projection, x.offset, x.patterns, x.system.transition)
        for x in model.parts
    ]
    return _filled(systems, len(field_memory.PARTS))


def _lim_hidden(fitted: Fitted, in_len: int) -> dict[str, np.ndarray]:
    model = fitted.lim_hidden
    if model is None:
        raise _unfitted(fitted, "lim_hidden")
    systems, gains = [], []
    for part in model.parts:
        seen, (n, _) = part.projection.shape[-1], part.system.transition.shape[1:]
        hidden_ones = (0, n - seen)
        projection = np.pad(part.projection, ((0, 0), (0, 0), hidden_ones))
        patterns = np.pad(part.patterns, (hidden_ones, (0, 0), (0, 0)))
        none = np.zeros_like(projection)
        transition = part.system.transition
        systems.append((projection, none, np.zeros(n), patterns, transition))
        gains.append(part.gains(in_len, model.reach))
    most = len(hidden.PARTS)
    arrays = _filled(systems, most)
    for name in ("memory_projection", "start"):
        del arrays[name]
    filled = np.zeros((most, MONTHS, STATES, in_len + 1, STATES), np.float32)
    for into, values in zip(filled, gains, strict=False):
        _, n, _, seen = values.shape
        into[:, :n, :, :seen] = values
    return arrays | {"gains": filled}


def _unfitted(fitted: Fitted, name: str) -> ValueError:
    """Why a system could not be fitted, and which other bases there are."""
    why = fitted.problems.get(name, "the training months are too few")
    there = [x for x in ("lim_field_memory", "lim") if getattr(fitted, x) is not None]
    others = ", ".join([*there, "damped_persistence"])
    return ValueError(f"{why}; use more training months, or another base: {others}")


def _filled(systems: list[tuple[np.ndarray, ...]], most: int) -> dict[str, np.ndarray]:
    """Float32 arrays of `most` systems of `STATES` variables; absent ones are 0."""
    height, width, n = systems[0][0].shape
    if n > STATES:
        raise ValueError(f"{n} state variables are more than {STATES}")
    arrays = {
        "projection": np.zeros((most, height, width, STATES), np.float32),
        "memory_projection": np.zeros((most, height, width, STATES), np.float32),
        "start": np.zeros((most, STATES), np.float32),
        "patterns": np.zeros((most, STATES, height, width), np.float32),
        "transition": np.zeros((most, MONTHS, STATES, STATES), np.float32),
    }
    for i, (projection, memory, start, patterns, transition) in enumerate(systems):
        n = len(start)
        arrays["projection"][i, ..., :n] = projection
        arrays["memory_projection"][i, ..., :n] = memory
        arrays["start"][i, :n] = start
        arrays["patterns"][i, :n] = patterns / len(systems)  # the sum is the mean
        arrays["transition"][i, :, :n, :n] = transition
    return arrays
