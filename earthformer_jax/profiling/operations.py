"""What a compiled program does, operation by operation, read from its text.

    found = operations(jax.jit(f).lower(...).compile().as_text())
    moved(found), [x.product for x in found if x.product]

Time depends on the machine and on what else runs there; how much a program copies, and
the shapes of its products, do not. Text is that of XLA's program for one device, after
its passes, of which those that decide this are the same without optimisation of the
machine code.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Mapping

_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")  # "f32[8,128]{1,0}": type, shape
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{\s*$")
# "%dot.3 = f32[8,128]{1,0} dot(": name, result, kind.
_DEFINED = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (\(?[a-z]\w*\[.*?) ([a-z][\w-]*)\(")
_OPERANDS = re.compile(r"\((?:[^%()]*)%?([\w.-]+), (?:[^%()]*)%?([\w.-]+)\)")
_WHILE = re.compile(r" while\(.*?body=%?([\w.-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CALLED = re.compile(r"(?:calls|to_apply|\w+_computation)=%?([\w.-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_WINDOW = re.compile(r"window=\{size=(\S+?)[ }]")
_LABELS = re.compile(r"dim_labels=\w+_(\w+)->")


@dataclasses.dataclass(frozen=True)
class Product:
    """A product of matrices, or a convolution.

    Attributes:
        batch: matrices on each side; 1 for a convolution.
        rows: of one side, or positions and examples of a convolution's result.
        summed: numbers that are multiplied and added for each result.
        columns: of the other side, or channels of a convolution's result.
        window: sides of a convolution's window; () for a product of matrices.
        along_rows: whether the left matrices lie as they are read, each row in one
            piece. If not, XLA's CPU compiler copies them or reads with gaps.
    """

    batch: int
    rows: int
    summed: int
    columns: int
    window: tuple[int, ...] = ()
    along_rows: bool = True

    @property
    def sides(self) -> tuple[int, tuple[int, ...]]:
        """Batch, and the other three numbers from the smallest to the largest.

        A linear layer and the two products of its gradient have the same sides.
        """
        return self.batch, tuple(sorted((self.rows, self.summed, self.columns)))


@dataclasses.dataclass(frozen=True)
class Operation:
    """One instruction, alone or as a part of a fused one.

    Attributes:
        kind: XLA's name: "copy", "transpose", "dot", "while".
        bytes: of its result.
        times: how often it runs in a call of the program; a loop whose number of
            rounds the compiler does not know counts once.
        product: its shape if it is a product or a convolution.
    """

    kind: str
    bytes: int
    times: int
    product: Product | None = None


def operations(text: str) -> list[Operation]:
    """Everything that a call of a program runs, in the order of its text.

    Args:
        text: of the compiled program.
    """
    entry, bodies = computations(text.splitlines())
    times = runs(entry, bodies)
    return [
        found
        for name, lines in bodies.items()
        if times.get(name)
        for found in _of(lines, times[name])
    ]


def moved(
    found: Iterable[Operation], kinds: Iterable[str] = ("copy", "transpose")
) -> int:
    """Bytes that operations of some kinds write in a call of a program."""
    kinds = tuple(kinds)
    return sum(one.times * one.bytes for one in found if one.kind in kinds)


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


def runs(entry: str, bodies: Mapping[str, list[str]]) -> dict[str, int]:
    """How often each computation runs in a call of the program."""
    times: dict[str, int] = {}

    def visit(name: str, count: int) -> None:
        times[name] = times.get(name, 0) + count
        for line in bodies.get(name, ()):
            for called, rounds in _calls(line):
                visit(called, count * rounds)

    if entry:
        visit(entry, 1)
    return times


def arrays_of(result: str) -> list[tuple[str, tuple[int, ...]]]:
    """Type and shape of each array of a result: "(f32[8,4]{1,0}, s32[])"."""
    return [
        (kind, tuple(int(n) for n in shape.split(",") if n))
        for kind, shape in _ARRAY.findall(result)
    ]


def bytes_of(arrays: Iterable[tuple[str, tuple[int, ...]]]) -> int:
    """Bytes of arrays given by type and shape."""
    return sum(bytes_of_type(kind) * math.prod(shape) for kind, shape in arrays)


def bytes_of_type(kind: str) -> int:
    """Bytes of a value of a type of XLA: "f32" has 4, "pred" 1, "bf16" 2."""
    digits = re.match(r"[a-z]+(\d+)", kind)
    return max(int(digits[1]) // 8, 1) if digits else 1


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


def _of(lines: Iterable[str], times: int) -> Iterator[Operation]:
    shapes: dict[str, tuple[int, ...]] = {}
    for line in lines:
        if not (match := _DEFINED.match(line)):
            continue
        name, result, kind = match.groups()
        arrays = arrays_of(result)
        if len(arrays) == 1:
            shapes[name] = arrays[0][1]
        product = None
        if kind == "dot":
            product = _matrices(line[match.end() - 1 :], shapes)
        elif kind == "convolution":
            product = _convolution(line[match.end() - 1 :], shapes, arrays[0][1])
        yield Operation(kind, bytes_of(arrays), times, product)


def _operands(rest: str, shapes: Mapping) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of both operands of a line, from its first bracket on."""
    left, right = _found(_OPERANDS.match(rest), rest).groups()
    return shapes[left], shapes[right]


def _matrices(rest: str, shapes: Mapping[str, tuple[int, ...]]) -> Product:
    """The shape of a "dot"."""
    left, right = _operands(rest, shapes)
    axes = {kind: _axes(kind, rest) for kind in ("batch", "contracting")}
    batch, summed = (math.prod(left[n] for n in found) for found in axes.values())
    rows, columns = (math.prod(shape) // batch // summed for shape in (left, right))
    last = len(left) - 1 in axes["contracting"]
    return Product(batch, rows, summed, columns, along_rows=last)


def _axes(kind: str, rest: str) -> list[int]:
    """Axes of the left operand that a "dot" has in both, or sums over."""
    match = re.search(rf"lhs_{kind}_dims=\{{([\d,]*)\}}", rest)
    return [int(n) for n in match[1].split(",") if n] if match else []


def _convolution(
    rest: str, shapes: Mapping[str, tuple[int, ...]], result: tuple[int, ...]
) -> Product:
    """The shape of a "convolution"."""
    _, kernel = _operands(rest, shapes)
    labels = _found(_LABELS.search(rest), rest)[1]
    window = _WINDOW.search(rest)
    columns = kernel[labels.index("o")]
    sides = tuple(int(side) for side in window[1].split("x")) if window else ()
    rows, summed = math.prod(result) // columns, math.prod(kernel) // columns
    return Product(1, rows, summed, columns, sides)


def _found(match: re.Match[str] | None, line: str) -> re.Match[str]:
    """A match.

    Raises:
        ValueError: if there is none: XLA prints programs in another way.
    """
    if match is None:
        raise ValueError(f"cannot read this line of a compiled program: {line}")
    return match
