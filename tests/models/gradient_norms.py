"""Norms of gradients in bfloat16 or float16 as parts of what they should be.

python -m tests.models.gradient_norms [--dtype=float16] [--draws=16] [MODEL ...]

prints the table of docs/precision.md: for every model the parameters that have a
gradient, and how many of their gradients have a norm that is more than 3 % from that of
the model in float32. Norms are root mean squares over several draws of weights and
examples.

Where a ReLU or the maximum of a window is about to switch, or a variance is near zero,
a gradient jumps with any rounding of a field. --exact compares with the exact
derivative of the model in the narrow type instead. It follows these jumps, because it
is taken at the same, rounded fields (`rounded_fields`); what it does not follow are
sums that lose something. --smooth takes the jumps away instead: smooth functions
replace ReLUs and maxima, and all sums are as before.
"""

import argparse
import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from earthformer_jax import models
from earthformer_jax.models.contract import uses_targets
from earthformer_jax.models.rainformer import attention, blocks
from earthformer_jax.ops.dense import widen
from tests.models.rounded_fields import with_exact_gradient

FRAMES, SIDE, BATCH = 3, 16, 8
# The last stage of the Rainformer normalises the forecast frames of a position: of few
# of them the variance is near zero at some positions. The paper has 10 to 14 frames.
MORE_FRAMES = {"rainformer": 12}
TOLERANCE = 0.03
# A smaller part of the whole gradient is rounding: a bias in front of a norm has none.
LEAST_SHARE = 1e-6
SCALE = 2.0**12  # of the loss: without one, gradients in float16 underflow

compiled = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)
# Every number of a narrow type is rounded, those inside of fusions as well.
strictly_compiled = functools.partial(
    jax.jit,
    compiler_options={
        "xla_backend_optimization_level": 0,
        "xla_allow_excess_precision": False,
    },
)

_PATCHES = dict(num_layers=2, features=16, kernel_size=3, patch=2)
_LSTM = dict(features=(16, 16), kernels=(3, 3), strides=(2, 2), up_kernels=(4, 4))
MODELS = {
    "unet": dict(features=(16, 32), center_features=32),
    "earthformer": dict(
        base_units=32,
        num_heads=2,
        num_global_vectors=4,
        enc_depth=(1, 1),
        dec_depth=(1, 1),
        downsample=(1, 2, 2),
        attn_drop=0.0,
        proj_drop=0.0,
        ffn_drop=0.0,
    ),
    "earthformer_ar": dict(
        base_units=16,
        num_heads=2,
        enc_depth=(1,),
        dec_depth=(1,),
        enc_pattern="full",
        dec_self_pattern="full",
        num_global_vectors=2,
        codebook_size=16,
        factor=2,
        tokenizer_options=dict(features=8, code_width=4, blocks=0, frames=1),
    ),
    "conv_lstm": _LSTM,
    "fa_conv_lstm": _LSTM,
    "predrnn": _PATCHES,
    "phydnet": dict(
        features=16,
        norm_groups=2,
        convcell_features=(32,),
        phycell_features=(9,),
        phycell_kernel=3,
        phycell_groups=3,
    ),
    "e3d_lstm": _PATCHES | dict(kernel_size=(2, 3, 3), norm_epsilon=1e-3),
    "rainformer": dict(
        features=16,
        factors=(2,),
        heads=(2,),
        head_dim=8,
        window=4,
        upstream_dead_params=False,
    ),
    "conv_autoencoder": dict(
        features=16, embedding=16, plane_features=8, hidden=16, heads=2, harmonics=2
    ),
    "vq_vae": dict(factor=2, codebook_size=16, code_width=4, features=16, blocks=1),
}


@dataclasses.dataclass(frozen=True)
class Leaf:
    """The norm of the gradient of one array of parameters.

    Attributes:
        path: of the array.
        share: what the norm should be, as a part of that of the whole gradient.
        ratio: what it is, as a part of what it should be.
    """

    path: str
    share: float
    ratio: float


def loss_of(name: str, dtype: str, **options):
    """A model and its loss, a function of (parameters, draw, other variables).

    The loss is scaled by `SCALE`.
    """
    shape = (MORE_FRAMES.get(name, FRAMES), SIDE, SIDE, 1)
    model = models.create_model(name, shape, shape, dtype=dtype, **options)

    def loss(params, draw, others):
        taught = {}
        if uses_targets(model):
            taught = dict(targets=draw["targets"], step=0, total_steps=100)
        forecast, sown = model.apply(
            {"params": params, **others},
            draw["inputs"],
            train=True,
            rngs=dict(dropout=jax.random.key(1), sampling=jax.random.key(2)),
            mutable=["batch_stats", "losses"],
            **taught,
        )
        more = sum(map(jnp.sum, jax.tree.leaves(dict(sown).get("losses", {}))))
        return SCALE * (jnp.mean(jnp.square(forecast - draw["targets"])) + more)

    return model, loss


@contextlib.contextmanager
def without_jumps() -> Iterator[None]:
    """ReLUs and maxima of models called inside are smooth functions."""

    def softplus(x):
        return (nn.softplus(2 * widen(x)) / 2).astype(x.dtype)

    def maximum(x, axis):
        return nn.logsumexp(widen(x), axis).astype(x.dtype)

    with contextlib.ExitStack() as stack:
        for place, name, smooth in (
            (nn, "relu", softplus),
            (nn, "max_pool", nn.avg_pool),
            (attention, "maximum", maximum),
            (blocks, "maximum", maximum),
        ):
            stack.enter_context(mock.patch.object(place, name, smooth))
        yield


@functools.cache
def draws(number: int, frames: int = FRAMES) -> tuple[dict, ...]:
    """Examples of noise that is blurred in the plane and drifts in time."""
    random, found = np.random.default_rng(0), []
    wave = np.fft.fftfreq(SIDE) * SIDE
    blur = np.exp(-0.02 * (wave[:, None] ** 2 + wave**2))
    for _ in range(number):
        noise = random.normal(size=(BATCH, 2 * frames, SIDE, SIDE)).cumsum(1)
        field = np.fft.ifft2(np.fft.fft2(noise) * blur).real
        field = (field / field.std())[..., None].astype(np.float32)
        found.append(dict(inputs=field[:, :frames], targets=field[:, frames:]))
    return tuple(found)


def compare(
    name: str, dtype: str = "bfloat16", number: int = 16, exact: bool = False
) -> list[Leaf]:
    """The norms of all parameters of a model that have a gradient.

    Args:
        name: of the model, with the options of `MODELS`.
        dtype: the narrow type.
        number: of draws.
        exact: compare with the exact derivative; otherwise with float32.
    """
    model, low = loss_of(name, dtype, **MODELS[name])
    compiler = compiled
    if exact:
        compiler, other = strictly_compiled, with_exact_gradient(low, dtype)
    else:
        _, other = loss_of(name, "float32", **MODELS[name])
    functions = [compiler(jax.grad(loss)) for loss in (low, other)]
    init = compiled(model.init)
    total, params = [], {}
    for key, draw in enumerate(draws(number, MORE_FRAMES.get(name, FRAMES))):
        variables = dict(init(jax.random.key(key), draw["inputs"]))
        random = np.random.default_rng(key)
        # Biases and gains that are not all alike, as after some training.
        params = jax.tree.map(
            lambda x, random=random: (
                x + 0.05 * random.normal(size=x.shape).astype(x.dtype)
            ),
            variables.pop("params"),
        )
        total.append([_norms(f(params, draw, variables)) for f in functions])
    have, wanted = np.sqrt(np.mean(np.square(total), axis=0))
    paths = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]
    ]
    shares = wanted / np.sqrt(np.sum(np.square(wanted)))
    known = zip(paths, shares, have / wanted, strict=True)
    return [
        Leaf(path, float(share), float(ratio))
        for path, share, ratio in known
        if share >= LEAST_SHARE
    ]


def _norms(tree):
    return [float(jnp.linalg.norm(x.ravel())) for x in jax.tree.leaves(tree)]


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description="Norms of gradients in narrow types.")
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float16"))
    parser.add_argument("--draws", type=int, default=16)
    parser.add_argument("--leaves", action="store_true", help="those beyond 3 %%, too")
    parser.add_argument("--exact", action="store_true", help="not with float32")
    parser.add_argument("--smooth", action="store_true", help="without ReLU and max")
    args = parser.parse_args()
    print("| model | gradients | largest difference | > 3 % |\n| --- |" + " ---: |" * 3)
    for name in args.models:
        with without_jumps() if args.smooth else contextlib.nullcontext():
            leaves = compare(name, args.dtype, args.draws, args.exact)
        away = [abs(leaf.ratio - 1) for leaf in leaves]
        beyond = [leaf for leaf in leaves if abs(leaf.ratio - 1) > TOLERANCE]
        print(f"| {name} | {len(leaves)} | {max(away):.1%} | {len(beyond)} |")
        print("".join(f"    {x}\n" for x in beyond * args.leaves), end="", flush=True)


if __name__ == "__main__":
    main()
