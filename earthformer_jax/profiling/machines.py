"""Machines by name: the memory and the speed that their makers state.

Numbers are of one device as JAX counts them: one GPU, or one TPU chip. Rates are of
dense products (makers also print twice as much, for matrices with half of their values
zero). In float32, XLA multiplies with fewer digits where a device is made for it: in
TF32 on GPUs from Ampere on, and in one pass of bfloat16 on TPUs. The rates of float32
here are those.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from earthformer_jax.settings import ConfigError, nearest

GIB, GB, TERA = 2.0**30, 1e9, 1e12
GPU, TPU, CPU = "GPU", "TPU", "CPU"
# Of a GPU's memory, what JAX takes when it starts (XLA_PYTHON_CLIENT_MEM_FRACTION).
GPU_SHARE = 0.75
MOST_DEVICES = 4096  # that a plan simulates


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of device.

    Attributes:
        name: as written in `--plan_devices`.
        platform: "GPU", "TPU" or "CPU".
        memory: bytes of a device; None: that of the machine at hand.
        rates: multiplications and additions a second, by the type of the arithmetic;
            empty: unknown.
        bandwidth: bytes a second between a device and its memory; None: unknown.
        link: bytes a second that a device sends to others of its machine (GPU) or its
            slice (TPU), and receives at the same time; None: unknown.
    """

    name: str
    platform: str
    memory: float | None = None
    rates: Mapping[str, float] = dataclasses.field(default_factory=dict)
    bandwidth: float | None = None
    link: float | None = None

    @property
    def usable(self) -> float | None:
        """Bytes that a program can have, as JAX is started by default."""
        if self.memory is None:
            return None
        return self.memory * (GPU_SHARE if self.platform == GPU else 1)

    def rate(self, dtype: Any) -> float | None:
        """Multiplications and additions a second in a type, None if unknown."""
        return self.rates.get(str(dtype) or "float32")


def _gpu(name, memory, bfloat16, float32, bandwidth, link, float16=None) -> Kind:
    rates = {"float32": float32 * TERA, "float16": (float16 or bfloat16) * TERA}
    if bfloat16 is not None:
        rates["bfloat16"] = bfloat16 * TERA
    return Kind(name, GPU, memory * GB, rates, bandwidth * GB, link * GB)


def _tpu(name, memory, bfloat16, bandwidth, link) -> Kind:
    rates = {"float32": bfloat16 * TERA, "bfloat16": bfloat16 * TERA}
    return Kind(name, TPU, memory * GIB, rates, bandwidth * GB, link * GB)


# GPUs: GB; bfloat16 (also of float16) and float32 in 10^12 a second; GB/s of memory and
# of links (half of what is stated for NVLink and PCIe, which is the sum of both
# directions).
# TPUs: GiB; bfloat16; GB/s of memory and of links (half of what is stated).
KINDS = {
    kind.name: kind
    for kind in (
        # NVIDIA V100 datasheet, SXM2: no bfloat16, float32 without tensor cores.
        _gpu("V100-16GB", 16, None, 15.7, 900, 150, float16=125),
        _gpu("V100-32GB", 32, None, 15.7, 900, 150, float16=125),
        # NVIDIA A100 datasheet, SXM: 312 bfloat16, 156 TF32, NVLink 600.
        _gpu("A100-40GB", 40, 312, 156, 1555, 300),
        _gpu("A100-80GB", 80, 312, 156, 2039, 300),
        # NVIDIA A10 and L4 and L40S datasheets; PCIe 4.0 x16.
        _gpu("A10", 24, 125, 62.5, 600, 32),
        _gpu("L4", 24, 121, 60, 300, 32),
        _gpu("L40S", 48, 362, 183, 864, 32),
        # NVIDIA H100 datasheet, SXM5: 989 bfloat16, 495 TF32, NVLink 900.
        _gpu("H100", 80, 989, 495, 3350, 450),
        # NVIDIA H200 datasheet, SXM.
        _gpu("H200", 141, 989, 495, 4800, 450),
        # NVIDIA DGX B200 datasheet: 8 of them have 1440 GB, 64 TB/s; NVLink 1800.
        _gpu("B200", 180, 2250, 1125, 8000, 900),
        # cloud.google.com/tpu/docs/v4, /v5e, /v5p, /v6e: "key chip specifications".
        _tpu("v4", 32, 275, 1200, 150),
        _tpu("v5e", 16, 197, 819, 200),
        _tpu("v5p", 95, 459, 2765, 600),
        _tpu("v6e", 32, 918, 1638, 400),
        # Of the machine at hand, whose speed has to be measured.
        Kind("CPU", CPU),
    )
}
_SHORT = {"A100": "A100-40GB", "V100": "V100-16GB", "v5litepod": "v5e"}
# A number after these counts cores, of which a chip has two.
_CORES = {"v4": 2, "v5p": 2}
# What `device_kind` of JAX says beyond the names above.
_DEVICE_KINDS = {
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
}


@dataclasses.dataclass(frozen=True)
class Machine:
    """Devices of one kind.

    Attributes:
        kind: of every device.
        hosts: machines that hold them.
        per_host: devices of each.
    """

    kind: Kind
    hosts: int
    per_host: int

    @property
    def count(self) -> int:
        """All devices."""
        return self.hosts * self.per_host

    def __str__(self) -> str:
        hosts = f"{self.hosts} hosts x " if self.hosts > 1 else ""
        return f"{hosts}{self.per_host} x {self.kind.name}"


def parse(text: str) -> Machine:
    """The machine that a text describes.

    Args:
        text: "H100", "8xH100", "2x4xA100-80GB" (two hosts with four each), "4xCPU", or
            a TPU slice by its usual name: "v5e-8".

    Raises:
        ConfigError: if there is no such device, with those that there are.
    """
    what = f"--plan_devices={text}"
    form = re.fullmatch(r"(?:(\d+)x)?(?:(\d+)x)?([A-Za-z][\w-]*)", text.strip())
    if form is None:
        raise ConfigError(
            f"{what}: expected a number and a kind of device, as in 8xH100, "
            f"2x4xA100-80GB (two hosts), v5e-8 or 4xCPU; {_known()}"
        )
    name, (first, second) = form[3], (int(x) if x else None for x in form.groups()[:2])
    hosts, per_host = (first, second) if second is not None else (1, first)
    kind = _kind(name)
    tpu = re.fullmatch(r"(v\w+)-(\d+)", name)
    if kind is None and tpu and (kind := _kind(tpu[1])) is not None:
        cores = _CORES.get(kind.name, 1)
        if int(tpu[2]) % cores:
            raise ConfigError(
                f"{what}: the number counts cores, of which a chip has {cores}; "
                f"expected a multiple of {cores}"
            )
        per_host = int(tpu[2]) // cores * (1 if per_host is None else per_host)
    if kind is None:
        near = nearest(name, [*KINDS, *_SHORT]).replace("`", "")
        raise ConfigError(f"{what}: {name!r} is unknown{near}; {_known()}")
    machine = Machine(kind, hosts or 0, 1 if per_host is None else per_host)
    if not 1 <= machine.count <= MOST_DEVICES:
        raise ConfigError(
            f"{what} has {machine.count} devices; expected from 1 to {MOST_DEVICES}"
        )
    return machine


def _kind(name: str) -> Kind | None:
    names = {known.lower(): known for known in [*KINDS, *_SHORT]}
    found = names.get(name.lower())
    return None if found is None else KINDS[_SHORT.get(found, found)]


def _known() -> str:
    return f"known are {', '.join(KINDS)}"


def of_device(device_kind: str, memory: float | None = None) -> Kind | None:
    """The kind of a device at hand, None if the table does not have it.

    Args:
        device_kind: as JAX names it: "NVIDIA H100 80GB HBM3", "TPU v5 lite".
        memory: bytes that a program can have, where several kinds share a name.
    """
    if device_kind in _DEVICE_KINDS:
        return KINDS[_DEVICE_KINDS[device_kind]]
    words = re.split(r"[\s-]+", device_kind)
    same = [k for k in KINDS.values() if k.name.partition("-")[0] in words]
    same = [k for k in same if k.platform == GPU]
    if not same or memory is None:
        return same[0] if same else None
    return min(same, key=lambda kind: abs((kind.usable or 0) - memory))
