"""Attention inside cuboids by whatever is fastest for their shape, found by measuring.

On a GPU it depends on the lengths, the width and the type which of the ways of
`ops.attention.IMPLEMENTATIONS` is fastest. The first time that a shape is met, while a
program is traced, all that can compute it are run with numbers of that shape. The
choice is kept beside the compiled programs (`jax_compilation_cache_dir`, if there is
one), so that the same machine makes the same choice in every run.
"""

import dataclasses
import functools
import json
import logging
import os
import pathlib
import statistics
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.ops import attention

ROUNDS, CALLS = 5, 4  # of timing; calls in a round
FILE = "attention.json"

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Call:
    """What a choice depends on.

    Attributes:
        query: (b, n, a, q, e): examples on one device, cuboids, heads, queries, width.
        keys: per cuboid.
        width: of the values.
        dtype: name of the type of queries, keys and values.
        with_bias: whether a bias is added to the scores.
        masked: whether there is a mask.
        dropped: whether attention weights are dropped.
    """

    query: tuple[int, int, int, int, int]
    keys: int
    width: int
    dtype: str
    with_bias: bool
    masked: bool
    dropped: bool


def fastest_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: jax.Array | None = None,
    mask: np.ndarray | None = None,
    dropout_rate: float = 0.0,
    seed: jax.Array | None = None,
) -> jax.Array:
    """What `ops.softmax_attention` computes, with its arguments, by the fastest way."""
    b, *lengths = query.shape
    devices = jax.device_count()
    call = Call(
        query=(b // devices if b % devices == 0 else b, *lengths),
        keys=key.shape[-2],
        width=value.shape[-1],
        dtype=value.dtype.name,
        with_bias=bias is not None,
        masked=mask is not None,
        dropped=seed is not None and dropout_rate > 0,
    )
    return attention.implementation_of(fastest(call))(
        query, key, value, bias, mask, dropout_rate, seed
    )


def ways(call: Call, platform: str, devices: int, processes: int) -> list[str]:
    """Names of what is worth measuring; the first one can always be used.

    Several processes have to run the same program, and a compiler that splits arrays
    over devices does not look into Pallas's kernels.
    """
    found = ["xla"]
    if platform != "gpu" or processes > 1:
        return found
    if not call.dropped:
        found.append("library")
        if call.dtype in ("bfloat16", "float16"):
            found.append("cudnn")
    return found + ["pallas"] * (devices == 1)


@functools.cache
def fastest(call: Call) -> str:
    """Name of the way that takes the least time for a value and its gradient."""
    names = ways(call, jax.default_backend(), jax.device_count(), jax.process_count())
    if len(names) == 1:
        return names[0]
    folder = jax.config.jax_compilation_cache_dir
    file = pathlib.Path(folder, FILE) if folder else None
    kind = jax.devices()[0].device_kind
    entry = f"{kind}, jax {jax.__version__}, {dataclasses.astuple(call)}"
    known = _read(file)
    if known.get(entry) in names:
        return known[entry]
    times = measure(call, names)
    chosen = min(times, key=times.get) if times else names[0]
    listed = ", ".join(f"{name} {1e3 * t:.3f} ms" for name, t in times.items())
    logger.info("attention %s: %s, of %s", call.query, chosen, listed)
    # Read once more: another process may have chosen meanwhile.
    _write(file, _read(file) | {entry: chosen})
    return chosen


def measure(call: Call, names: Sequence[str]) -> dict[str, float]:
    """Median seconds of a value and its gradient, of those that can compute it."""
    times, programs = {}, {}
    # May be called while a program is traced; nothing here is to become part of it.
    with jax.ensure_compile_time_eval():
        arrays = _numbers(call)
        for name in names:
            run = functools.partial(_loss, name=name, call=call)
            try:
                program = jax.jit(jax.value_and_grad(run)).lower(arrays).compile()
                jax.block_until_ready(program(arrays))
            except Exception as error:  # of many kinds; each is a reason not to use it
                logger.debug("attention by %s: %s", name, error)
                continue
            programs[name], times[name] = program, []
        for _ in range(ROUNDS):
            for name, program in programs.items():
                start = time.perf_counter()
                for _ in range(CALLS):
                    out = program(arrays)
                jax.block_until_ready(out)
                times[name].append((time.perf_counter() - start) / CALLS)
    return {name: statistics.median(found) for name, found in times.items()}


def _numbers(call):
    """Arrays of the call's shapes, on one device."""
    random = np.random.default_rng(0)
    *cuboids, q, e = call.query

    def normal(*shape):
        return random.normal(size=shape).astype(np.float32)

    arrays = dict(
        query=normal(*cuboids, q, e) * e**-0.5,
        key=normal(*cuboids, call.keys, e),
        value=normal(*cuboids, call.keys, call.width),
    )
    arrays = {name: x.astype(jnp.dtype(call.dtype)) for name, x in arrays.items()}
    if call.with_bias:
        arrays["bias"] = normal(cuboids[-1], q, call.keys)
    return jax.device_put(arrays, jax.local_devices()[0])


def _loss(arrays, *, name, call):
    """A number whose gradient takes all that the gradient of attention takes."""
    more = {}
    if call.masked:
        more["mask"] = np.tri(call.query[3], call.keys, dtype=bool)[None].repeat(
            call.query[1], axis=0
        )
    if call.dropped:
        more |= dict(dropout_rate=0.1, seed=jnp.asarray([1, 2], jnp.uint32))
    out = attention.implementation_of(name)(**arrays, **more)
    return jnp.mean(jnp.square(out.astype(jnp.float32)))


def _read(file):
    """Earlier choices; none if they cannot be read."""
    try:
        known = json.loads(file.read_text()) if file else {}
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write(file, choices):
    """Keeps choices, whole or not at all; a folder that is read-only is no error."""
    if not file:
        return
    part = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        part.write_text(json.dumps(choices, indent=1) + "\n")
        part.replace(file)
    except OSError as error:
        logger.debug("choices of attention are not kept: %s", error)
