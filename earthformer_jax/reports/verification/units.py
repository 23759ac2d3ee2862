"""In which units scores are given."""

import re

# Scores of events: those whose names end in a threshold, or in "m" for the mean.
OF_EVENTS = "csi pod far sucr bias hss ets gss fss brier".split()
# What is given in the units of the forecast fields, and what in none.
IN_UNITS = re.compile(r"(nino34_)?(mae|rmse|bias|crps(_plain)?|spread)")
WITHOUT_UNITS = re.compile(
    r"(correlation|acc|ssim|ratio|usage|perplexity|c_nino34|proportion|heidke|power|"
    rf"success|frequency|{'|'.join(OF_EVENTS)})\w*"
)


def unit_of(score: str, squared: str) -> str:
    """The units of a score; "" if they are not known.

    Args:
        score: its name.
        squared: units of the mean squared error, "K^2" or a text that says what is
            summed.
    """
    if score in ("mse", "frame_mse"):
        return squared
    if IN_UNITS.fullmatch(score):
        root = re.fullmatch(r"\(?(.*?)\)?\^2", squared)
        if root:
            return root[1]
        # Without a square, squared and absolute errors are summed in the same way.
        return squared if score == "mae" else ""
    return "1" if WITHOUT_UNITS.fullmatch(score) else ""


def units_text(units: str) -> str:
    """Units after a number or a name: " (K²)"; "" where there are none."""
    if units in ("", "1"):
        return ""
    units = units.replace("^2", "²")
    return f", {units}" if units.startswith("(") else f" ({units})"
