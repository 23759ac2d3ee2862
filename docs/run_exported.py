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
    program = jax.export.deserialize(bytearray(file.read("program.stablehlo")))
    for name in file.namelist():
        folder, _, rest = name.partition("/")
        if folder in arrays:
            values = np.load(io.BytesIO(file.read(name)), allow_pickle=False)
            arrays[folder][rest.removesuffix(".npy")] = values

test = arrays["self_test"]  # in units of the data; yours have the same shapes
given = [test[name] for name in ("inputs", "minutes") if name in test]
forecast = np.asarray(program.call(arrays["weights"], *given))
expected = test["forecast"]
span = np.nanmax(expected) - np.nanmin(expected)
difference = np.nanmax(np.abs(forecast - expected)) / span
print(f"{about['model']}, {forecast.shape}: differs by {difference:.1e} of its range")
