"""Weather radar in HDF5: composites of ODIM (OPERA) and images of KNMI.

Both store codes. ODIM gives gain, offset, `nodata` and `undetect` in the groups `what`
(OPERA working document WD_2008_03); KNMI gives the formula and the codes without data
in the group `calibration` (KNMI HDF5 data format specification 3.5).
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from earthformer_jax.data.readers import decoding
from earthformer_jax.data.readers.hdf5.contents import text
from earthformer_jax.data.readers.layout import no_variable
from earthformer_jax.data.readers.times import Times
from earthformer_jax.data.readers.values.missing import Coding

POLAR = ("PVOL", "SCAN", "RAY", "AZIM", "ELEV", "XSEC", "VP")
REFLECTIVITY = ("DBZH", "DBZV", "DBZ", "TH", "TV", "T")
UNITS = dict.fromkeys(REFLECTIVITY, "dBZ") | {
    "RATE": "mm/h",
    "ACRR": "mm",
    "VRAD": "m/s",
    "VIL": "kg/m2",
    "HGHT": "km",
}
# Values where there is no echo, if the stored codes have no smallest value for it.
NO_ECHO = dict.fromkeys(REFLECTIVITY, -32.0) | {"RATE": 0.0, "ACRR": 0.0, "VIL": 0.0}
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT") + (
    "NOV",
    "DEC",
)


@dataclasses.dataclass(frozen=True)
class RadarField:
    """A field of codes at one time.

    Attributes:
        dataset: its path in the file.
        quantity: what it measures, "DBZH".
        units: of the values.
        coding: from codes to values.
        undetected: the code for "no echo", and its value; None if there is none.
        time: digits, "20180824021500"; "" if unknown.
    """

    dataset: str
    quantity: str
    units: str
    coding: Coding
    undetected: tuple[float, float] | None
    time: str

    def __post_init__(self) -> None:
        """Tells the coding that "no echo" is a value."""
        if self.undetected is not None:
            known = dataclasses.replace(self.coding, known=self.undetected[1:])
            object.__setattr__(self, "coding", known)

    def decode(self, stored: np.ndarray, missing: Sequence[float]) -> np.ndarray:
        """float32 values of codes; NaN where missing."""
        values = self.coding.decode(stored, missing)
        if self.undetected is not None:
            code, value = self.undetected
            values[stored == code] = np.nan if value in missing else value
        return values

    @property
    def note(self) -> str:
        """What the codes mean."""
        coding = self.coding
        parts = []
        if coding.packed:
            sign = "-" if coding.offset < 0 else "+"
            offset = f" {sign} {abs(coding.offset):g}" if coding.offset else ""
            parts.append(f"{coding.scale:g} * code{offset}")
        if coding.fills:
            codes = " and ".join(f"{code:g}" for code in coding.fills)
            several = len(coding.fills) > 1
            parts.append(f"codes {codes} are" if several else f"code {codes} is")
            parts[-1] += " missing"
        if self.undetected is not None:
            code, value = self.undetected
            parts.append(f"code {code:g} is no echo, {value:g}")
        return f"{self.quantity}: {'; '.join(parts) or 'stored as values'}"


def find_fields(
    file: h5py.File, arrays: Mapping[str, h5py.Dataset], path: Path
) -> list[RadarField]:
    """The fields of a file that follows one of the conventions; [] if it does not.

    Raises:
        ValueError: if it contains polar data, or a formula that is not understood.
    """
    what = _attributes(file, "what")
    kind = text(what.get("object", "")).upper()
    if kind in POLAR and "dataset1" in file:
        raise ValueError(
            f"path={path} cannot be read: it is ODIM with polar data (object={kind}: "
            "rays and bins of one radar, not a map). Make a composite or a Cartesian "
            "image first, for example with wradlib or Py-ART"
        )
    if text(file.attrs.get("Conventions", "")).startswith("ODIM") or kind:
        fields = list(_odim(file, arrays, what))
        if fields:
            return fields
    if "scan1" in file and not any(str(name).startswith("image") for name in file):
        raise ValueError(
            f"path={path} cannot be read: it is a polar volume of KNMI (scan1, ...), "
            "not a map. Make a Cartesian image first, for example with wradlib"
        )
    return list(_knmi(file, arrays, path))


def chosen(
    fields: Sequence[RadarField], variables: Sequence[str], path: Path
) -> tuple[tuple[str, ...], list[list[RadarField]]]:
    """Names of the channels, and the fields of each time, in the order of time.

    Args:
        fields: of the file.
        variables: data sets or quantities; () for all quantities.
        path: of the file.

    Raises:
        ValueError: if there is no such variable, or if times have different ones.
    """
    wanted = list(fields)
    names = {field.dataset: field.quantity for field in fields}
    if variables:
        wanted = []
        for variable in variables:
            found = [
                field
                for field in fields
                if variable.strip("/") == field.dataset
                or variable.upper() == field.quantity.upper()
            ]
            if not found:
                there = [f"{field.dataset} ({field.quantity})" for field in fields]
                raise no_variable(path, variable, there)
            wanted += found
            names |= {field.dataset: variable for field in found}
    frames: dict[str, list[RadarField]] = {}
    for field in wanted:
        frames.setdefault(field.time, []).append(field)
    rows = [frames[time] for time in sorted(frames)]
    channels = [tuple(names[field.dataset] for field in row) for row in rows]
    if len(set(channels)) > 1 or len(set(channels[0])) < len(channels[0]):
        there = ", ".join(f"{f.dataset} ({f.quantity} {f.time})" for f in wanted)
        raise ValueError(
            f"{path} has several fields of one quantity and time: {there}. Choose "
            f"one, for example variables={wanted[0].dataset}"
        )
    return channels[0], rows


def times_of(rows: Sequence[Sequence[RadarField]]) -> Times | None:
    """Times of the rows of `chosen`; None if a time is unknown."""
    texts = [row[0].time for row in rows]
    return decoding.decode(np.array(texts)) if all(texts) else None


def _odim(
    file: h5py.File, arrays: Mapping[str, h5py.Dataset], root: Mapping
) -> Iterator[RadarField]:
    nominal = text(root.get("date", "")) + text(root.get("time", ""))
    found = [n for n in arrays if re.fullmatch(r"dataset\d+/data\d+/data", n)]
    several = len({name.split("/")[0] for name in found}) > 1
    for name in sorted(found, key=lambda n: [int(x) for x in re.findall(r"\d+", n)]):
        array = arrays[name]
        if array.ndim != 2:
            continue
        outer, inner, _ = name.split("/")
        above = _attributes(file, f"{outer}/what")
        what = {**root, **above, **_attributes(file, f"{outer}/{inner}/what")}
        quantity = text(what.get("quantity", "")) or "value"
        own = text(above.get("enddate", "")) + text(above.get("endtime", ""))
        coding = Coding(
            dtype=array.dtype.newbyteorder("="),
            scale=_number(what.get("gain"), 1.0),
            offset=_number(what.get("offset"), 0.0),
            fills=tuple(_numbers(what.get("nodata"))),
        )
        undetected = None
        for code in _numbers(what.get("undetect")):
            if code in coding.fills:
                continue
            if coding.dtype.kind in "ub" and coding.scale > 0:
                undetected = code, coding.value(0.0)
            elif quantity.upper() in NO_ECHO:
                undetected = code, NO_ECHO[quantity.upper()]
            else:
                coding = dataclasses.replace(coding, fills=(*coding.fills, code))
        yield RadarField(
            dataset=name,
            quantity=quantity,
            units=UNITS.get(quantity.upper(), ""),
            coding=coding,
            undetected=undetected,
            time=_digits(own if several and own else nominal or own),
        )


def _knmi(
    file: h5py.File, arrays: Mapping[str, h5py.Dataset], path: Path
) -> Iterator[RadarField]:
    overview = _attributes(file, "overview")
    found = [n for n in arrays if re.fullmatch(r"image\d+/image_data", n)]
    for name in sorted(found, key=lambda n: int(re.findall(r"\d+", n)[0])):
        group = name.split("/")[0]
        calibration = _attributes(file, f"{group}/calibration")
        formula = text(calibration.get("calibration_formulas", ""))
        if arrays[name].ndim != 2 or not formula:
            continue
        scale, offset = _formula(formula, f"{path}: {name!r}")
        codes = [
            code
            for key in ("calibration_missing_data", "calibration_out_of_image")
            for code in _numbers(calibration.get(key))
        ]
        image = _attributes(file, group)
        quantity, _, units = text(image.get("image_geo_parameter", "")).partition("_[")
        moment = text(image.get("image_datetime_valid", "")) or text(
            overview.get("product_datetime_end", "")
        )
        units = units.strip("[]")
        yield RadarField(
            dataset=name,
            quantity=quantity or "value",
            units={"DBZ": "dBZ"}.get(units.upper(), units.lower()),
            coding=Coding(
                dtype=arrays[name].dtype.newbyteorder("="),
                scale=scale,
                offset=offset,
                fills=tuple(dict.fromkeys(codes)),
            ),
            undetected=None,
            time=_knmi_digits(moment),
        )


def _formula(formula: str, what: str) -> tuple[float, float]:
    """(0.5, -32.0) of "GEO = 0.5 * PV + -32"."""
    plain = re.sub(r"\s", "", formula).upper().replace("+-", "-").replace("-+", "-")
    number = r"[-+]?[\d.]+(?:E[-+]?\d+)?"
    found = re.fullmatch(rf"GEO=(?:({number})\*)?PV([-+]{number})?", plain)
    if found is None:
        raise ValueError(
            f"{what} has calibration_formulas={formula!r}; expected GEO = a * PV + b, "
            "such as 'GEO = 0.5 * PV + -32'. Convert the codes to values"
        )
    return float(found[1] or 1), float(found[2] or 0)


def _knmi_digits(moment: str) -> str:
    """ "20100826035500" of "26-AUG-2010;03:55:00.000"; "" if it is not a time."""
    found = re.match(r"(\d+)-([A-Z]{3})-(\d{4});(\d+):(\d+):(\d+)", moment.upper())
    if found is None or found[2] not in MONTHS:
        return ""
    day, month, year, *clock = found.groups()
    parts = [day, MONTHS.index(month) + 1, *clock]
    return year + "".join(f"{int(x):02d}" for x in [parts[1], parts[0], *parts[2:]])


def _digits(moment: str) -> str:
    return moment if re.fullmatch(r"\d{8}(\d{2}){0,3}", moment) else ""


def _attributes(file: h5py.File, group: str) -> Mapping:
    found = file.get(group)
    return dict(found.attrs) if isinstance(found, h5py.Group) else {}


def _numbers(value) -> list[float]:
    """The numbers of an attribute, also if it is text; [] without one."""
    if value is None or isinstance(value, h5py.Empty):
        return []
    try:
        return [float(x) for x in np.asarray(value).ravel()]
    except ValueError:
        return []


def _number(value, default: float) -> float:
    return (_numbers(value) or [default])[0]
