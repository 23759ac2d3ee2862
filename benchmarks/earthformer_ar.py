r"""The time of each generated frame of the auto-regressive Earthformer.

    python benchmarks/earthformer_ar.py
    python benchmarks/earthformer_ar.py --frames 20 --plane 16 16 --batch 4 --units 64

On JAX's default device, with random weights and no VQ-VAE: frames of codes are
generated one after the other, each by one call of one compiled program. The first frame
and the last one take turns, so that both meet the same load; the median of their ratios
should be within 10 % of 1. Then all frames at once, as a forecast does.
"""

import argparse
import pathlib
import statistics
import sys
import time

sys.path[0] = str(pathlib.Path(__file__).parents[1])

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

from benchmarks import machine  # noqa: E402
from earthformer_jax.models import create_model  # noqa: E402

FACTOR = 4  # of the VQ-VAE, whose convolutions are not part of what is measured


def timed(function, *arguments) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - start


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Seconds: medians "first", "last" and "all", and "ratio" of last to first."""
    h, w = options.plane
    shape = (options.frames, FACTOR * h, FACTOR * w, 1)
    model = create_model(
        "earthformer_ar",
        shape,
        shape,
        base_units=options.units,
        codebook_size=options.codes,
        dec_self_pattern=options.pattern,
        factor=FACTOR,
    )
    network = model.code_forecaster()
    keys = jax.random.split(jax.random.key(0), 2)
    codes = jax.random.randint(
        keys[0], (options.batch, options.frames, h, w), 0, options.codes
    )
    variables = jax.jit(network.init)(keys[1], codes, codes)
    encode = jax.jit(lambda v, c: network.apply(v, c, method="generator").variables)

    @jax.jit
    def everything(variables, codes):
        return network.apply(variables, codes, method="generator")()[0]

    generator = network.apply(variables, codes, method="generator")
    parts = encode(variables, codes)

    @jax.jit
    def frame(parts, state, number):
        step = generator._replace(variables=parts)
        state, (new, _) = step.frame(state, number, None)
        return state, new

    states = [generator.start()]
    for number in range(options.frames):
        states.append(frame(parts, states[-1], jnp.int32(number))[0])
    ends = [(states[0], jnp.int32(0)), (states[-2], jnp.int32(options.frames - 1))]
    pairs = [
        tuple(timed(frame, parts, *end) for end in ends) for _ in range(options.rounds)
    ]
    everything(variables, codes).block_until_ready()
    whole = [timed(everything, variables, codes) for _ in range(5)]
    first, last = zip(*pairs, strict=True)
    return dict(
        first=statistics.median(first),
        last=statistics.median(last),
        ratio=statistics.median(b / a for a, b in pairs),
        all=statistics.median(whole),
    )


def main(argv: list[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=10)
    parser.add_argument("--plane", type=int, nargs=2, default=(8, 8))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--units", type=int, default=32)
    parser.add_argument("--codes", type=int, default=64)
    parser.add_argument("--pattern", default="divided_st,full")
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args(argv)
    found = measure(options)
    print(f"{machine.describe()['processor']}, {machine.cores()} cores")
    print(f"first frame {1e3 * found['first']:.1f} ms")
    print(f"frame {options.frames} {1e3 * found['last']:.1f} ms")
    print(f"ratio, median of pairs {found['ratio']:.3f}")
    print(f"all {options.frames} frames {1e3 * found['all']:.0f} ms")


if __name__ == "__main__":
    main()
