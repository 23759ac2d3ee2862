"""Small HDF5 files as radar services and satellite missions write them."""

import h5py
import numpy as np


def write(path, arrays, attributes=None):
    """Data sets by name, with attributes by name; returns the path as text."""
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
        for name, values in (attributes or {}).items():
            file.require_group(name) if name not in file else None
            file[name].attrs.update(values)
    return str(path)


def frames(count=40, rows=10, columns=12, seed=0):
    """float32 `[count, rows, columns]`."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, rows, columns)).astype(np.float32)


def with_scales(path, name, array, axes):
    """A data set with dimension scales in its group.

    Args:
        path: the file.
        name: of the data set.
        array: its values.
        axes: name, values and units of each axis.
    """
    with h5py.File(path, "w") as file:
        data = file.create_dataset(name, data=array)
        for place, (axis, values, units) in enumerate(axes):
            scale = data.parent.create_dataset(axis, data=values)
            scale.attrs["units"] = np.bytes_(units)
            scale.make_scale(axis)
            data.dims[place].attach_scale(scale)
    return str(path)


def odim(path, codes, clock, *, quantity="DBZH", date="20180824", kind="COMP", **what):
    """A composite of ODIM; `codes` `[h, w]`, or several by quantity."""
    if not isinstance(codes, dict):
        codes = {quantity: codes}
    rule = dict(gain=0.5, offset=-32.0, nodata=255.0, undetect=0.0) | what
    arrays, attributes = {}, {"/": {"Conventions": np.bytes_("ODIM_H5/V2_2")}}
    attributes["what"] = {
        "object": np.bytes_(kind),
        "date": np.bytes_(date),
        "time": np.bytes_(clock),
    }
    for i, (name, values) in enumerate(codes.items(), 1):
        arrays[f"dataset1/data{i}/data"] = values
        attributes[f"dataset1/data{i}/what"] = rule | {"quantity": np.bytes_(name)}
    return write(path, arrays, attributes)


def knmi(path, codes, moment, *, formula="GEO = 0.5 * PV + -32", missing=255):
    """An image of KNMI."""
    return write(
        path,
        {"image1/image_data": codes},
        {
            "image1": {
                "image_datetime_valid": np.bytes_(moment),
                "image_geo_parameter": np.bytes_("REFLECTIVITY_[DBZ]"),
            },
            "image1/calibration": {
                "calibration_formulas": np.bytes_(formula),
                "calibration_missing_data": missing,
                "calibration_out_of_image": missing,
            },
        },
    )
