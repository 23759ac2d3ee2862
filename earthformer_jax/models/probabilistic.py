"""A network that draws many forecasts: noise in its norms.

A member of the ensemble is a forecast with its own noise z ~ N(0, I). A dense layer
without bias, zero at first, turns z into (d_scale, d_shift) for every norm of the
chosen part, whose result y becomes `y * (1 + d_scale) + d_shift`: an untrained or
freshly converted model is the network it was made of, whatever the noise.

The network knows nothing of this. Its norms are found while its variables are created,
and Flax's method interceptors change their results, in loops and recomputed blocks as
well. The norms' results are the same array for all members before the first noise, so
`jax.vmap` over z computes what lies before it once.

Reference:
    Alet et al. 2025, Skillful joint probabilistic weather forecasting from marginals.
    https://arxiv.org/abs/2506.10772 (noise-conditioned norms); Lang et al. 2024,
    AIFS-CRPS. https://arxiv.org/abs/2412.15832
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jax.typing
from flax import linen as nn
from flax import traverse_util

from earthformer_jax.checks import check_fields, check_value
from earthformer_jax.layers import batch_norm, convolution, loop_conv, norm
from earthformer_jax.models import remat
from earthformer_jax.models.contract import Variables, uses_targets
from earthformer_jax.models.drawing import draw
from earthformer_jax.models.recurrent.spatiotemporal_lstm import SpatiotemporalLSTMCell
from earthformer_jax.models.shapes import check_inputs
from earthformer_jax.ops.devices.examples import own_key
from earthformer_jax.settings import at_least, choice, setting

PARTS = ("decoder", "all")
AT_ONCE = 8  # members that forecast side by side; more of them do so in turn
NOISE, SPREAD, NETWORK = "noise", "spread", "network"

# What is modulated, by type and method: norms; in a network without any, convolutions.
_NORMS = (
    (norm.LayerNorm, "bind_weights"),
    (norm.RMSNorm, "bind_weights"),
    (batch_norm.BatchNorm, "__call__"),
    (nn.LayerNorm, "__call__"),
    (norm.GroupNorm, "__call__"),
    (nn.GroupNorm, "__call__"),
)
_CONVOLUTIONS = (
    (convolution.Conv, "__call__"),
    (loop_conv.LoopConv, "__call__"),
    (SpatiotemporalLSTMCell, "window"),
)

Path = tuple[str, ...]  # of a module inside the network
Change = tuple[jax.Array, ...]  # d_scale and d_shift of every example, [b, c]


@dataclasses.dataclass(frozen=True)
class NoiseOptions:
    """Options of the noise in a model.

    Attributes:
        noise: how many random numbers each member of a probabilistic model reads, 32
            for example; 0: the model has one forecast.
        noise_in: where they act: "decoder": in modules whose names begin so, or in a
            network without any in the later half, in the order of use; or "all".
        members: with noise, the members of which the forecast is the mean.
        train_members: with noise, the members of every example in training.
        noise_seed: with noise, another one gives other members of the same quality.
    """

    noise: int = setting(0, at_least(0))
    noise_in: str = setting("decoder", choice(*PARTS))
    members: int = setting(16, at_least(1))
    train_members: int = setting(2, at_least(2))
    noise_seed: int = setting(0, at_least(0))


class Probabilistic(nn.Module):
    """Forecasts that differ in their noise, and their mean.

    The noise of a member is a function of its number, the values of the window's inputs
    (all their bits) and the seed: the same window has the same ensemble in every batch
    and process, and a smaller ensemble is the beginning of a larger one.

    The spread `[K, H, W, C_out]`, a constant in `batch_stats` that is 1 until it is
    fitted, multiplies the departures of the members from the mean of the first
    `members` of them.

    A network that learns with scheduled sampling or teacher forcing does so with its
    own frames alone, and adds no terms to the loss, as in a `Hybrid`.

    Attributes:
        input_shape: (T, H, W, C_in).
        target_shape: (K, H, W, C_out).
        network: a forecaster for these shapes, perhaps a `Hybrid`.
        options: of the noise.
    """

    input_shape: tuple[int, int, int, int]
    target_shape: tuple[int, int, int, int]
    network: Any
    options: NoiseOptions

    draws = True

    @property
    def mean_of(self) -> int:
        """The number of members that the forecast is the mean of."""
        return self.options.members

    def check(self) -> None:
        """Raises ValueError for inconsistent shapes or options."""
        check_fields(self.options)
        check_value("noise", self.options.noise, at_least(1))
        self.network.check()

    @nn.compact
    def __call__(
        self, inputs: jax.Array, *, seen: jax.Array | None = None, train: bool = False
    ) -> jax.Array:
        """The mean of `members` members; in training, `train_members` of them.

        Args:
            inputs: `[b, T, H, W, C_in]`.
            seen: as in `members`.
            train: whether to draw new noise (needs the rng "sampling"), and whether
                dropout acts, equally on all members (needs the rng "dropout").

        Returns:
            float32 `[b, K, H, W, C_out]`; with `train` `[m, b, K, H, W, C_out]`.
        """
        check_inputs(inputs, self.input_shape)
        self.variable("batch_stats", SPREAD, jnp.ones, self.target_shape)
        if self.is_initializing():
            forecast = self.network(inputs)  # which creates its variables
            apply = self.network.clone(parent=None, name=None).apply
            sites = _sites(apply, self._network_variables(), inputs)
            chosen = _chosen(sites, self.options.noise_in)
            self.param(NOISE, lambda _: _zero_layers(chosen, self.options.noise))
            return forecast
        if train:
            return self.members(inputs, self.options.train_members, train=True)
        return self.members(inputs, self.options.members, seen=seen).mean(axis=0)

    def members(
        self,
        inputs: jax.Array,
        size: int,
        *,
        first: jax.typing.ArrayLike = 0,
        seen: jax.Array | None = None,
        train: bool = False,
    ) -> jax.Array:
        """The first members of the ensemble, or those from a number on.

        Args:
            inputs: `[b, T, H, W, C_in]`.
            size: number of members.
            first: number of the first of them, an integer.
            seen: `[b, ...]`, from whose values the noise follows; None: from those of
                the inputs.
            train: as in `__call__`; the spread is left out then.

        Returns:
            float32 `[size, b, K, H, W, C_out]`.
        """
        check_value("size", size, at_least(1))
        check_inputs(inputs, self.input_shape)
        if train:
            shape = (size, len(inputs), self.options.noise)
            z = jax.random.normal(own_key(self.make_rng("sampling")), shape)
            return self._learn(inputs, z)
        count = self.options.members
        # The spread is about the mean of the first members.
        if isinstance(first, int) and first == 0:
            forecasts = self.as_trained(inputs, max(size, count), seen=seen)
            wanted = forecasts[:size]
        else:
            seen = inputs if seen is None else seen
            both = self._noise(seen, count), self._noise(seen, size, first)
            forecasts = self._forecasts(inputs, jnp.concatenate(both))
            wanted = forecasts[count:]
        # Not mean + spread * departure: a spread of 1 changes no bit.
        spread = self.get_variable("batch_stats", SPREAD)
        return wanted + (spread - 1) * (wanted - forecasts[:count].mean(axis=0))

    def as_trained(
        self,
        inputs: jax.Array,
        size: int,
        *,
        first: jax.typing.ArrayLike = 0,
        seen: jax.Array | None = None,
    ) -> jax.Array:
        """As `members`, without the spread that was fitted to them."""
        z = self._noise(inputs if seen is None else seen, size, first)
        return self._forecasts(inputs, z)

    def _noise(self, seen, size, first: jax.typing.ArrayLike = 0):
        shape, seed = (self.options.noise,), self.options.noise_seed
        return draw(jax.random.normal, seen, size, shape, seed, first)

    def _forecasts(self, inputs, z):
        forecast = self._forecaster(inputs, train=False)
        if len(z) <= AT_ONCE:
            return jax.vmap(forecast)(z)[0]
        return jax.lax.map(forecast, z, batch_size=AT_ONCE)[0]

    def _learn(self, inputs, z):
        """Members in training; running statistics are the means of theirs."""
        forecast = self._forecaster(inputs, train=not uses_targets(bare(self.network)))
        forecasts, changed = jax.vmap(forecast)(z)
        if changed and self.is_mutable_collection("batch_stats"):
            before = self._network_variables()["batch_stats"]
            before = traverse_util.flatten_dict(before)
            means = {path: x.mean(axis=0) for path, x in changed.items()}
            after = traverse_util.unflatten_dict(before | means)
            self.put_variable("batch_stats", NETWORK, after)
        return forecasts

    def _forecaster(
        self, inputs: jax.Array, *, train: bool
    ) -> Callable[[jax.Array], tuple[jax.Array, dict[Path, jax.Array]]]:
        """Forecast and changed statistics as a function of noise `[b, noise]`.

        It is called as a pure function, since Flax would let statistics differ between
        members only if each of them kept its own.
        """
        network = self.network.clone(parent=None, name=None)
        variables = self._network_variables()
        layers = traverse_util.flatten_dict(dict(self.variables["params"][NOISE]))
        rngs = {}
        if train and self.has_rng("dropout"):
            rngs["dropout"] = self.make_rng("dropout")
        before = traverse_util.flatten_dict(variables["batch_stats"])
        time_first = getattr(bare(network), "time_first", False)

        def forecast(z):
            changes = {
                path: tuple(jnp.einsum("bz,zpc->pbc", z, layer))
                for path, layer in layers.items()
            }
            modulated = nn.intercept_methods(_modulation(changes, time_first))
            with modulated, remat.capturing():
                y, after = network.apply(
                    variables, inputs, train=train, rngs=rngs, mutable=["batch_stats"]
                )
            flat: dict[Any, Any]
            flat = traverse_util.flatten_dict(dict(after.get("batch_stats", {})))
            changed = {k: x for k, x in flat.items() if x is not before[k]}
            return y, changed

        return forecast

    def _network_variables(self) -> dict[str, dict[str, Any]]:
        return {
            kind: dict(self.variables.get(kind, {}).get(NETWORK, {}))
            for kind in ("params", "batch_stats")
        }


def bare(network: Any) -> Any:
    """The network itself, without what it corrects."""
    return getattr(network, NETWORK, network)


def _sites(apply, variables, inputs) -> dict[str, dict[Path, int]]:
    """The channels of the norms and convolutions of a network by path, in order."""
    sites: dict[str, dict[Path, int]] = {"norms": {}, "convolutions": {}}

    def note(call, args, kwargs, context):
        result = call(*args, **kwargs)
        for kind, known in (("norms", _NORMS), ("convolutions", _CONVOLUTIONS)):
            if _is_one_of(context, known):
                bound = isinstance(result, jax.tree_util.Partial)
                channels = args[0] if bound else result.shape[-1]
                sites[kind].setdefault(_path(context, args), channels)
        return result

    with nn.intercept_methods(note):
        jax.eval_shape(apply, variables, inputs)
    return sites


def _is_one_of(context, known) -> bool:
    return any(
        isinstance(context.module, kind) and context.method_name == method
        for kind, method in known
    )


def _path(context, args) -> Path:
    """Of a module, or of one of the convolutions that are its method."""
    name = args[:1] if context.method_name == "window" else ()
    return (*context.module.path, *name)


def _chosen(sites: Mapping[str, Mapping[Path, int]], part: str) -> dict[Path, int]:
    """Channels of the modules that are given noise, by path.

    Raises:
        ValueError: if there are none.
    """
    found = dict(sites["norms"] or sites["convolutions"])
    if not found:
        raise ValueError(
            "noise needs norms or convolutions in the network, which has neither; "
            "choose another model, or noise=0"
        )
    if part == "all":
        return found
    inside = {
        path: channels
        for path, channels in found.items()
        if any(name.startswith("decoder") for name in path)
    }
    return inside or dict(list(found.items())[len(found) // 2 :])


def _zero_layers(chosen: Mapping[Path, int], width: int) -> dict[str, Any]:
    """Weights `[width, 2, c]` of the layers for scale and shift, as a tree."""
    layers = {path: jnp.zeros((width, 2, c)) for path, c in chosen.items()}
    return traverse_util.unflatten_dict(layers)


def _modulation(changes: Mapping[Path, Change], time_first: bool):
    """An interceptor that changes scale and shift of the modules at some paths."""

    def modulate(call, args, kwargs, context):
        if not _is_one_of(context, (*_NORMS, *_CONVOLUTIONS)):
            return call(*args, **kwargs)
        change = changes.get(_path(context, args))
        if change is None:
            return call(*args, **kwargs)
        slope = kwargs.pop("slope", None)  # of an activation, which comes afterwards
        result = call(*args, **kwargs)
        if isinstance(result, jax.tree_util.Partial):
            apply = functools.partial(_modulated, time_first)
            return jax.tree_util.Partial(apply, result, change)
        result = modulated(result, change, time_first)
        return result if slope is None else nn.leaky_relu(result, slope)

    return modulate


def _modulated(time_first, layer, change, x):
    return modulated(layer(x), change, time_first)


def modulated(y: jax.Array, change: Change, time_first: bool) -> jax.Array:
    """`y * (1 + d_scale) + d_shift` with changes of each example.

    Args:
        y: `[b, ..., c]`, or `[b * t, ..., c]`: frames in one axis.
        change: d_scale and d_shift, `[b, c]`.
        time_first: whether these frames are ordered by time first.
    """
    examples, channels = change[0].shape
    frames = y.shape[0] // examples

    def beside(x):
        if y.shape[0] != examples:
            axis = 0 if time_first else 1
            shape = (frames, examples) if time_first else (examples, frames)
            x = jnp.broadcast_to(jnp.expand_dims(x, axis), (*shape, channels))
        return x.reshape(y.shape[0], *[1] * (y.ndim - 2), channels)

    scale, shift = map(beside, change)
    return (y * (1 + scale) + shift).astype(y.dtype)


def of_size(variables: Variables, size: tuple[int, int]) -> Variables:
    """Variables for fields of another size, whose spread is the mean over the cells.

    Args:
        variables: of any model.
        size: rows and columns.
    """
    stats = variables.get("batch_stats", {})
    if SPREAD not in stats:
        return variables
    means = jnp.mean(stats[SPREAD], axis=(1, 2), keepdims=True)
    made = jnp.broadcast_to(means, (len(means), *size, means.shape[-1]))
    return {**variables, "batch_stats": {**stats, SPREAD: made}}
