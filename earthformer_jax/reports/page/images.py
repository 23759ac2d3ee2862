"""Figures as data URIs, small enough for a page that is sent by mail."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageSequence

MOST_BYTES = 2_800_000  # of all images of a page; base64 makes 3.7 MB of them
WIDEST = 2000  # pixels; wider figures are scaled down
SHRINK, NARROWEST = 0.8, 480  # what is tried if they are too large together
PALETTE = 256


def encode(paths: Sequence[Path], most: int = MOST_BYTES) -> list[tuple[str, int, int]]:
    """Images as data URIs, with the width and height that they are shown at.

    The largest are scaled down until all of them have at most `most` bytes, but none to
    fewer than `NARROWEST` pixels.

    Args:
        paths: of PNG and GIF files.
        most: bytes of all images.
    """
    widths = [min(_size(path)[0], WIDEST) for path in paths]
    made = [_encoded(p, width) for p, width in zip(paths, widths, strict=True)]
    while sum(map(len, made)) > most:
        order = sorted(range(len(made)), key=lambda i: -len(made[i]))
        largest = next((i for i in order if widths[i] * SHRINK >= NARROWEST), None)
        if largest is None:
            break
        widths[largest] = int(widths[largest] * SHRINK)
        made[largest] = _encoded(paths[largest], widths[largest])
    return [
        (_uri(path, content), *_size(path))
        for path, content in zip(paths, made, strict=True)
    ]


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def _uri(path: Path, content: bytes) -> str:
    kind = path.suffix.lower().lstrip(".")
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _encoded(path: Path, width: int) -> bytes:
    """The file itself if it has this width, or a copy with a palette if smaller."""
    content = path.read_bytes()
    with Image.open(path) as image:
        same = image.width <= width
        if path.suffix.lower() == ".gif":
            return content if same else _small_gif(image, width)
        flat = image.convert("RGB")
        if not same:
            flat = flat.resize(_scaled(image.size, width), Image.Resampling.LANCZOS)
        copy = io.BytesIO()
        indexed = flat.quantize(PALETTE, dither=Image.Dither.NONE)
        indexed.save(copy, "PNG", optimize=True)
    small = copy.getvalue()
    return small if not same or len(small) < len(content) else content


def _scaled(size: tuple[int, int], width: int) -> tuple[int, int]:
    return width, max(1, round(size[1] * width / size[0]))


def _small_gif(image: Image.Image, width: int) -> bytes:
    """An animation scaled down, with its times."""
    durations, frames = [], []
    for frame in ImageSequence.Iterator(image):
        durations.append(frame.info.get("duration", 250))
        small = frame.convert("RGB").resize(
            _scaled(image.size, width), Image.Resampling.LANCZOS
        )
        frames.append(small.quantize(PALETTE, dither=Image.Dither.NONE))
    copy = io.BytesIO()
    frames[0].save(
        copy,
        "GIF",
        save_all=True,
        append_images=frames[1:],
        duration=durations,
        loop=0,
    )
    return copy.getvalue()
