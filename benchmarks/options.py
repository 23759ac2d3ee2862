"""Types of command-line options."""

import argparse
from collections.abc import Callable, Collection


def names(known: Collection[str]) -> Callable[[str], list[str]]:
    """A parser of comma-separated names; an empty text is none of them."""

    def parse(text: str) -> list[str]:
        found = text.split(",") if text else []
        for name in found:
            if name not in known:
                raise argparse.ArgumentTypeError(
                    f"{name!r} is unknown; expected some of {','.join(known)}"
                )
        return found

    return parse


def positive(text: str) -> int:
    """A whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"needs a positive number; got {number}")
    return number
