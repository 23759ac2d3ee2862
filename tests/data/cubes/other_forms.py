"""Series of fields in other forms, and what forecasts of them begin from."""

import numpy as np
import xarray as xr

from earthformer_jax.data.cubes import beginnings, cube
from earthformer_jax.data.forecasting.beginnings import Starts
from tests.data import cube_files

FRAMES, IN_LEN = 40, 4
LATITUDE, LONGITUDE = 10 + 2.5 * np.arange(4), 340 + 10.0 * np.arange(5)
STANDARD = {"T": "air_temperature", "P": "precipitation_flux"}


def globe(frames=FRAMES, latitude=LATITUDE, longitude=None) -> xr.Dataset:
    """Steps of 1/1000 K on a circle of longitudes, so that int16 can hold them."""
    longitude = 10.0 * np.arange(36) if longitude is None else longitude
    data = cube_files.dataset(frames, latitude=latitude, longitude=longitude)
    data["T"] = (data["T"] * 1000).round() / 1000
    for name, standard_name in STANDARD.items():
        data[name].attrs = {
            "units": {"T": "K", "P": "mm/day"}[name],
            "standard_name": standard_name,
        }
    return data


def at(data: xr.Dataset, longitude=LONGITUDE) -> xr.Dataset:
    """The cells of the training, across Greenwich: 340, 350, 0, 10, 20."""
    return data.sel(lon=np.asarray(longitude) % 360)


def days() -> xr.Dataset:
    return at(globe())


def trained(path, data, **settings):
    """The state of a training on a data set, which is written to a file."""
    cube_files.write(data, path)
    chosen = cube.Settings(path=str(path), in_len=IN_LEN, out_len=3, **settings)
    make_state = cube.load(chosen).data.state
    assert make_state is not None
    return make_state()


def find(path, state, data=None, starts=None, allow_other_grid=False, **settings):
    """What forecasts begin from, in a file that is written if `data` is given."""
    if data is not None:
        path = cube_files.write(data, path)
    return beginnings.find(
        cube.Settings(path=str(path), in_len=IN_LEN, out_len=3, **settings),
        state,
        starts or Starts(),
        allow_other_grid=allow_other_grid,
    )


def kelvin(found):
    """The last inputs in the units of the training."""
    assert len(found.windows) == 1
    return found.decode(found.windows[0]["inputs"], None)


def finer(data, step=2):
    """Every cell becomes step x step, whose mean it is."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((len(data.time), len(data.lat), len(data.lon)))
    latitude, longitude = (
        np.repeat(x, step) + width * np.tile((np.arange(step) - (step - 1) / 2), len(x))
        for x, width in ((data.lat.values, 2.5 / step), (data.lon.values, 10 / step))
    )
    fields = {}
    for name, array in data.items():
        values = np.repeat(np.repeat(array.values, step, 1), step, 2).astype("f8")
        values[:, ::step, ::step] += noise
        values[:, 1::step, ::step] -= noise
        fields[name] = (array.dims, values.astype("f4"), array.attrs)
    return xr.Dataset(
        fields, {"time": data.time, "lat": latitude, "lon": longitude % 360}
    )


def units(data, **changes):
    """The data set with variables in other units: name=(factor, offset, unit)."""
    data = data.copy()
    for name, (factor, offset, unit) in changes.items():
        values = data[name].astype("f8") * factor + offset
        data[name] = values.astype("f4").assign_attrs(data[name].attrs, units=unit)
    return data


def steps(data, step="D", first="2001-01-01"):
    """The data set at other times."""
    moments = np.datetime64(first, step[-1]) + np.arange(len(data.time)) * int(
        step[:-1] or 1
    )
    return data.assign_coords(time=moments.astype("datetime64[ns]"))


def holes(data, *frames):
    """The data set without some frames."""
    return data.isel(time=[i for i in range(len(data.time)) if i not in frames])


def without_coordinates(data):
    return data.drop_vars(["lat", "lon"])
