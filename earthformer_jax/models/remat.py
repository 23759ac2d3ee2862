"""What a model computes again in the backward pass, by names that all models share.

    none      nothing, apart from what a network always computes again because it is
              cheap (all but the convolutions of a step, in some recurrent networks)
    dots      all but the results of products with weights, and of convolutions
    blocks    all but the input of each block: of an attention or feed-forward layer, of
              the convolutions of a level, of a step of a recurrence
    offload   as `dots`, whose results are kept in the memory of the host

The values of the forecast do not depend on it. On CPUs device and host are the same
memory: "offload" compiles, but saves nothing outside loops.

Earthformers also know "feed_forward": feed-forward layers as with `blocks`, attention
as with `none`. For other models that is the same as `blocks`. The numbers 0, 1 and 2
of older configs are "none", "feed_forward" and "blocks", False and True are "none" and
"blocks". A config may also say "auto", for which a training chooses one of the others
(`run.planning.automatic`).
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.extend.core import primitives

from earthformer_jax.ops.derivatives import in_forward_mode
from earthformer_jax.ops.devices.varying import varying_axes
from earthformer_jax.ops.tuned.in_parts import as_a_whole
from earthformer_jax.ops.tuned.order import schedule_after
from earthformer_jax.settings import Accepted

NAMES = ("none", "dots", "blocks", "offload")
FEED_FORWARD = "feed_forward"
AUTO = "auto"  # in configs only
_OLD = {"0": "none", "1": FEED_FORWARD, "2": "blocks"}
_OLD |= {"false": "none", "true": "blocks"}

_capturing = jax.make_user_context(default_value=False)

Remat = str | int  # of a field, `remat: Remat = setting("none", ACCEPTED)`


def name_of(remat: Remat) -> str:
    """The name of a value that a config may have, also of an older one."""
    return _OLD.get(str(remat).lower(), str(remat))


ACCEPTED = Accepted(
    f"one of {', '.join(map(repr, NAMES))}, or {AUTO!r} in a config",
    lambda value: (
        isinstance(value, str | int) and name_of(value) in (*NAMES, FEED_FORWARD)
    ),
)


def policy_of(remat: Remat, *kept: str) -> Callable[..., Any] | None:
    """What `jax.checkpoint` keeps for the backward pass; None: arguments only.

    Args:
        remat: one of `NAMES`, but for "none" only if something is `kept`.
        *kept: names (`jax.ad_checkpoint.checkpoint_name`) of what "none" keeps in this
            function, in place of its convolutions.
    """
    name, policies = name_of(remat), jax.checkpoint_policies
    named = policies.save_only_these_names(*kept)
    if name == "none":
        return named
    if name == "dots":
        products = functools.partial(_is_product, convolutions=not kept)
        return policies.save_from_both_policies(products, named)
    if name == "offload":
        return _offloading(kept)
    return None


def _is_product(primitive, *_, convolutions: bool, **params) -> bool:
    """Whether an operation is a product with weights, or a convolution.

    Weights have no axis for examples, so products of two fields (attention) are none.
    A function with a gradient of its own is one if it consists of one (`ops.tuned`).
    """
    if _is_convolution(primitive, params):
        return convolutions
    if primitive is primitives.dot_general_p:
        _, (batch, _) = params["dimension_numbers"]
        return not batch
    inside = getattr(params.get("call_jaxpr"), "eqns", ())
    products = [
        eqn
        for eqn in inside
        if eqn.primitive is primitives.dot_general_p
        or _is_convolution(eqn.primitive, eqn.params)
    ]
    return len(products) == 1 and _is_product(
        products[0].primitive, convolutions=convolutions, **products[0].params
    )


def _is_convolution(primitive, params) -> bool:
    """Of JAX, or in C++."""
    of_jax = primitive is primitives.conv_general_dilated_p
    return of_jax or "convolution" in str(params.get("target_name"))


def _offloading(kept: tuple[str, ...]) -> Callable[..., Any]:
    """The policy that moves products and convolutions to the host."""
    where = dict(offload_src="device", offload_dst="pinned_host")
    dots = jax.checkpoint_policies.offload_dot_with_no_batch_dims(**where)
    named = jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[], names_which_can_be_offloaded=[*kept], **where
    )
    product = dict(dimension_numbers=(((), ()), ((), ())))

    def policy(primitive, *arguments, **params):
        if _is_product(primitive, convolutions=not kept, **params):
            # The answer for some product with weights, whatever this one is.
            return dots(primitives.dot_general_p, **product)
        return named(primitive, *arguments, **params)

    return policy


def recomputed(function: Any, remat: Remat, **options: Any) -> Any:
    """A block that is computed again in the backward pass, or as it is with "none".

    Args:
        function: a class of modules, or a function whose first argument is a module.
        remat: one of `NAMES`.
        **options: of `flax.linen.remat`.
    """
    if name_of(remat) == "none":
        return function
    return nn.remat(function, policy=policy_of(remat), **options)


def call_block(module: nn.Module, *args: Any, remat: Remat, **static: Any) -> Any:
    """Calls a block, to be computed again in the backward pass as `remat` says.

    Args:
        module: the block.
        *args: arrays `[b, ...]` that it is called with, or None.
        remat: one of `NAMES`.
        **static: arguments that are no arrays, `train` and such.
    """
    if name_of(remat) == "none":
        return module(*args, **static)
    call = recomputed(lambda inner, *a: inner(*a, **static), remat)
    waits = jax.default_backend() == "cpu" and not in_forward_mode()
    waits = waits and not (_capturing.value or name_of(remat) == "offload")
    if waits and not module.is_initializing():
        call = _waiting(call)
    return call(module, *args)


@contextlib.contextmanager
def capturing() -> Iterator[None]:
    """A context in which blocks may use arrays that they are not called with.

    Such as those that methods put in their place (`flax.linen.intercept_methods`) bring
    along. `jax.checkpoint` alone finds them, which saves less on a CPU. Layers are
    called as a whole (`ops.tuned.in_parts`).
    """
    with _capturing(True), as_a_whole():
        yield


def _waiting(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of a module and arrays that is computed again only with its gradient.

    XLA's CPU compiler notices that what `jax.checkpoint` computes again exists already,
    and keeps it. It cannot if what was kept waits for the gradient to arrive.
    """

    def forward(module, *args):
        return nn.vjp(function, module, *args)

    def backward(pull, gradient):
        arrived = next(x for x in jax.tree.leaves(gradient) if x.ndim > 1)
        pull = jax.tree.map(functools.partial(_after, arrived), pull)
        return pull(gradient)

    return nn.custom_vjp(function, forward, backward)


def _after(arrived: jax.Array, x: jax.Array) -> jax.Array:
    """`schedule_after` for arrays whose first axis counts examples, or their parts."""
    if not jnp.issubdtype(x.dtype, jnp.inexact) or x.ndim < 2:
        return x
    if len(x) % len(arrived) or not varying_axes(arrived) <= varying_axes(x):
        return x
    corner = arrived[(slice(None), *(slice(1),) * (arrived.ndim - 1))]
    return schedule_after(jnp.repeat(corner, len(x) // len(arrived), axis=0), x)
