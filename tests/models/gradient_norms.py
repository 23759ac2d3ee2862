"""Norms of gradients in bfloat16 or float16 as parts of those in float32.

python -m tests.models.gradient_norms [--dtype=float16] [--draws=16] [MODEL ...]

prints the table of docs/precision.md: for every model the parameters that have a
gradient, and how many of their gradients have a norm that is more than 3 % from that in
float32. Norms are root mean squares over several draws of weights and examples: where a
ReLU or the maximum of a window is about to switch, a gradient jumps, in any precision.
To tell such jumps from lost sums, the last columns show the same for float32, with
weights and inputs that were rounded to bfloat16 or float16.
"""

import argparse
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax import models
from earthformer_jax.models.contract import uses_targets
from tests.models.test_forward_mode import quickly_compiled

FRAMES, SIDE, BATCH = 3, 16, 8
TOLERANCE = 0.03
# A smaller part of the whole gradient is rounding: a bias in front of a norm has none.
LEAST_SHARE = 1e-6
SCALE = 2.0**12  # of the loss: without one, gradients in float16 underflow

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
    "rainformer": dict(features=16, factors=(2,), heads=(2,), head_dim=8, window=4),
    "conv_autoencoder": dict(
        features=16, embedding=16, plane_features=8, hidden=16, heads=2, harmonics=2
    ),
    "vq_vae": dict(factor=2, codebook_size=16, code_width=4, features=16, blocks=1),
}


@dataclasses.dataclass(frozen=True)
class Leaf:
    """Norms of the gradient of one array of parameters, relative to float32.

    Attributes:
        path: of the array.
        share: its norm in float32, as a part of that of the whole gradient.
        low: in the narrow type.
        rounded: in float32, with weights and inputs rounded to that type.
    """

    path: str
    share: float
    low: float
    rounded: float


def gradient_of(name: str, dtype: str, draw: dict, **options):
    """A compiled function of (parameters, draw), scaled by `SCALE`."""
    shape = (FRAMES, SIDE, SIDE, 1)
    model = models.create_model(name, shape, shape, dtype=dtype, **options)
    variables = jax.eval_shape(model.init, jax.random.key(0), draw["inputs"])

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

    return model, variables, quickly_compiled(jax.grad(loss))


@functools.cache
def draws(number: int) -> tuple[dict, ...]:
    """Examples of noise that is blurred in the plane and drifts in time."""
    random, found = np.random.default_rng(0), []
    wave = np.fft.fftfreq(SIDE) * SIDE
    blur = np.exp(-0.02 * (wave[:, None] ** 2 + wave**2))
    for _ in range(number):
        noise = random.normal(size=(BATCH, 2 * FRAMES, SIDE, SIDE)).cumsum(1)
        field = np.fft.ifft2(np.fft.fft2(noise) * blur).real
        field = (field / field.std())[..., None].astype(np.float32)
        found.append(dict(inputs=field[:, :FRAMES], targets=field[:, FRAMES:]))
    return tuple(found)


def compare(name: str, dtype: str = "bfloat16", number: int = 16) -> list[Leaf]:
    """The norms of all parameters of a model that have a gradient."""
    examples, options = draws(number), MODELS[name]
    model, _, wide = gradient_of(name, "float32", examples[0], **options)
    _, _, low = gradient_of(name, dtype, examples[0], **options)
    init = quickly_compiled(model.init)
    total = []
    for key, draw in enumerate(examples):
        variables = dict(init(jax.random.key(key), draw["inputs"]))
        random = np.random.default_rng(key)
        # Biases and gains that are not all alike, as after some training.
        params = jax.tree.map(
            lambda x, random=random: (
                x + 0.05 * random.normal(size=x.shape).astype(x.dtype)
            ),
            variables.pop("params"),
        )
        rounded = jax.tree.map(
            lambda x: x.astype(dtype).astype(x.dtype), (params, draw)
        )
        arguments = (params, draw), (params, draw), rounded
        gradients = [
            function(*own, variables)
            for function, own in zip((wide, low, wide), arguments, strict=True)
        ]
        total.append([_norms(x) for x in gradients])
    wanted, have, control = np.sqrt(np.mean(np.square(total), axis=0))
    paths = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]
    ]
    shares = wanted / np.sqrt(np.sum(np.square(wanted)))
    known = zip(paths, shares, have, control, wanted, strict=True)
    return [
        Leaf(path, float(share), float(a / b), float(c / b))
        for path, share, a, c, b in known
        if share >= LEAST_SHARE
    ]


def _norms(tree):
    return [float(jnp.linalg.norm(x.ravel())) for x in jax.tree.leaves(tree)]


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float16"))
    parser.add_argument("--draws", type=int, default=16)
    parser.add_argument("--leaves", action="store_true", help="those beyond 3 %%, too")
    args = parser.parse_args()
    head = "model", "gradients", args.dtype, "> 3 %", "rounded float32", "> 3 %"
    print(f"| {' | '.join(head)} |\n| --- |{' ---: |' * (len(head) - 1)}")
    for name in args.models:
        leaves, columns = compare(name, args.dtype, args.draws), []
        for kind in ("low", "rounded"):
            away = [abs(getattr(leaf, kind) - 1) for leaf in leaves]
            columns += [f"{max(away):.1%}", str(sum(x > TOLERANCE for x in away))]
        print(f"| {name} | {len(leaves)} | {' | '.join(columns)} |", flush=True)
        for leaf in leaves if args.leaves else ():
            if abs(leaf.low - 1) > TOLERANCE:
                print(f"    {leaf}")


if __name__ == "__main__":
    main()
