"""How the fields of a series become what a trained model sees, as arrays."""

from earthformer_jax.data.cubes import checks, trained
from earthformer_jax.data.cubes.settings import Settings
from earthformer_jax.data.forecasting.encoding import Encoding
from earthformer_jax.data.state import DataState

# Calendar channels by their number, see `data.windows.calendar_channels`.
_CALENDARS = {0: "", 2: "season", 4: "season and day"}


def find(settings: Settings, state: DataState) -> Encoding:
    """The statistics of a training as an encoding.

    Args:
        settings: checked settings.
        state: of the data that the model was trained on.

    Raises:
        ValueError: if the model restores its inputs.
    """
    checks.check_forecasts(settings)
    normalizer, _ = trained.unpack(state)
    return Encoding(
        scale=normalizer.scale,
        offset=normalizer.offset,
        targets=state.target_shape[-1],
        counted=normalizer.counted,
        climatology=normalizer.climatology,
        calendar=_CALENDARS[state.input_shape[-1] - len(normalizer.scale)],
    )
