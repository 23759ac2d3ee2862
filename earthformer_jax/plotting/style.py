"""The look of all figures, and how they are written."""

import os
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

DPI = 150
STYLE = {
    "font.family": "DejaVu Sans",
    "axes.titlesize": 11,
    "axes.labelsize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "0.35",
    "xtick.color": "0.25",
    "ytick.color": "0.25",
    "legend.frameon": False,
}
# One look per forecast, the same in every figure: label, colour, line style, width.
LOOKS = {
    "model": ("Model", "#b2182b", "-", 2.6),
    "ceiling": ("Best possible", "0.15", (0, (5, 2)), 1.6),
    "lim": ("Linear inverse model", "#2166ac", "-", 1.8),
    "lim_memory": ("LIM with memory of Niño3.4", "#35978f", "-", 1.8),
    "lim_field_memory": ("LIM with memory of fields", "#01665e", "-", 2.0),
    "lim_hidden": ("LIM with hidden states", "#bf812d", "-", 2.0),
    "oscillator": ("Recharge oscillator", "#8073ac", "-.", 1.8),
    "damped_persistence": ("Damped persistence", "#8c6d31", (0, (4, 1.5, 1, 1.5)), 1.6),
    "persistence": ("Persistence", "0.55", "-", 1.6),
    "extrapolation": ("Extrapolation", "#2166ac", "-", 1.8),
    "s_prog": ("S-PROG", "#1b7837", "-", 1.8),
    "steps_mean": ("Mean of STEPS members", "#762a83", "-.", 1.8),
    "model_dressed": ("Model with its past errors", "#ef8a62", "-.", 1.6),
}
# Of other forecasts: none is that of a forecast above, nor like one.
OTHER_COLOURS = ("#c51b7d", "#4eb3d3", "#7fbc41", "#f16913")
WORDS = ("frame", "hour", "day", "week", "month", "year")  # units with a plural
BAND = 0.16  # opacity of intervals
GREY = "0.82"  # land and unknown values


def figure_style(font_size: float = 10):
    """A context whose figures share fonts, spines and colours of ticks."""
    settings: dict[Any, Any] = {**STYLE, "font.size": font_size}
    return mpl.rc_context(settings)


def look(name: str, others: int = 0) -> tuple[str, str, object, float]:
    """Label, colour, line style, width; `others` counts unknown names before."""
    colour = OTHER_COLOURS[others % len(OTHER_COLOURS)]
    label = name.replace("_", " ").capitalize()
    return LOOKS.get(name, (label, colour, "-", 1.8))


def ordered(names) -> list[str]:
    """The model first, then the others as in `LOOKS`, then unknown ones."""
    known = [name for name in LOOKS if name in names]
    return known + [name for name in names if name not in LOOKS]


def save(figure: Figure, path: str | os.PathLike, *, cut: bool = True) -> None:
    """Writes a figure as PNG; readers never see a partial file.

    Args:
        figure: what to write.
        path: of the file.
        cut: whether to cut empty margins off; False: the figure is a page.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")
    figure.savefig(
        unfinished,
        format="png",
        dpi=DPI,
        facecolor="white",
        bbox_inches="tight" if cut else None,
    )
    os.replace(unfinished, path)


def step_of(frame: str) -> tuple[float, str]:
    """Length and unit of the time between frames: (5, "min") of "5 min".

    It is (1, "frame") if nothing is known, and of "2 or 5 min", where a lead has no
    one time.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)?\s*(\D*?)\s*", frame)
    number, unit = found.groups() if found else (None, "")
    return float(number or 1), unit or "frame"


def plural(unit: str) -> str:
    """Several of a unit of time: "days", but "min" and "h"."""
    return f"{unit}s" if unit in WORDS else unit


def apart(frame: str) -> str:
    """What lies between frames, for a sentence: ", 5 min apart"; "" if unknown."""
    if not frame:
        return ""
    number, unit = step_of(frame)
    return f", {frame if unit == 'frame' else f'{number:g} {unit}'} apart"


def lead_label(frame: str, lead: int, short: bool = False) -> str:
    """Time from the last input to a frame, "+15 min", "now", "−2 days".

    Where the unit is not known it is "+3 frames", or in short "+3".
    """
    if not lead:
        return "now"
    number, unit = step_of(frame)
    value = number * abs(lead)
    if short and unit == "frame":
        unit = ""
    elif value != 1:
        unit = plural(unit)
    return f"{'+' if lead > 0 else '−'}{value:g} {unit}".rstrip()


def moment_label(moment: np.datetime64, frame: str) -> str:
    """A date as exact as the time between frames: "2014-11" of months.

    Args:
        moment: UTC.
        frame: time from one frame to the next, "5 min"; "" if unknown.
    """
    unit = step_of(frame)[1]
    text = str(moment.astype("datetime64[m]"))
    if unit.startswith(("month", "year")):
        return text[:7]
    if unit.startswith("day") and text.endswith("T00:00"):
        return text[:10]
    return text.replace("T", " ") + " UTC"
