"""The convolutional stem that shrinks the input, and the head that restores it.

Both work on single frames and come in two kinds: one stage ("conv"), and a stack of
stages as on SEVIR ("stack_conv"). The kinds differ in the groups of their
normalisation: 16 groups, or groups of four channels.

Reference:
    Gao et al. 2022, Earthformer, tables 8 and 9.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from earthformer_jax.layers.activation import activate, leaky_slope
from earthformer_jax.layers.convolution import FrameConv
from earthformer_jax.layers.frames import each_frame
from earthformer_jax.layers.norm import make_group_norm
from earthformer_jax.layers.resample import PatchMerging, Upsample
from earthformer_jax.ops.resample import Grid, merged_grid

KINDS = ("conv", "stack_conv")
GROUPS = 16
CHANNELS_PER_GROUP = 4


class Stage(NamedTuple):
    """One stage: convolutions to `features` channels, then a merge by `factor`."""

    features: int
    factor: Grid
    conv_layers: int


def group_count(kind: str, features: int) -> int:
    """Groups of the normalisation after a convolution.

    Raises:
        ValueError: if a one-stage stem has channels that 16 does not divide.
    """
    if kind == "stack_conv":
        return max(1, features // CHANNELS_PER_GROUP)
    if kind != "conv":
        raise ValueError(f"a stem is one of {KINDS}; got {kind!r}")
    if features % GROUPS:
        raise ValueError(
            f"a 'conv' stem normalises in {GROUPS} groups, so its channels must be a "
            f"multiple of {GROUPS}; got {features} (or take stem='stack_conv')"
        )
    return GROUPS


class ConvLayers(nn.Module):
    """`layers` times 3x3 convolution, group norm, activation, on every frame.

    Attributes:
        features: channels of every layer.
        layers: how many; none leaves the field as it is.
        groups: of the normalisation.
        activation: name of `activation.ACTIVATIONS`.
        dtype: of the arithmetic; None follows the input.
        param_dtype: of the parameters.
    """

    features: int
    layers: int
    groups: int
    activation: str
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[b, t, h, w, c]` to `[b, t, h, w, features]`."""
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        for i in range(self.layers):
            x = FrameConv(self.features, name=f"conv_{i}", **types)(x)
            norm = make_group_norm(self.groups, name=f"group_norm_{i}", **types)
            slope = leaky_slope(self.activation)
            if slope is None:
                x = activate(self.activation, each_frame(norm, x))
            else:  # the norm computes the activation too
                x = each_frame(functools.partial(norm, slope=slope), x)
        return x


class Stem(nn.Module):
    """Stages of convolutions and patch merging.

    Attributes:
        stages: one for "conv", any number for "stack_conv".
        kind: "conv" or "stack_conv".
        activation: of the convolutions.
        padding: where a factor does not divide the grid.
        linear_init: linear initialisation of the merges.
        dtype: of the arithmetic; None follows the input.
        param_dtype: of the parameters.
    """

    stages: Sequence[Stage]
    kind: str
    activation: str
    padding: str
    linear_init: str
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[b, t, h, w, c]` to `[b, t', h', w', features of the last stage]`."""
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        for i, stage in enumerate(self.stages):
            if stage.conv_layers:
                x = ConvLayers(
                    stage.features,
                    stage.conv_layers,
                    group_count(self.kind, stage.features),
                    self.activation,
                    name=f"convs_{i}",
                    **types,
                )(x)
            x = PatchMerging(
                stage.features,
                stage.factor,
                self.padding,
                linear_init=self.linear_init,
                name=f"merge_{i}",
                **types,
            )(x)
        return x


class HeadStage(NamedTuple):
    """One stage: up-sampling to `plane`, then convolutions to `features` channels."""

    plane: tuple[int, int]
    features: int
    conv_layers: int


def head_stages(stages: Sequence[Stage], grid: Grid) -> tuple[HeadStage, ...]:
    """The stages that undo those of a stem whose input has this grid."""
    planes = []
    for stage in stages:
        planes.append(tuple(grid[1:]))
        grid = merged_grid(grid, stage.factor)
    return tuple(
        HeadStage(plane, stage.features, stage.conv_layers)
        for plane, stage in zip(reversed(planes), reversed(stages), strict=True)
    )


class Head(nn.Module):
    """Stages of up-sampling (channels kept) and convolutions.

    Attributes:
        stages: from the smallest plane to the largest.
        kind: "conv" or "stack_conv", for the groups of the normalisation.
        activation: of the convolutions.
        dtype: of the arithmetic; None follows the input.
        param_dtype: of the parameters.
    """

    stages: Sequence[HeadStage]
    kind: str
    activation: str
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[b, t, h', w', c]` to `[b, t, h, w, features of the last stage]`."""
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        for i, stage in enumerate(self.stages):
            x = Upsample(x.shape[-1], stage.plane, name=f"upsample_{i}", **types)(x)
            if stage.conv_layers:
                x = ConvLayers(
                    stage.features,
                    stage.conv_layers,
                    group_count(self.kind, stage.features),
                    self.activation,
                    name=f"convs_{i}",
                    **types,
                )(x)
        return x
