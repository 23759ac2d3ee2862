"""AdamW, its learning rate, and which parameters decay.

Reference:
    Loshchilov and Hutter 2019, Decoupled weight decay. https://arxiv.org/abs/1711.05101
    Gao et al. 2022, Earthformer, appendix "Implementation details".
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from earthformer_jax.training.precision import storage
from earthformer_jax.training.settings import OptimSettings

Params = Any

# Keeps the clipping factor finite; the value of torch.nn.utils.clip_grad_norm_.
CLIP_EPS = 1e-6


def warmup_cosine(
    lr: float,
    total_steps: int,
    *,
    warmup_fraction: float = OptimSettings.warmup_fraction,
    warmup_min_ratio: float = OptimSettings.warmup_min_ratio,
    min_lr_ratio: float = OptimSettings.min_lr_ratio,
) -> optax.Schedule:
    """A learning rate that rises linearly, then falls as half a cosine and stays there.

    The first of n warm-up steps has the rate `warmup_min_ratio * lr` (0 by default, so
    that this step changes nothing); step n has the rate `lr`.

    Args:
        lr: rate after the warm-up.
        total_steps: length of the training; the minimum is reached then.
        warmup_fraction: share of `total_steps` with a rising rate, rounded to steps.
        warmup_min_ratio: rate of step 0, in units of `lr`.
        min_lr_ratio: rate from `total_steps` on, in units of `lr`.

    Returns:
        Function of the step number (from 0).
    """
    warmup_steps = round(warmup_fraction * total_steps)
    falling_steps = max(total_steps - warmup_steps, 1)

    def learning_rate(step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(step, float)
        rising = step / max(warmup_steps, 1)
        rising = warmup_min_ratio + (1 - warmup_min_ratio) * rising
        progress = jnp.clip((step - warmup_steps) / falling_steps, 0, 1)
        falling = (1 + jnp.cos(jnp.pi * progress)) / 2
        falling = min_lr_ratio + (1 - min_lr_ratio) * falling
        return lr * jnp.where(step < warmup_steps, rising, falling)

    return learning_rate


def decay_mask(params: Params) -> Params:
    """True for every parameter that weight decay shrinks.

    Kernels, embeddings and global vectors decay; so do the scales of group norms and of
    RMS norms (`rms_scale`). Scales of layer norms, everything called a bias and the
    relative position bias tables do not. The rule of the reference implementation is
    "all but what lies in nn.LayerNorm or has 'bias' in its name", which spares neither
    group nor RMS norms.

    Args:
        params: nested mappings of parameters; a module's name says that it is a group
            norm ("group_norm" or Flax's "GroupNorm_0").

    Returns:
        The same tree of bools.
    """

    def decays(path: tuple, _: Any) -> bool:
        *modules, name = (str(key.key) for key in path)
        if "bias" in name:
            return False
        if name == "scale":
            owner = modules[-1] if modules else ""
            return "groupnorm" in owner.lower().replace("_", "")
        return True

    return jax.tree_util.tree_map_with_path(decays, params)


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """Scales gradients down whose global Euclidean norm exceeds `max_norm`.

    Differs from Optax in `CLIP_EPS`, as PyTorch does.
    """

    def update(updates, state, params=None):
        del params
        factor = jnp.minimum(1.0, max_norm / (optax.tree.norm(updates) + CLIP_EPS))
        return jax.tree.map(lambda g: g * factor.astype(g.dtype), updates), state

    return optax.GradientTransformation(optax.init_empty_state, update)


def decay_weights(
    weight_decay: float, mask: Callable[[Params], Params] = decay_mask
) -> optax.GradientTransformation:
    """Adds `weight_decay * parameter` to Adam's update of the parameters in the mask.

    A parameter without a path to the loss (the last update of the global vectors, when
    the decoder does not read them) is left alone: its gradient, and with it Adam's
    update, is exactly zero from the first step on. PyTorch gives it no gradient at all
    and its optimisers skip it; decaying it would make its exported weights shrink.
    """

    def update(updates, state, params=None):
        if params is None:
            raise ValueError("weight decay needs params in the call of update")

        def decayed(update, param, selected):
            if not selected:
                return update
            is_trained = jnp.any(update != 0)
            return update + jnp.where(is_trained, weight_decay * param, 0)

        return jax.tree.map(decayed, updates, params, mask(params)), state

    return optax.GradientTransformation(optax.init_empty_state, update)


def adamw(
    learning_rate: optax.ScalarOrSchedule,
    *,
    weight_decay: float = 0.0,
    clip_norm: float = 0.0,
    b1: float = OptimSettings.b1,
    b2: float = OptimSettings.b2,
    eps: float = OptimSettings.eps,
) -> optax.GradientTransformation:
    """AdamW on clipped gradients.

    Args:
        learning_rate: a number, or a function of the step.
        weight_decay: decay of the parameters selected by `decay_mask`, in units of the
            learning rate.
        clip_norm: largest global norm of the gradient; 0 does not clip.
        b1: memory of the mean gradient.
        b2: memory of the mean squared gradient.
        eps: added to the root of the mean squared gradient.
    """
    # The chain has the same links whatever is switched off, so that all choices have
    # states of the same structure.
    return optax.chain(
        clip_by_global_norm(clip_norm) if clip_norm else optax.identity(),
        optax.scale_by_adam(b1=b1, b2=b2, eps=eps),
        decay_weights(weight_decay) if weight_decay else optax.identity(),
        optax.scale_by_learning_rate(learning_rate),
    )


def make_optimizer(
    optim: OptimSettings, total_steps: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimiser of a training of `total_steps`, and its learning rate."""
    learning_rate = warmup_cosine(
        optim.lr,
        total_steps,
        warmup_fraction=optim.warmup_fraction,
        warmup_min_ratio=optim.warmup_min_ratio,
        min_lr_ratio=optim.min_lr_ratio,
    )
    tx = adamw(
        learning_rate,
        weight_decay=optim.weight_decay,
        clip_norm=optim.clip_norm,
        b1=optim.b1,
        b2=optim.b2,
        eps=optim.eps,
    )
    return storage.in_float32(tx), learning_rate
