"""Members of the forecasts of a model: who has them, and functions that make them."""

import functools
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import jax.typing
import numpy as np

from earthformer_jax.forecast.chunks import Members
from earthformer_jax.models.contract import Forecaster, Variables, draws
from earthformer_jax.models.ensemble import MEMBER, Ensemble
from earthformer_jax.models.probabilistic import Probabilistic
from earthformer_jax.settings import ConfigError, at_least

# Members are counted on from here when they forecast again, so that each draws anew.
MOST = 2**20
MOST_VALUES = 2**26  # numbers in the forecasts of a part, 256 MiB
SIDE_BY_SIDE = 8  # members that a model forecasts at the same time
NUMBER = at_least(1, MOST)
SAMPLING = ("temperature", "top_k", "seed")  # options of models that sample


def draws_any(model: Forecaster) -> bool:
    """Whether a model, or every trained member of an ensemble, draws any number."""
    return draws(model.member if isinstance(model, Ensemble) else model)


def has_members(model: Forecaster) -> bool:
    """Whether there can be several forecasts for one input."""
    return isinstance(model, Ensemble) or draws(model)


def check(model: Forecaster, count: int) -> None:
    """Refuses more members than a model has.

    Raises:
        ConfigError: with the number there is, and which models have more.
    """
    if count == 1 or draws_any(model):
        return
    if isinstance(model, Ensemble):
        if count > model.size:
            raise ConfigError(
                f"members={count}: the model is an ensemble of {model.size} trained "
                f"members; use at most {model.size}, or train more of them with "
                f"config.model.ensemble={count}"
            )
        return
    raise ConfigError(
        f"members={count}: the model gives one forecast for one input, so that all "
        "members would be equal; leave `members` out, or train a model that draws: "
        "config.model.noise=32 (which can begin with the weights of this one, by "
        f"--init_from), several members (config.model.ensemble={count}), or "
        "config.model.name=earthformer_ar"
    )


def of_ensemble(variables: Variables, number: jax.typing.ArrayLike) -> Variables:
    """The variables of one trained member of an ensemble."""
    groups = {name: group[MEMBER] for name, group in variables.items() if group}
    return {"params": {}} | jax.tree.map(lambda x: x[number], groups)


def member(
    model: Forecaster,
    variables: Variables,
    inputs: jax.Array,
    number: jax.Array,
    *,
    beginning: jax.Array | None = None,
    stretch: jax.typing.ArrayLike = 0,
) -> jax.Array:
    """The forecast `[b, k, h, w, c]` of one member.

    Args:
        model: the forecaster. Member i of an ensemble of n trained members is draw
            i // n of the trained member i % n.
        variables: of the model.
        inputs: `[b, t, h, w, c]`.
        number: int32, of the member, from 0.
        beginning: `[b, t, h, w, c]`, the inputs of its first forecast, from which
            follows what is drawn; None: this is the first.
        stretch: how many times it has forecast before.
    """
    if isinstance(model, Ensemble):
        return member(
            model.member,
            of_ensemble(variables, number % model.size),
            inputs,
            number // model.size,
            beginning=beginning,
            stretch=stretch,
        )
    if not draws(model):
        return model.apply(variables, inputs, train=False)
    # The spread was fitted to forecasts that begin from observed frames.
    is_scaled = beginning is None or not isinstance(model, Probabilistic)
    made = model.apply(
        variables,
        inputs,
        1,
        first=number + MOST * stretch,
        seen=beginning,
        method="members" if is_scaled else "as_trained",
    )
    return made[0]


def best(
    model: Forecaster,
    variables: Variables,
    inputs: jax.Array,
    seen: jax.Array | None = None,
) -> jax.Array:
    """The one best forecast `[b, k, h, w, c]`; what is drawn follows from `seen`."""
    if isinstance(model, Ensemble) and draws_any(model):
        of_each = jax.lax.map(
            lambda i: best(model.member, of_ensemble(variables, i), inputs, seen),
            jnp.arange(model.size),
        )
        return of_each.mean(axis=0)
    if isinstance(model, Probabilistic):
        made = model.apply(variables, inputs, seen=seen)
    else:
        made = model.apply(variables, inputs, train=False)
    return cast(jax.Array, made)


def number_in_program(model: Forecaster) -> int:
    """How many members an exported program gives at once; 0: the model has none."""
    if isinstance(model, Ensemble):
        return model.size
    if isinstance(model, Probabilistic):
        return model.options.members
    return SIDE_BY_SIDE if draws(model) else 0


def begin(
    model: Forecaster,
    variables: Variables,
    inputs: jax.Array,
    count: int,
    first: jax.typing.ArrayLike = 0,
    seen: jax.Array | None = None,
) -> jax.Array:
    """The forecasts `[m, b, k, h, w, c]` of `count` members, from number `first` on."""
    if draws(model):  # it shares what is equal
        return model.apply(
            variables, inputs, count, first=first, seen=seen, method="members"
        )
    return jax.lax.map(
        lambda i: member(model, variables, inputs, i),
        jnp.asarray(first, jnp.int32) + jnp.arange(count, dtype=jnp.int32),
    )


def in_parts(
    model: Forecaster,
    variables: Variables,
    inputs: jax.Array,
    count: int,
    values: int,
    seen: jax.Array | None = None,
) -> jax.Array:
    """As `begin`, in parts that hold few values besides the forecasts themselves.

    Args:
        model: the forecaster.
        variables: of the model.
        inputs: `[b, t, h, w, c]`.
        count: number of members.
        values: numbers in one forecast.
        seen: `[b, ...]`, from whose values follows what is drawn; None: the inputs.
    """
    part = part_of(count, MOST_VALUES // (len(inputs) * values))
    firsts = jnp.arange(0, count, part, dtype=jnp.int32)
    if len(firsts) == 1:
        return begin(model, variables, inputs, count, seen=seen)
    made = jax.lax.map(lambda i: begin(model, variables, inputs, part, i, seen), firsts)
    return made.reshape(-1, *made.shape[2:])[:count]


def resume(
    model: Forecaster,
    variables: Variables,
    inputs: jax.Array,
    beginning: jax.Array,
    stretch: jax.typing.ArrayLike,
    first: jax.typing.ArrayLike,
) -> jax.Array:
    """The forecasts `[m, b, k, h, w, c]` of members with inputs of their own.

    Args:
        model: the forecaster.
        variables: of the model.
        inputs: `[m, b, t, h, w, c]`, of each member.
        beginning: `[b, t, h, w, c]`, the inputs of the first forecast of all of them.
        stretch: how many times they have forecast before.
        first: number of the first of these members.
    """
    numbers = jnp.arange(len(inputs), dtype=jnp.int32) + first
    return jax.lax.map(
        lambda own: member(
            model, variables, own[1], own[0], beginning=beginning, stretch=stretch
        ),
        (numbers, inputs),
    )


def _compiled(model: Forecaster, name: str, function: Callable[..., Any]) -> Any:
    """A function that is compiled in this process."""
    del model, name
    return jax.jit(function)


class Compiled:
    """The members of a model's forecasts, compiled once for each shape.

    Args:
        model: the forecaster.
        variables: of the model.
        compiled: as `run.programs.kept.Programs.compiled`.
    """

    def __init__(
        self,
        model: Forecaster,
        variables: Variables,
        compiled: Callable[..., Callable[..., jax.Array]] = _compiled,
    ):
        self._variables = variables
        self._begin = functools.cache(
            lambda m: compiled(
                model,
                f"begin-{m}",
                lambda given, inputs, *first: begin(model, given, inputs, m, *first),
            )
        )
        self._resume = compiled(model, "resume", functools.partial(resume, model))

    def of(self, count: int, windows: int, values: int) -> Members:
        """Members of every forecast.

        Args:
            count: number of members.
            windows: most of them at once.
            values: numbers in one forecast.
        """
        part = part_of(count, MOST_VALUES // (windows * values))

        def first_ones(inputs: np.ndarray, m: int, first: int) -> jax.Array:
            # Of those after others, models with a fitted spread need the first as well.
            after = () if part == count else (first,)
            return self._begin(m)(self._variables, inputs, *after)

        return Members(
            count,
            part,
            first_ones,
            functools.partial(self._resume, self._variables),
        )


def part_of(count: int, most: int) -> int:
    """How many of `count` members are made at once: equal parts of at most `most`."""
    return -(-count // -(-count // max(most, 1)))


def describe(model: Forecaster, variables: Variables, count: int) -> dict[str, str]:
    """Attributes of forecasts with members: how many, from where, and their spread."""
    origin = ""
    if isinstance(model, Ensemble):
        origin = f"{model.size} models, trained with seeds of their own"
        model = model.member
    drawn = ""
    if isinstance(model, Probabilistic):
        options = model.options
        drawn = (
            f"forecasts with {options.noise} random numbers each in the norms of the "
            f"network (noise_in={options.noise_in}, noise_seed={options.noise_seed})"
        )
    elif draws(model):
        chosen = [f"{x}={getattr(model, x)}" for x in SAMPLING if hasattr(model, x)]
        drawn = " with ".join(
            filter(None, ("samples that the model draws", ", ".join(chosen)))
        )
    origin = ", each of ".join(filter(None, (drawn, origin)))
    leaves = jax.tree_util.tree_leaves_with_path(variables.get("batch_stats", {}))
    fitted = [x for path, x in leaves if path[-1] == jax.tree_util.DictKey("spread")]
    factors = np.concatenate([np.ravel(x) for x in fitted] or [np.ones(1)])
    spread = "not scaled"
    if np.any(factors != 1):
        spread = (
            "departures from the mean of the members were multiplied by "
            f"{factors.min():.3g} to {factors.max():.3g} (by lead time and variable, "
            "fitted on the validation period)"
        )
    return {
        "ensemble_members": str(count),
        "ensemble_origin": origin,
        "ensemble_spread": spread,
    }
