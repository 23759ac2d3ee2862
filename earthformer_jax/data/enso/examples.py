"""Windows of anomalies as the model sees them, with the indices of their targets."""

from collections.abc import Sequence

import numpy as np

from earthformer_jax.data.enso.systems.past import Past, past_of
from earthformer_jax.data.normalization import Affine
from earthformer_jax.data.readers import times
from earthformer_jax.data.source import Example, Source, read_batch, stacked

MIN_OBSERVED = 0.5  # least share of the index's weights, else the index is unknown
ROUNDING = 1e-6  # of a share, which is a sum


class EnsoExamples:
    """Converts windows in K to model units and adds Nino3.4 indices of the targets.

    These are `nino34` `[k]`, the monthly index, and `nino34_three_month` `[k - 2]`, the
    mean of each month and the next two, both in K. The latter is taken from the window
    if it has one, `[k]`. With `calendar` the inputs have the channels SST, cosine and
    sine of the calendar month, and with `memory_scale` (K months per unit) the memory
    of each cell. A window must have either `start_month`, the calendar month of its
    first target, or the `time` of its months.

    With `past`, `memory` `[r]` and `cell_memory` `[h, w]` are what the last input month
    remembers of those before it, of Nino3.4 and of every cell
    (`enso.systems.past.Past`), in K months; reference forecasts read them. A window
    that has neither remembers its own months only.

    With `observed`, targets that are not observed are 0 K and do not count: the index
    is the mean over the observed cells, and NaN (unknown) in months where these have
    less than half of the weights. Windows that do not say what was observed, simulated
    ones, are complete.
    """

    def __init__(
        self,
        windows: Source,
        normalization: Affine,
        nino_weights: np.ndarray,
        calendar: bool = False,
        observed: bool = False,
        memory_scale: float = 0.0,
        past: bool = True,
    ):
        self._windows = windows
        self._normalization = normalization
        self._weights = nino_weights
        self._calendar = calendar
        self._observed = observed
        self._memory_scale, self._has_past = memory_scale, past

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {name: x[0] for name, x in self.batch([index]).items()}

    def batch(self, indices: Sequence[int]) -> dict[str, np.ndarray]:
        """Several examples, stacked."""
        window = read_batch(self._windows, indices)
        targets, observed = window["targets"], None
        if self._observed:
            observed = window.get("observed", np.ones(targets.shape, bool))
            targets = np.where(observed, targets, np.float32(0))
        monthly = self._index(targets)
        if observed is not None:
            share = self._index(observed)
            known = share > MIN_OBSERVED - ROUNDING
            monthly = np.where(known, monthly / np.where(known, share, 1), np.nan)
        three_month = window.get("nino34_three_month")
        if three_month is None:
            three_month = (monthly[:, :-2] + monthly[:, 1:-1] + monthly[:, 2:]) / 3
        else:
            three_month = three_month[:, :-2]  # only means of target months
        start_month = window.get("start_month")
        if start_month is None:
            first = window["time"][:, window["inputs"].shape[1]]
            start_month = times.month_of(first) % 12
        inputs, remembered = self._inputs(window, start_month)
        example = {
            "inputs": inputs,
            "targets": self._scaled(targets),
            "start_month": np.asarray(start_month, np.int32),
            "nino34": monthly.astype(np.float32),
            "nino34_three_month": three_month.astype(np.float32),
            **remembered,
        }
        if observed is not None:
            complete = np.ones(window["inputs"].shape, bool)
            example["observed"] = observed
            example["inputs_observed"] = window.get("inputs_observed", complete)
        return example

    def _index(self, fields: np.ndarray) -> np.ndarray:
        """Mean with the weights of the index, `[b, k]`, of fields `[b, k, h, w, 1]`."""
        where = np.flatnonzero(self._weights)
        values = fields.reshape(*fields.shape[:2], -1)[..., where]
        return np.sum(values * np.ravel(self._weights)[where], axis=-1)

    def _inputs(
        self, window: Example, start_month: np.ndarray
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """What the model sees of windows, and what their last input months remember."""
        inputs = self._scaled(window["inputs"])
        if not (self._calendar or self._has_past or self._memory_scale):
            return inputs, {}
        seen, remembered = [], []
        for row, (own, month) in enumerate(zip(inputs, start_month, strict=True)):
            if self._calendar:
                own = with_calendar(own, int(month))
            if self._has_past or self._memory_scale:
                of_row = {name: x[row] for name, x in window.items()}
                past = past_of_window(of_row, self._weights)
                if self._memory_scale:
                    own = with_memory(own, past, self._memory_scale)
                if self._has_past:
                    remembered.append({k: x[-1] for k, x in past.behind.items()})
            seen.append(own)
        return np.stack(seen), stacked(remembered) if remembered else {}

    def _scaled(self, kelvin: np.ndarray) -> np.ndarray:
        return np.asarray(self._normalization.encode(kelvin), np.float32)


def past_of_window(window: Example, nino_weights: np.ndarray) -> Past:
    """What the input months of a window remember; of the window alone if need be."""
    inputs = window["inputs"]
    own = None
    if "memory" not in window or "cell_memory" not in window:
        own = past_of(inputs[..., 0], nino_weights, [(0, len(inputs))])
    return Past(
        np.asarray(window["memory"] if own is None else own.index, np.float32),
        np.asarray(window["cell_memory"] if own is None else own.cells, np.float32),
    )


def with_memory(inputs: np.ndarray, past: Past, scale: float) -> np.ndarray:
    """Adds the memory of the cells to inputs `[t, h, w, c]`, as one more channel.

    Args:
        inputs: `[t, h, w, c]`.
        past: of the same months.
        scale: K months per unit.
    """
    return np.concatenate([inputs, past.cells[..., None] / np.float32(scale)], axis=-1)


def with_calendar(inputs: np.ndarray, start_month: int) -> np.ndarray:
    """Adds the cosine and sine of the calendar month to inputs, as two more channels.

    Args:
        inputs: `[t, h, w, c]`, the months before `start_month`.
        start_month: calendar month of the first target, January = 0.
    """
    angle = 2 * np.pi * (start_month + np.arange(-len(inputs), 0)) / 12
    season = np.stack([np.cos(angle), np.sin(angle)], axis=-1).astype(np.float32)
    season = np.broadcast_to(season[:, None, None], (*inputs.shape[:3], 2))
    return np.concatenate([inputs, season], axis=-1)
