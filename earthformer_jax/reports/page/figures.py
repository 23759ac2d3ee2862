"""The figures of an evaluation: which are new, their order, and their captions."""

from collections.abc import Mapping, Sequence
from pathlib import Path

SUFFIXES = (".png", ".gif")
Seen = Mapping[str, tuple[int, int, int]]

# The beginnings of the names of figures, in the order of the page.
CAPTIONS = {
    "forecast_maps": "Maps of one test forecast: the truth above, forecasts below.",
    "forecast": "One test example: inputs, truth, forecasts and the error.",
    "forecast.gif": "The same test example as an animation: inputs, then truth and "
    "forecasts side by side.",
    "skill": "Scores against lead time.",
    "performance": "Performance diagram (Roebber 2009): the closer to the upper right "
    "corner, the better; dashed lines have equal frequency bias, curves equal CSI.",
    "spectra": "Radially averaged power spectra: what lies below the truth is blurred.",
    "nino_skill": "Skill of El Niño forecasts by lead, season and place.",
    "samples": "One test example, with some members of the ensemble.",
    "calibration": "How good probabilities are: CRPS, spread and error, rank "
    "histogram; of events the reliability, on the diagonal if probabilities come true, "
    "and the ROC curve, towards the upper left if events are told apart.",
    "regimes": "Regimes by date.",
    "composites": "The mean field of each regime, less the mean of all frames.",
    "projection": "Embeddings on their first two principal components.",
    "restored": "A test example, and what is restored of it.",
}


def seen(folder: Path) -> Seen:
    """What a folder of figures holds now, to know later which are new."""
    if not folder.is_dir():
        return {}
    found = {}
    for path in folder.iterdir():
        if path.suffix in SUFFIXES and not path.name.startswith("."):
            status = path.stat()
            found[path.name] = (status.st_ino, status.st_mtime_ns, status.st_size)
    return found


def drawn_since(folder: Path, before: Seen) -> list[Path]:
    """The figures that were written after `before` was seen.

    Those of an earlier evaluation of another kind may lie beside them.
    """
    now = seen(folder)
    return [folder / name for name in sorted(now) if now[name] != before.get(name)]


def in_order(paths: Sequence[Path]) -> list[Path]:
    """Figures as the page shows them; unknown ones come last."""
    places = list(CAPTIONS)

    def place(path: Path) -> tuple[int, str]:
        kind = _kind(path)
        return places.index(kind) if kind in places else len(places), path.name

    return sorted(paths, key=place)


def caption_of(path: Path) -> str:
    """What a figure shows."""
    kind = _kind(path)
    text = CAPTIONS.get(kind, path.stem.replace("_", " ").capitalize() + ".")
    rest = path.stem.removeprefix(kind).strip("_").replace("_", " ")
    return (
        f"{rest}: {text[0].lower()}{text[1:]}" if rest and kind != path.name else text
    )


def _kind(path: Path) -> str:
    """The longest known beginning of its name, or its own name."""
    if path.name in CAPTIONS:
        return path.name
    known = [kind for kind in CAPTIONS if path.stem.startswith(kind)]
    return max(known, key=len, default=path.stem)
