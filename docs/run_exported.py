"""Runs an exported model: python run_exported.py model.efx

It needs jax, numpy and flatbuffers (with which JAX stores programs), nothing else.
"""

import hashlib
import io
import json
import sys
import zipfile

import jax.export
import numpy as np

content = open(sys.argv[1], "rb").read()
if hashlib.sha256(content[:-64]).hexdigest().encode() != content[-64:]:
    sys.exit(f"{sys.argv[1]} is damaged or incomplete")
arrays = {"weights": {}, "self_test": {}}
with zipfile.ZipFile(io.BytesIO(content)) as file:
    about = json.loads(file.read("metadata.json"))
    programs = {
        name: jax.export.deserialize(bytearray(file.read(name)))
        for name in file.namelist()
        if name.endswith(".stablehlo")
    }
    for name in file.namelist():
        folder, _, rest = name.partition("/")
        if folder in arrays:
            values = np.load(io.BytesIO(file.read(name)), allow_pickle=False)
            arrays[folder][rest.removesuffix(".npy")] = values

test = arrays["self_test"]  # in units of the data; yours have the same shapes
given = [test[name] for name in ("inputs", "minutes") if name in test]
forecast = programs["program.stablehlo"].call(arrays["weights"], *given)
made = {"forecast": np.asarray(forecast)}
if "members.stablehlo" in programs:  # of models that draw: those from number 0 on
    members = programs["members.stablehlo"].call(arrays["weights"], *given, np.int32(0))
    made["members"] = np.asarray(members)
for name, values in made.items():
    span = np.nanmax(test[name]) - np.nanmin(test[name])
    difference = np.nanmax(np.abs(values - test[name])) / span
    what = f"{about['model']}, {name} {values.shape}"
    print(f"{what}: differs by {difference:.1e} of its range")
