"""Random changes of training examples: flips, quarter turns and crops."""

import dataclasses

import numpy as np

from earthformer_jax.data.source import Example

# What has rows and columns.
FIELDS = ("inputs", "targets", "observed", "inputs_observed")
_H, _W = 1, 2


@dataclasses.dataclass(frozen=True)
class Augment:
    """A random change of an example, the same for all of its fields and frames.

    Attributes:
        flip_height: reverse the rows in half of the examples.
        flip_width: reverse the columns in half of the examples.
        rotate: turn by 0, 90, 180 or 270 degrees; requires square fields.
        crop: rows and columns to cut out at a random place; () for all.
    """

    flip_height: bool = False
    flip_width: bool = False
    rotate: bool = False
    crop: tuple[int, int] | tuple[()] = ()

    def __call__(self, example: Example, generator: np.random.Generator) -> Example:
        """The changed example; fields are those of `FIELDS`, `[t, h, w, c]`."""
        height, width = example["inputs"].shape[_H : _W + 1]
        if self.crop:
            check_crop((height, width), self.crop)
            top = int(generator.integers(height - self.crop[0] + 1))
            left = int(generator.integers(width - self.crop[1] + 1))
            example = _cut(example, top, left, self.crop)
            height, width = self.crop
        if self.rotate:
            if height != width:
                raise ValueError(
                    f"fields of {height} x {width} cannot be turned by 90 degrees; "
                    "flip them, or crop a square"
                )
            turns = int(generator.integers(4))
            example = _on_fields(example, lambda x: np.rot90(x, turns, (_H, _W)))
        for flips, axis in ((self.flip_height, _H), (self.flip_width, _W)):
            if flips and generator.integers(2):
                example = _on_fields(example, lambda x, axis=axis: np.flip(x, axis))
        return _on_fields(example, np.ascontiguousarray)


def center_crop(example: Example, crop: tuple[int, int]) -> Example:
    """The middle `[crop]` rows and columns of every field of an example."""
    height, width = example["inputs"].shape[_H : _W + 1]
    check_crop((height, width), crop)
    return _cut(example, (height - crop[0]) // 2, (width - crop[1]) // 2, crop)


def check_crop(size: tuple[int, int], crop: tuple[int, ...]) -> None:
    """Rejects a crop that does not fit into the field.

    Raises:
        ValueError: if it does not; the message gives both sizes.
    """
    if len(crop) != 2 or not all(1 <= c <= s for c, s in zip(crop, size, strict=False)):
        raise ValueError(
            f"crop={tuple(crop)}: expected rows and columns of at least 1 "
            f"and at most {size}, the size of the fields, or () for all of them"
        )


def _cut(example: Example, top: int, left: int, crop: tuple[int, int]) -> Example:
    rows, columns = slice(top, top + crop[0]), slice(left, left + crop[1])
    return _on_fields(example, lambda x: x[:, rows, columns])


def _on_fields(example: Example, change) -> Example:
    return {
        name: change(value) if name in FIELDS else value
        for name, value in example.items()
    }
