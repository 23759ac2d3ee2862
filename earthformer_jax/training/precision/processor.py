"""Whether a processor computes in a type itself, or in float32 with conversions."""

import pathlib
from typing import Any

from earthformer_jax.training.precision.policy import BFLOAT16, FLOAT16, FLOAT32

_CPUINFO = pathlib.Path("/proc/cpuinfo")
# Names that Linux has for the instructions, of x86 and of ARM processors.
_INSTRUCTIONS = {
    BFLOAT16: {"avx512_bf16", "amx_bf16", "bf16"},
    FLOAT16: {"avx512_fp16", "amx_fp16", "asimdhp"},
}
_AMPERE = 8.0  # compute capability of the first GPUs with bfloat16


def lacks(compute: str, device: Any, cpuinfo: pathlib.Path = _CPUINFO) -> bool:
    """Whether a device is known to have no instructions for a type.

    Args:
        compute: `precision.compute`.
        device: of JAX.
        cpuinfo: where Linux describes the processor.
    """
    if compute == FLOAT32:
        return False
    if device.platform == "cpu":
        found = _flags(cpuinfo)
        return bool(found) and _INSTRUCTIONS[compute].isdisjoint(found)
    if device.platform == "tpu":
        return compute == FLOAT16
    capability = getattr(device, "compute_capability", None)
    if compute == FLOAT16 or capability is None:
        return False
    return float(capability) < _AMPERE


def advice(compute: str, device: str, platform: str) -> str:
    """What to say of a device that lacks a type.

    Args:
        compute: `precision.compute`.
        device: its name.
        platform: "cpu", "gpu" or "tpu".
    """
    other = {"gpu": FLOAT16, "tpu": BFLOAT16}.get(platform, FLOAT32)
    return (
        f"{device} has no instructions for config.precision.compute={compute}, which "
        "is computed in float32 there, with conversions before and after; use "
        f"config.precision.compute={other}"
    )


def remarks(
    compute: str, device: Any, name: str, cpuinfo: pathlib.Path = _CPUINFO
) -> list[str]:
    """What to say of a type on the device at hand: one sentence, or none.

    It is advice, not an error: with a narrow type that is slow, a program still
    computes what it would on a device that is fast with it.

    Args:
        compute: `precision.compute`.
        device: of JAX.
        name: of the device, for readers.
        cpuinfo: where Linux describes the processor.
    """
    if lacks(compute, device, cpuinfo):
        return [advice(compute, name, device.platform)]
    if device.platform != "cpu" or compute != BFLOAT16:
        return []
    native = sorted(_INSTRUCTIONS[compute] & _flags(cpuinfo))
    if not native:
        return []
    return [
        f"{name} multiplies {compute} itself ({', '.join(native)}), but where this was "
        "measured (docs/precision.md) steps took 4 to 17 % longer than in "
        f"{FLOAT32}; use config.precision.compute={FLOAT32}"
    ]


def _flags(cpuinfo: pathlib.Path) -> set[str]:
    """What a processor can do; empty where Linux does not say."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return set()
    for line in lines:
        name, _, values = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return set(values.split())
    return set()
