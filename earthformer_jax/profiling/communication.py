"""What the devices of a compiled program tell each other, read from its text.

Text is that of `jax.jit(f).lower(...).compile().as_text()`: XLA's program for each one
of the devices, after the partitioner has put the collectives in.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Mapping

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)
# "f32[8,128]{1,0}": type, shape.
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{\s*$")
_COLLECTIVE = re.compile(rf" = (.*?) ({'|'.join(KINDS)})(-start)?\(")
_WHILE = re.compile(r" while\(.*?body=%?([\w.-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CALLED = re.compile(r"(?:calls|to_apply|\w+_computation)=%?([\w.-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
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
    times = _times(entry, bodies)
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


def computations(lines: Iterable[str]) -> tuple[str, dict[str, list[str]]]:
    """The name of the entry, and the lines of every computation."""
    entry, name, found = "", "", {}
    for line in lines:
        if start := _COMPUTATION.match(line):
            name = start[2]
            found[name] = []
            entry = name if start[1] else entry
        elif line.startswith("}"):
            name = ""
        elif name:
            found[name].append(line)
    return entry, found


def _times(entry: str, computations: Mapping[str, list[str]]) -> dict[str, int]:
    """How often each computation runs in a call of the program."""
    times: dict[str, int] = {}

    def visit(name: str, count: int) -> None:
        times[name] = times.get(name, 0) + count
        for line in computations.get(name, ()):
            for called, rounds in _calls(line):
                visit(called, count * rounds)

    if entry:
        visit(entry, 1)
    return times


def _calls(line: str) -> Iterator[tuple[str, int]]:
    if loop := _WHILE.search(line):
        rounds = _TRIPS.search(line)
        yield loop[1], int(rounds[1]) if rounds else 1
        return
    if branches := _BRANCHES.search(line):
        for name in branches[1].split(","):
            yield name.strip().lstrip("%"), 1
    for name in _CALLED.findall(line):
        yield name, 1


def _of(lines: Iterable[str], times: int, devices: int) -> Iterator[Collective]:
    for line in lines:
        if not (match := _COLLECTIVE.search(line)):
            continue
        arrays = _ARRAY.findall(match[1])
        if match[3] and match[2] != "all-reduce":  # (operands, results, counters)
            arrays = [a for a in arrays if a != ("u32", "")]
            arrays = arrays[len(arrays) // 2 :]
        shapes = [
            tuple(map(int, filter(None, shape.split(",")))) for _, shape in arrays
        ]
        size = sum(
            math.prod(shape) * bytes_of_type(kind)
            for (kind, _), shape in zip(arrays, shapes, strict=True)
        )
        group = _group(line) or devices
        yield Collective(match[2], size, group, times, tuple(shapes))


def _group(line: str) -> int | None:
    if groups := _GROUPS.search(line):
        return len(groups[1].split(",")) if groups[1] else None
    if iota := _IOTA.search(line):
        return int(iota[2])
    return None


def bytes_of_type(kind: str) -> int:
    """Bytes of a value of a type of XLA: "f32" has 4, "pred" 1, "bf16" 2."""
    digits = re.match(r"[a-z]+(\d+)", kind)
    return max(int(digits[1]) // 8, 1) if digits else 1
