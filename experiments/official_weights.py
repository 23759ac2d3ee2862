r"""A forecast by official weights of the Earthformer, as a file and as a picture.

    python experiments/official_weights.py earthformer_sevir.pt \
        --config=sevir:released --input=SEVIR --start=2019-06-11 --output=radar
    python experiments/official_weights.py earthformer_icarenso2021.pt \
        --config=enso:released --input=SODA_train.nc --output=enso

Writes radar.nc and radar_vil.png; enso.nc, enso_sst.png and figures of the indices.
--config is a config of this package, or the yaml file that comes with the weights.
Without --input, the forecast begins from the embedded data. The weights are on the page
of the reference implementation; `.pt` needs PyTorch to be read, `.npz` and
`.safetensors` do not.

Reference:
    https://github.com/amazon-science/earth-forecasting-transformer
"""

import argparse
import copy
import pathlib

import numpy as np
import xarray as xr

import earthformer_jax
from earthformer_jax import data
from earthformer_jax.data.forecasting.beginnings import Starts
from earthformer_jax.plotting import forecast as figures
from earthformer_jax.run.trained import TrainedModel


def last_inputs(
    trained: TrainedModel, forecast: xr.Dataset, path: str | None, start: str
) -> xr.Dataset:
    """The frame that a forecast begins from, as `plotting.forecast.draw` takes it."""
    fields = copy.deepcopy(trained.config.data)
    with fields.unlocked():
        fields.path = path or fields.path
    found = data.beginnings(fields, trained.state, Starts(start))
    frame = found.windows[0]["inputs"][-1:]
    minutes = None if found.reference is None else found.reference.minutes[:1]
    values = found.decode(frame[..., : len(found.variables)], minutes)
    shown = {}
    for i, variable in enumerate(found.variables):
        like = forecast[variable.name]
        shown[variable.name] = (("time", *like.dims[-2:]), values[..., i])
    time = forecast.get("forecast_reference_time", xr.DataArray(0))
    return xr.Dataset(shown, coords={"time": np.atleast_1d(time.values)})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", help=".pt, .npz or .safetensors")
    parser.add_argument("--config", required=True, help="sevir:released, or a yaml")
    parser.add_argument("--input", help="files to begin from")
    parser.add_argument("--start", default="last", help="last, or a date")
    parser.add_argument("--output", default="forecast", help="without a suffix")
    arguments = parser.parse_args()
    trained = earthformer_jax.load(arguments.weights, arguments.config)
    forecast = trained.forecast(arguments.input, arguments.start)
    inputs = last_inputs(trained, forecast, arguments.input, arguments.start)
    stem = pathlib.Path(arguments.output)
    stem = stem.with_suffix("") if stem.suffix in (".nc", ".png") else stem
    stem.parent.mkdir(parents=True, exist_ok=True)
    forecast.to_netcdf(f"{stem}.nc")
    for path in [f"{stem}.nc", *figures.draw(forecast, stem, inputs)]:
        print(f"written: {path}")


if __name__ == "__main__":
    main()
