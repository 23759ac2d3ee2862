"""What a compiled program for CPUs needs beyond the memory that its compiler plans.

XLA gives convolutions to a library (YNNPACK), which copies what it convolves, with the
margins, and the filter; of a gradient with respect to a filter these are a whole batch
of inputs and of gradients. The compiler's plan does not count these copies.
"""

import math
import re

from earthformer_jax.profiling.operations import bytes_of_type, computations

_DEFINED = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (\w+)\[([\d,]*)\]")
_CONVOLUTION = re.compile(
    r" convolution\(%?([\w.-]+), %?([\w.-]+)\).*?window=\{(.*?)\}.*?dim_labels=(\w+)_"
)
_MARGINS = re.compile(r"pad=(\S+)")
_GIVEN_AWAY = re.compile(r'calls=%?([\w.-]+),.*"kind":"__ynn_fusion"')


def largest_convolution(text: str) -> int:
    """Bytes that the convolution with the largest copies copies; 0 without any.

    Args:
        text: of the compiled program, `jax.jit(f).lower(...).compile().as_text()`.
    """
    _, bodies = computations(text.splitlines())
    copied = (_copied(bodies.get(name, [])) for name in _GIVEN_AWAY.findall(text))
    return max(copied, default=0)


def _copied(lines: list[str]) -> int:
    """Bytes that the convolutions of one computation copy."""
    arrays, total = {}, 0
    for line in lines:
        if found := _DEFINED.match(line):
            shape = [int(n) for n in found[3].split(",") if n]
            arrays[found[1]] = bytes_of_type(found[2]), shape
        if found := _CONVOLUTION.search(line):
            (width, field), (other, kernel) = arrays[found[1]], arrays[found[2]]
            field = _with_margins(field, found[4], found[3])
            total += width * math.prod(field) + other * math.prod(kernel)
    return total


def _with_margins(shape: list[int], labels: str, window: str) -> list[int]:
    """The shape of a field, and the margins of a window such as "size=3x3 pad=1_1x1_1".

    Args:
        shape: of the field.
        labels: of its axes, "b01f": those of the window are numbers.
        window: as XLA prints it.
    """
    wide = list(shape)
    if margins := _MARGINS.search(window):
        for axis, margin in enumerate(margins[1].split("x")):
            wide[labels.index(str(axis))] += sum(map(int, margin.split("_")))
    return wide
