"""Embeddings of steps: pooled states, their season, attention over time."""

from typing import Any

import einops
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from earthformer_jax.layers.dense import Linear
from earthformer_jax.layers.norm import make_norm
from earthformer_jax.ops.tuned.attention import attend

YEAR = 365.2425  # mean length of the Gregorian year, days


def day_of_year(time: jax.Array | np.ndarray) -> jax.Array:
    """Days since the start of a year of 365 days; the same for a date in every year.

    1 January 00:00 is 0, 1 March 00:00 is 59. 29 February lies half-way between its
    neighbours and passes in half a day.

    Args:
        time: minutes since 1970-01-01 UTC, of any integer type, or NumPy datetime64.

    Returns:
        float32, of the same shape.

    Raises:
        ValueError: if `time` holds neither.
    """
    if np.issubdtype(time.dtype, np.datetime64):
        time = np.asarray(time).astype("datetime64[m]").astype(np.int64)
    if not jnp.issubdtype(time.dtype, jnp.integer):
        raise ValueError(
            f"time needs integers (minutes since 1970) or datetime64; got {time.dtype}"
        )
    if isinstance(time, np.ndarray):
        day, minute = np.divmod(time, 1440)
    else:
        day, minute = jnp.divmod(time, 1440)
    # Days of a calendar whose years start on 1 March, so that leap days come last.
    # http://howardhinnant.github.io/date_algorithms.html#civil_from_days
    day = jnp.asarray(day, jnp.int32) + 719468
    day = day % 146097
    year = (day - day // 1460 + day // 36524 - day // 146096) // 365
    day = day - (365 * year + year // 4 - year // 100)
    part = jnp.asarray(minute, jnp.float32) / 1440
    usual = jnp.where(day >= 306, day - 306, day + 59) + part
    return jnp.where(day == 365, 58.5 + part / 2, usual).astype(jnp.float32)


def seasonal_encoding(
    day: jax.Array, features: int, harmonics: int = 4, period: float = YEAR
) -> jax.Array:
    """sin and cos of the first harmonics of the year, then zeros: `[..., features]`.

    Args:
        day: days, of any shape.
        features: channels, at least 2 * harmonics.
        harmonics: number of harmonics.
        period: days of a year.

    Raises:
        ValueError: if the harmonics do not fit.
    """
    if not 0 <= 2 * harmonics <= features:
        raise ValueError(
            f"{harmonics} harmonics need {2 * harmonics} features; got {features}"
        )
    turns = jnp.asarray(day, jnp.float32)[..., None] / period
    angle = 2 * jnp.pi * (turns * jnp.arange(1, harmonics + 1) % 1)
    code = jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1)
    code = einops.rearrange(code, "... j p -> ... (j p)")
    return jnp.concatenate(
        [code, jnp.zeros((*code.shape[:-1], features - 2 * harmonics))], axis=-1
    )


class SubspaceHead(nn.Module):
    """A compact embedding of every step of a sequence of states.

    A linear map of the mean and maximum over the plane, a fixed code of the season
    added to it, then self-attention over the steps and a feed-forward layer.

    Attributes:
        features: width of the embedding.
        plane_features: 0: the map reads the mean and maximum of every channel, which
            do not tell where something is. Otherwise every position is first reduced to
            this many channels, and the map reads all positions.
        heads: attention heads, a divisor of features; 0 switches the attention over
            steps off.
        hidden: width of the feed-forward layer; 0 switches it off.
        harmonics: harmonics of the year in the seasonal code; 0 switches it off.
        period: days of a year.
        causal: attend to earlier steps only, as a forecast must.
        normalise: embeddings of unit length.
        dtype: computation type; None follows the input.
        param_dtype: parameter type.
    """

    features: int = 64
    plane_features: int = 0
    heads: int = 4
    hidden: int = 128
    harmonics: int = 4
    period: float = YEAR
    causal: bool = False
    normalise: bool = False
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        states: jax.Array,
        time: jax.Array | None = None,
        *,
        day: jax.Array | None = None,
        start: int | jax.Array = 0,
        mask: jax.Array | None = None,
    ) -> jax.Array:
        """Embeds every step.

        Args:
            states: `[b, t, h, w, c]`.
            time: int `[b, t]` or `[t]`, minutes since 1970-01-01 UTC. Without `time`
                and `day`, steps are counted as days from `start`.
            day: days since the start of the year, `[b, t]` or `[t]`, if they are known
                and `time` is not.
            start: number of the first step if neither is given.
            mask: bool `[b, t]`, False for steps that no other step may attend to; None
                allows all.

        Returns:
            `[b, t, features]`.

        Raises:
            ValueError: for inconsistent shapes or options.
        """
        if states.ndim != 5:
            raise ValueError(
                "states need five axes (batch, time, height, width, channel); got "
                f"shape {tuple(states.shape)}"
            )
        b, t = states.shape[:2]
        if self.heads < 0 or (self.heads and self.features % self.heads):
            raise ValueError(
                f"heads must divide features; got {self.heads} heads for "
                f"{self.features} features"
            )
        if time is not None and day is not None:
            raise ValueError("give time or day, not both")
        for name, value in (("time", time), ("day", day)):
            if value is not None and value.shape not in ((t,), (b, t)):
                raise ValueError(
                    f"{name} needs shape ({t},) or ({b}, {t}); got {tuple(value.shape)}"
                )
        if time is not None:
            day = day_of_year(time)
        elif day is None:
            day = start + jnp.arange(t, dtype=jnp.float32)
        query = self._dense("embed", self.features)(self._pool(states))
        self.sow("intermediates", "pooled", query)
        season = seasonal_encoding(day, self.features, self.harmonics, self.period)
        z = query + season.astype(query.dtype)
        if self.heads:
            z = z + self._attend(self._norm("attention_norm")(z), mask)
        if self.hidden:
            y = self._dense("ffn_1", self.hidden)(self._norm("ffn_norm")(z))
            z = z + self._dense("ffn_2", self.features)(nn.gelu(y, approximate=False))
        if self.normalise:
            wide = z.astype(jnp.promote_types(z.dtype, jnp.float32))
            length = jnp.sum(jnp.square(wide), axis=-1, keepdims=True)
            z = (wide * jax.lax.rsqrt(length + 1e-12)).astype(z.dtype)
        return z

    def _pool(self, states):
        """`[b, t, p]` of `[b, t, h, w, c]`."""
        if not self.plane_features:
            means, peaks = states.mean(axis=(2, 3)), states.max(axis=(2, 3))
            return jnp.concatenate([means, peaks], axis=-1)
        places = self._dense("plane", self.plane_features)(states)
        return einops.rearrange(places, "b t h w c -> b t (h w c)")

    def _attend(self, z, mask):
        """Self-attention of the steps `[b, t, d]`."""
        b, t = z.shape[:2]
        qkv = self._dense("qkv", 3 * self.features, use_bias=False)(z)
        query, key, value = einops.rearrange(
            qkv, "b t (p a d) -> p 1 b t a d", p=3, a=self.heads
        )
        allowed = None
        if self.causal:
            allowed = jnp.broadcast_to(jnp.tril(jnp.ones((t, t), bool)), (b, t, t))
        if mask is not None:
            seen = jnp.broadcast_to(mask[:, None, :], (b, t, t))
            allowed = seen if allowed is None else allowed & seen
        y = attend(query, key, value, scale=query.shape[-1] ** -0.5, mask=allowed)
        y = einops.rearrange(y, "1 b t a d -> b t (a d)")
        return self._dense("proj", self.features, use_bias=False)(y)

    def _dense(self, name, features, use_bias=True):
        return Linear(
            features,
            use_bias=use_bias,
            kernel_init=nn.initializers.glorot_uniform(),
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name=name,
        )

    def _norm(self, name):
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        return make_norm("layer_norm", name=name, **types)
