"""Compares El Niño forecasts, from the index of every window in skill.nc."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from earthformer_jax.metrics.bootstrap import LEVEL
from earthformer_jax.metrics.verification import HIGHER, LOWER
from earthformer_jax.reports.nino import skill as nino_skill
from earthformer_jax.reports.nino.windows import Windows
from earthformer_jax.reports.scoring import MODEL
from earthformer_jax.reports.verification import archive
from earthformer_jax.reports.verification.comparison import Comparison
from earthformer_jax.reports.verification.names import of_files
from earthformer_jax.reports.verification.skill import Sampled

NEEDED = ("index", "observed_index", "observed_three_month", "squared_error")
SAME = 1e-3  # K, or of the squared error: a reference that differs by less is one
LABELS = {
    "correlation_mean": (HIGHER, "1"),
    "c_nino34_m": (HIGHER, "1"),
    "mse": (LOWER, ""),
}
CURVES = {
    "correlation": ("Correlation of the index", HIGHER),
    "rmse": ("RMSE, K", LOWER),
}


def compare(files: Sequence[Path]) -> Comparison:
    """The models of some workdirs and their references.

    Args:
        files: skill.nc in each.

    Raises:
        ValueError: if windows or shared references differ, or a file is of an older
            version.
        OSError: if a file cannot be read.
    """
    found = {file: _read(file) for file in files}
    (first, data), *others = found.items()
    for file, other in others:
        if different := _differences(data, other):
            raise ValueError(
                f"{first.parent} and {file.parent} were not scored on the same test "
                f"windows: {different}"
            )
    index: dict[str, np.ndarray] = {}
    errors: dict[str, np.ndarray] = {}
    where: dict[str, Path] = {}
    for file, one in found.items():
        for name in map(str, one["forecast"].values):
            own = one.sel(forecast=name)
            values, squared = own["index"].values, own["squared_error"].values
            if name == MODEL:
                continue
            if name in where:
                _check_same(
                    name,
                    where[name],
                    file,
                    (index[name], errors[name]),
                    (values, squared),
                )
                continue
            index[name], errors[name], where[name] = values, squared, file
    models = of_files(found, where)
    for file, name in models.items():
        own = found[file].sel(forecast=MODEL)
        index[name], errors[name] = own["index"].values, own["squared_error"].values
    names = tuple([*models.values(), *where])
    windows = _windows(data, names, index, errors)
    skill = nino_skill.compute(
        windows, data.attrs["index_months"], int(data.attrs["block_windows"])
    )
    return _comparison(
        skill,
        data.attrs["source"],
        {n: str(f.parent) for f, n in models.items()},
        {n: int(found[f].attrs.get("step", 0)) for f, n in models.items()},
    )


def _read(file: Path) -> xr.Dataset:
    with archive.opening(file) as opened:
        missing = [name for name in NEEDED if name not in opened]
        missing += [
            x for x in ("index_months", "block_windows") if x not in opened.attrs
        ]
        if missing:
            raise ValueError(
                f"{file} has no {', '.join(missing)}: it is of an older version; "
                f"evaluate again: python -m earthformer_jax.main "
                f"--workdir={file.parent} --mode=evaluate"
            )
        return opened[[*NEEDED, "start_month"]].load()


def _differences(a: xr.Dataset, b: xr.Dataset) -> str:
    """How test windows differ, as text; "" if they are the same."""
    sizes = {
        "number of windows": "window",
        "number of leads": "lead",
        "number of regions": "region",
    }
    found = [
        f"{name}: {a.sizes[dim]} and {b.sizes[dim]}"
        for name, dim in sizes.items()
        if a.sizes[dim] != b.sizes[dim]
    ]
    if not found:
        if list(a["region"].values) != list(b["region"].values):
            found = ["regions"]
        elif not np.array_equal(a["start_month"], b["start_month"]):
            found = ["months in which they begin"]
        elif not np.allclose(
            a["observed_index"], b["observed_index"], atol=SAME, equal_nan=True
        ):
            gap = np.nanmax(
                np.abs(a["observed_index"].values - b["observed_index"].values)
            )
            found = [
                f"the observed index, by up to {gap:.2g} K (another period or data)"
            ]
    for name, text in (
        ("index_months", "months in the index"),
        ("block_windows", "windows in a block"),
    ):
        if a.attrs[name] != b.attrs[name]:
            found.append(f"{text}: {a.attrs[name]} and {b.attrs[name]}")
    if found and a.attrs["source"] != b.attrs["source"]:
        found.append(f"{a.attrs['source']!r} and {b.attrs['source']!r}")
    return "; ".join(found)


def _check_same(name: str, file: Path, other: Path, a: Any, b: Any) -> None:
    (index, squared), (indices, squares) = a, b
    gap = float(np.nanmax(np.abs(index - indices), initial=0))
    close = np.allclose(squared, squares, rtol=SAME, equal_nan=True)
    if gap > SAME or not close:
        raise ValueError(
            f"the reference {name!r} is not the same forecast in {file.parent} and "
            f"{other.parent}: its index differs by up to {gap:.2g} K. Compare models "
            "trained on the same data"
        )


def _windows(
    data: xr.Dataset,
    names: tuple[str, ...],
    index: Mapping[str, np.ndarray],
    errors: Mapping[str, np.ndarray],
) -> Windows:
    """The windows of all forecasts, without maps."""
    empty = np.zeros((len(names), 0, 0, 0))
    return Windows(
        names=names,
        regions=tuple(map(str, data["region"].values)),
        start_month=data["start_month"].values.astype(int) - 1,
        forecast=np.stack([index[name] for name in names]),
        observed=data["observed_index"].values,
        observed_three_month=data["observed_three_month"].values,
        squared_error=np.stack([errors[name] for name in names]),
        map_leads=np.zeros(0, int),
        map_correlation=empty,
        map_error=empty,
    )


def _comparison(
    skill: nino_skill.Skill,
    about: str,
    models: Mapping[str, str],
    steps: Mapping[str, int],
) -> Comparison:
    names = skill.windows.names

    def sampled(key: str, better: str, units: str, dims: tuple[str, ...]) -> Sampled:
        values = skill.samples[key]
        leads = tuple(range(1, values.shape[-1] + 1)) if dims else ()
        return Sampled(
            key,
            dims,
            {"lead": leads} if dims else {},
            better,
            units,
            {name: values[:, i] for i, name in enumerate(names)},
            None,
        )

    number = len(skill.windows.start_month)
    blocks = (
        f"blocks of {skill.block} successive windows"
        if skill.block > 1
        else "single windows"
    )
    return Comparison(
        data="El Niño",
        about=about,
        examples=f"{number} test windows; "
        + (
            f"no intervals: {skill.no_intervals}"
            if skill.no_intervals
            else f"{LEVEL:.0%} intervals from {blocks}"
        ),
        checksum="",
        models=models,
        steps=steps,
        numbers=[sampled(key, *look, ()) for key, look in LABELS.items()],
        headline=list(LABELS),
        curves=[
            (label, sampled(key, better, "", ("lead",)))
            for key, (label, better) in CURVES.items()
        ],
        step=(1.0, "month"),
    )
