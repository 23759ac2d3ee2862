"""Makes a data set of windows in K, from any of the sources of El Nino data."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from earthformer_jax.data.dataset import Channel, Data, Dataset, Display
from earthformer_jax.data.enso import icar, protocols
from earthformer_jax.data.enso.examples import EnsoExamples
from earthformer_jax.data.enso.learned import (
    Learned,
    Series,
    layout_of,
    pack,
)
from earthformer_jax.data.enso.settings import Settings
from earthformer_jax.data.enso.systems.bases import bases
from earthformer_jax.data.normalization import Affine
from earthformer_jax.data.references import damped_persistence, persistence
from earthformer_jax.data.source import Batch, Source
from earthformer_jax.data.state import DataState
from earthformer_jax.data.task import Forecast, ForecastNino
from earthformer_jax.data.windows import Windows
from earthformer_jax.metrics.enso import NinoSkill

# The reference implementation's scaling to 0..1.
OFFICIAL = Affine(scale=icar.SST_MAX - icar.SST_MIN, offset=icar.SST_MIN)
OFFICIAL_UNITS = "(official ICAR-ENSO units, 0..1)^2"
_USED = ("start_month", "memory", "cell_memory")  # by reference forecasts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """What was found in one of the sources.

    Attributes:
        windows: windows in K of each split.
        description: of the data; windows and units are added to it.
        complete: whether the ocean was observed everywhere, in every month.
        dates: first and last month of each split, for the description.
        simulated: simulated windows in K.
        protocol: name of the protocol that the splits follow, "" if they follow none.
        references: forecasts `(K, start_month) -> K`, in addition to the fitted ones.
        spreads: of some of these, the standard deviation of the truth about them if it
            is Gaussian: `(start_month, weights) -> K`, in each cell if the weights are
            None, else of the mean with weights `[h, w]`.
        kept: what the state of the data holds beside shapes and statistics: `frames`,
            `minutes`, `calendar`, `checksums`; called when it is made.
    """

    windows: Mapping[str, Source]
    description: str
    complete: bool = True
    dates: Mapping[str, str] = dataclasses.field(default_factory=dict)
    simulated: Source | None = None
    protocol: str = ""
    references: Mapping[str, Callable] = dataclasses.field(default_factory=dict)
    spreads: Mapping[str, Callable] = dataclasses.field(default_factory=dict)
    kept: Callable[[], Mapping] = dict


def assemble(
    settings: Settings, found: Found, learned: Learned, *, anew: bool
) -> Dataset:
    """Makes the data set.

    Args:
        settings: the settings.
        found: windows in K, and what they are.
        learned: from the training months.
        anew: whether it was learned from these data, rather than by a trained model.
    """
    grid, nino_weights = learned.grid, learned.nino_weights
    normalization, out_len = learned.normalization, settings.out_len

    def examples(source: Source, past: bool) -> EnsoExamples:
        return EnsoExamples(
            source,
            normalization,
            nino_weights,
            settings.calendar,
            not found.complete,
            learned.memory_scale,
            past,
        )

    counted = np.ones_like(grid.ocean) if learned.land_counts else grid.ocean
    loss_weights = counted[None, :, :, None].astype(np.float32)
    units = units_text(normalization) + ("" if anew else ", as in the training")
    data = Data(
        name=settings.name,
        description=(
            f"{found.description}; {settings.in_len} -> {out_len} months; "
            f"{_split_text(found.windows, found.dates)}; {units}"
        ),
        train=examples(found.windows["train"], past=False),
        validation=examples(found.windows["validation"], past=True),
        test=examples(found.windows["test"], past=True),
        simulated=None
        if found.simulated is None
        else examples(found.simulated, past=False),
        loss_weights=loss_weights,
        normalization=normalization,
        coordinates={"latitude": grid.latitude, "longitude": grid.longitude},
        display=Display((_channel(normalization),), frame="month", south_first=True),
        # The windows of the twin are independent of each other.
        spans={k: x.spans for k, x in found.windows.items() if isinstance(x, Windows)},
        bases=_bases(settings, learned),
    )
    state = functools.cache(functools.partial(_state, data, learned, found.kept))
    skill = NinoSkill(
        nino_weights=nino_weights,
        out_len=out_len,
        scale=normalization.scale,
        offset=normalization.offset,
        index_months=learned.index_months,
        pixel_weights=loss_weights,
        mse_in_kelvin=normalization != OFFICIAL,
    )
    task = ForecastNino(
        metric=skill,
        verification=skill.verification(),
        references=_references(learned, found.references, out_len),
        gaussians={
            name: _gaussian(found.references[name], spread, learned)
            for name, spread in found.spreads.items()
        },
        mse_units=OFFICIAL_UNITS if normalization == OFFICIAL else "K^2",
        nino_weights=nino_weights,
        ocean=np.asarray(grid.ocean, bool),
        index_months=learned.index_months,
        protocol=protocols.description(found.protocol),
    )
    return Dataset(dataclasses.replace(data, state=state), task)


def normalization_of(
    settings: Settings,
    training: Callable[[], Series],
    ocean: np.ndarray,
    *,
    official: bool,
) -> Affine:
    """The selected normalisation.

    Args:
        settings: the settings.
        training: returns the training months in K, NaN where not observed.
        ocean: bool `[h, w]`.
        official: whether "auto" means the official normalisation.
    """
    kind = settings.normalization
    if kind == "auto":
        official_units = official and not settings.scale
        kind = "official" if official_units else "anomaly"
    if kind == "official":
        return OFFICIAL
    scale = settings.scale
    if not scale:
        cells = [series[:, ocean] for series in training()]
        squares = sum(np.nansum(np.square(x, dtype=np.float64)) for x in cells)
        scale = float(np.sqrt(squares / sum(np.isfinite(x).sum() for x in cells)))
    return Affine(scale)


def units_text(normalization: Affine) -> str:
    """What the model sees, in words."""
    if normalization == OFFICIAL:
        return "official ICAR-ENSO units"
    return f"anomalies / {normalization.scale:.3g} K"


def _bases(
    settings: Settings, learned: Learned
) -> Mapping[str, Callable[[], Mapping[str, np.ndarray]]]:
    """What models can correct (`Data.bases`); nothing if no forecast is fitted."""
    if learned.fitted is None:
        return {}
    return bases(
        learned.fitted,
        learned.normalization,
        learned.memory_scale,
        in_len=settings.in_len,
        calendar=settings.calendar,
        memory=settings.memory,
    )


def _references(
    learned: Learned, more: Mapping[str, Callable], out_len: int
) -> Mapping[str, Forecast]:
    """Reference forecasts from a batch to model units.

    Args:
        learned: from the training months.
        more: further ones, `(K, start_month) -> K`.
        out_len: number of target months.
    """
    normalization, fitted = learned.normalization, learned.fitted
    simple = {"persistence": persistence(out_len, channels=1)}
    own = {name: _from_inputs(x, normalization) for name, x in more.items()}
    if fitted is None:
        return simple | own
    zero = np.array([normalization.encode(0.0)])
    simple["damped_persistence"] = damped_persistence(
        out_len, 1, lambda: fitted().damping[..., None], lambda batch: (zero, zero)
    )

    def systems() -> dict[str, Forecast]:
        forecasts = fitted().forecasts
        return {k: _in_model_units(x, normalization) for k, x in forecasts.items()}

    return _References(simple, systems, own)


def _gaussian(
    forecast: Callable, spread: Callable, learned: Learned
) -> Mapping[str, Forecast]:
    """Mean and standard deviation of the fields and of the index (`Task.gaussians`)."""
    in_model_units = _from_inputs(forecast, learned.normalization)
    weights = np.asarray(learned.nino_weights, np.float64)
    scale = abs(learned.normalization.scale)

    def field(batch: Batch) -> np.ndarray:
        std = spread(batch["start_month"]) / scale
        return np.stack([in_model_units(batch), std]).astype(np.float32)

    def index(batch: Batch) -> np.ndarray:
        mean = np.einsum("bkhwc,hw->bk", in_model_units(batch), weights)
        std = spread(batch["start_month"], weights) / scale
        return np.stack([mean, std])[..., None, None, None].astype(np.float32)

    return {"field": field, "nino34": index}


class _References(Mapping[str, Forecast]):
    """Reference forecasts; those that are fitted are so when they are looked at.

    Args:
        simple: those that come first and need no fit.
        fitted: makes those that follow.
        own: those at the end, which need no fit either.
    """

    def __init__(
        self,
        simple: Mapping[str, Forecast],
        fitted: Callable[[], Mapping[str, Forecast]],
        own: Mapping[str, Forecast],
    ):
        self._simple, self._own = simple, own
        self._fitted = functools.cache(fitted)

    def __getitem__(self, name: str) -> Forecast:
        for known in (self._simple, self._own):
            if name in known:
                return known[name]
        return self._fitted()[name]

    def __iter__(self) -> Iterator[str]:
        return iter([*self._simple, *self._fitted(), *self._own])

    def __len__(self) -> int:
        return len(self._simple) + len(self._fitted()) + len(self._own)


def _state(data: Data, learned: Learned, kept: Callable[[], Mapping]) -> DataState:
    """The state of the data that a model is trained on."""
    return data.described(layout_of(learned), fitted=pack(learned), **kept())


def _channel(normalization: Affine) -> Channel:
    return Channel(
        "SST anomaly",
        "K",
        normalization.scale,
        normalization.offset,
        limits=(-3.0, 3.0),
        colormap="RdBu_r",
    )


def _from_inputs(forecast: Callable, normalization: Affine) -> Forecast:
    """A forecast of the inputs and the calendar month, see `_in_model_units`."""
    return _in_model_units(
        lambda batch: forecast(batch["inputs"], batch["start_month"]), normalization
    )


def _in_model_units(forecast: Callable, normalization: Affine) -> Forecast:
    """Turns a forecast from a batch in K to K into one in model units."""

    def from_batch(batch: Batch) -> np.ndarray:
        sst = np.asarray(batch["inputs"], np.float64)[..., :1]
        kelvin = {k: np.asarray(x) for k, x in batch.items() if k in _USED}
        kelvin["inputs"] = normalization.decode(sst)
        return normalization.encode(forecast(kelvin)).astype(np.float32)

    return from_batch


def _split_text(windows: Mapping[str, Source], dates: Mapping[str, str]) -> str:
    """ "train 1856-01..1979-12 (1463 windows), ..." """
    texts = [
        f"{f'{split} {dates[split]}' if dates else split} ({len(source)} windows)"
        for split, source in windows.items()
        if len(source)
    ]
    if not len(windows["train"]):
        texts.append("nothing of which was trained on")
    return ", ".join(texts)
