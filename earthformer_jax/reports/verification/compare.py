"""Compares the evaluations in several workdirs, from what they left there."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from earthformer_jax.metrics.bootstrap import LEVEL
from earthformer_jax.plotting import step_of
from earthformer_jax.reports.nino.archive import NAME as NINO_NAME
from earthformer_jax.reports.scoring import MODEL
from earthformer_jax.reports.verification import archive, nino, skill
from earthformer_jax.reports.verification.comparison import Comparison
from earthformer_jax.reports.verification.names import of_files
from earthformer_jax.reports.verification.sums import BlockSums, Examples
from earthformer_jax.reports.verification.units import units_text

SAME = 1e-4  # of the largest sum of a name: a reference that differs by less is one
MOST_NUMBERS = 400  # of a score; one with more, by wavelength say, has no rows


def compare(workdirs: Sequence[Path]) -> Comparison:
    """The models of some workdirs and their references on the same test examples.

    Args:
        workdirs: of evaluated models, or files that evaluations left there (sums.nc,
            sums-LABEL.nc, skill.nc, skill-LABEL.nc).

    Raises:
        ValueError: if there are fewer than two, one comes twice, or they cannot be
            compared, with the reason.
        OSError: if a file does not exist or cannot be read.
    """
    if len(workdirs) < 2:
        raise ValueError(
            f"{', '.join(map(str, workdirs)) or 'nothing'} alone cannot be compared; "
            "give two workdirs or more, separated by commas"
        )
    files = [_file(path) for path in workdirs]
    for i, file in enumerate(files):
        for j in range(i):
            if os.path.samefile(file, files[j]):
                raise ValueError(
                    f"{workdirs[j]} and {workdirs[i]} are the same; give each once"
                )
    of_nino = [file.name.startswith("skill") for file in files]
    if all(of_nino):
        return nino.compare(files)
    if any(of_nino):
        raise ValueError(
            "forecasts of El Niño cannot be compared with others: "
            + ", ".join(map(str, files))
        )
    return of_sums({file: archive.read(file) for file in files})


def _file(path: Path) -> Path:
    """The file that an evaluation left.

    Raises:
        FileNotFoundError: naming what makes it.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist; give the workdirs of evaluated models"
        )
    if path.is_file():
        if path.name.startswith(("sums", "skill")) and path.suffix == ".nc":
            return path
        raise ValueError(f"{path} is a file: expected a workdir, or its {archive.NAME}")
    for name in (archive.NAME, NINO_NAME):
        if (path / name).is_file():
            return path / name
    raise FileNotFoundError(
        f"{path} has no {archive.NAME} or {NINO_NAME}, which an evaluation leaves: "
        f"python -m earthformer_jax.main --workdir={path} --mode=evaluate"
    )


def of_sums(files: Mapping[Path, BlockSums]) -> Comparison:
    """Compares forecasts of frames.

    Args:
        files: what each file holds.

    Raises:
        ValueError: if test examples or shared references differ, or no score is shared.
    """
    (first, sums), *others = files.items()
    for file, other in others:
        if different := _differences(sums.examples, other.examples):
            raise ValueError(
                f"{first.parent} and {file.parent} were not scored on the same test "
                f"examples: {different}"
            )
    every = [x.verification for x in files.values()]
    statistics = _shared(
        [{n: archive.entry_of(x) for n, x in v.statistics.items()} for v in every]
    )
    scores = _shared(
        [{n: archive.described(x) for n, x in v.scores.items()} for v in every]
    )
    scores = [n for n in scores if sums.verification.scores[n].statistic in statistics]
    if not scores:
        raise ValueError(
            f"{', '.join(str(file.parent) for file in files)} have no score in common; "
            "evaluate them again with --mode=evaluate"
        )
    values, models = _merged(files, statistics)
    steps = {name: files[file].step for name, file in zip(models, files, strict=True)}
    verification = dataclasses.replace(
        sums.verification,
        statistics={n: sums.verification.statistics[n] for n in statistics},
        scores={n: sums.verification.scores[n] for n in scores},
    )
    left_out = sorted({name for v in every for name in v.scores} - set(scores))
    merged = BlockSums(sums.examples, verification, values)
    return _of_merged(merged, models, steps, left_out)


def _differences(a: Examples, b: Examples) -> str:
    """How test examples differ, as text; "" if they are the same."""
    if a.checksum == b.checksum and np.array_equal(a.sizes, b.sizes):
        return ""
    named = {
        "data": (a.data, b.data),
        "number": (a.number, b.number),
        "targets (frames, height, width, channels)": (a.shape, b.shape),
        "time between frames": (a.frame, b.frame),
        "units of the squared error": (a.mse_units, b.mse_units),
    }
    found = [f"{name}: {x} and {y}" for name, (x, y) in named.items() if x != y]
    if not found and a.checksum == b.checksum:
        found = [f"blocks: {a.block} and {b.block}"]
    if not found:
        found = ["their values (another period, seed, version of the files or scaling)"]
    if a.description != b.description:
        found.append(f"{a.description!r} and {b.description!r}")
    return "; ".join(found)


def _shared(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names whose entries are equal in all mappings."""
    first, *others = entries
    return [n for n, x in first.items() if all(o.get(n) == x for o in others)]


def _merged(
    files: Mapping[Path, BlockSums], statistics: Sequence[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The sums of all forecasts by name, and the workdir of each model by its name.

    Raises:
        ValueError: if a reference of several files is not the same forecast.
    """
    references: dict[str, tuple[Path, Any]] = {}
    for file, sums in files.items():
        for name, values in sums.values.items():
            if name == MODEL:
                continue
            values = {key: values[key] for key in statistics}
            before, known = references.setdefault(name, (file, values))
            check_same(name, before, known, file, values)
    models = of_files(files, references)
    merged = {
        name: {key: files[file].values[MODEL][key] for key in statistics}
        for file, name in models.items()
    }
    merged |= {name: values for name, (_, values) in references.items()}
    return merged, {name: str(file.parent) for file, name in models.items()}


def check_same(name: str, file: Path, values: Any, other: Path, others: Any) -> None:
    """Refuses a reference that is another forecast in another file.

    Args:
        name: of the reference.
        file, other: where its sums are from.
        values, others: statistic -> name -> sums.

    Raises:
        ValueError: naming the sum that differs.
    """
    for key, parts in values.items():
        for part, x in parts.items():
            y = others[key][part]
            scale = np.nanmax(np.abs(x), initial=0)
            if not np.allclose(x, y, rtol=0, atol=SAME * scale, equal_nan=True):
                gap = np.nanmax(np.abs(np.asarray(x) - y)) / scale if scale else np.inf
                raise ValueError(
                    f"the reference {name!r} is not the same forecast in {file.parent} "
                    f"and {other.parent}: its sums {part!r} of {key!r} differ by "
                    f"{gap:.1%}. Compare models trained on the same data"
                )


def _of_merged(
    sums: BlockSums,
    models: Mapping[str, str],
    steps: Mapping[str, int],
    left_out: Sequence[str],
) -> Comparison:
    examples, every = sums.examples, list(sums.verification.scores)
    short = skill.short_names(sums)
    rest = [name for name in every if name not in short]
    headline, numbers, curves = [], [], []
    for score in skill.sampled(sums, names=[*short, *rest]):
        found = list(score.numbers())
        headline += [found[0].name] if score.name in short or not headline else []
        if len(found) <= MOST_NUMBERS:
            numbers += found
    for score in skill.sampled(sums, names=short, by_lead=True):
        label = score.name.upper().replace("_", "-") + units_text(score.units)
        curves.append((label, score.curve()))
    why = skill.why_none(sums)
    blocks = f"{LEVEL:.0%} intervals from {sums.blocks} blocks ({examples.block} each)"
    return Comparison(
        data=examples.data,
        about=examples.description,
        examples=f"{examples.number} test examples; "
        + (f"no intervals: {why}" if why else blocks),
        checksum=examples.checksum,
        models=models,
        steps=steps,
        numbers=numbers,
        headline=headline,
        curves=curves,
        step=step_of(examples.frame),
        left_out=left_out,
    )
