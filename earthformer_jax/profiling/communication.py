"""What the devices of a compiled program tell each other, read from its text.

Text is that of `jax.jit(f).lower(...).compile().as_text()`: XLA's program for each one
of the devices, after the partitioner has put the collectives in.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator

from earthformer_jax.profiling.operations import (
    arrays_of,
    bytes_of,
    computations,
    runs,
)

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)
_COLLECTIVE = re.compile(rf" = (.*?) ({'|'.join(KINDS)})(-start)?\(")
_GROUPS = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_IOTA = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=")


@dataclasses.dataclass(frozen=True)
class Collective:
    """An exchange among devices.

    Attributes:
        kind: one of `KINDS`.
        bytes: of its result on one device.
        group: devices that take part in each exchange.
        times: how often it happens in a call of the program; a loop whose number of
            rounds the compiler does not know counts once.
        shapes: of the arrays of its result.
    """

    kind: str
    bytes: int
    group: int
    times: int
    shapes: tuple[tuple[int, ...], ...]

    @property
    def sent(self) -> float:
        """Bytes that a device sends in a call of the program, in a ring."""
        return self.times * sent_in_ring(self.kind, self.bytes, self.group)


def sent_in_ring(kind: str, size: float, devices: int) -> float:
    """Bytes that each device sends if the devices form a ring.

    No algorithm sends less in an all-reduce, an all-gather or a reduce-scatter.

    Args:
        kind: one of `KINDS`.
        size: bytes of the result on one device.
        devices: that take part.
    """
    n = devices
    shares = {
        "all-reduce": 2 * (n - 1) / n,
        "all-gather": (n - 1) / n,
        "reduce-scatter": n - 1,
        "all-to-all": (n - 1) / n,
        "collective-permute": 1 if n > 1 else 0,
    }
    return size * shares[kind]


def collectives(text: str, devices: int) -> list[Collective]:
    """All collectives of a compiled program, in the order of its text.

    Args:
        text: of the compiled program.
        devices: of the program; they are in one group where the text names none.
    """
    entry, bodies = computations(text.splitlines())
    times = runs(entry, bodies)
    return [
        found
        for name, lines in bodies.items()
        if times.get(name)
        for found in _of(lines, times[name], devices)
    ]


def total(found: Iterable[Collective]) -> dict[str, dict[str, float]]:
    """By kind: "count" of exchanges, "bytes" of results and bytes "sent", per call."""
    sums: dict[str, dict[str, float]] = {}
    for one in found:
        row = sums.setdefault(one.kind, {"count": 0, "bytes": 0, "sent": 0.0})
        row["count"] += one.times
        row["bytes"] += one.times * one.bytes
        row["sent"] += one.sent
    return sums


def _of(lines: Iterable[str], times: int, devices: int) -> Iterator[Collective]:
    for line in lines:
        if not (match := _COLLECTIVE.search(line)):
            continue
        arrays = arrays_of(match[1])
        if match[3] and match[2] != "all-reduce":  # (operands, results, counters)
            arrays = [a for a in arrays if a != ("u32", ())]
            arrays = arrays[len(arrays) // 2 :]
        shapes = tuple(shape for _, shape in arrays)
        group = _group(line) or devices
        yield Collective(match[2], bytes_of(arrays), group, times, shapes)


def _group(line: str) -> int | None:
    if groups := _GROUPS.search(line):
        return len(groups[1].split(",")) if groups[1] else None
    if iota := _IOTA.search(line):
        return int(iota[2])
    return None
