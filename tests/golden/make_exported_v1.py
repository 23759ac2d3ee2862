"""Makes exported_v1.efx, a file of the first format.

python -m tests.golden.make_exported_v1

The file stays as it is when the format changes: later versions must read it.
"""

import contextlib
import pathlib
import tempfile

import numpy as np

import earthformer_jax as ef
from tests.data import cube_files

PATH = pathlib.Path(__file__).with_name("exported_v1.efx")


def main() -> None:
    """Trains a small ConvLSTM for four steps and exports it."""
    fields = cube_files.dataset(800, latitude=np.arange(8.0), longitude=np.arange(8.0))
    fields["T"][:, 0, 0] = np.nan
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        cube_files.write(fields, pathlib.Path("days.nc"))
        changes = {
            "data.path": "days.nc",
            "data.targets": ("T",),
            "data.anomalies": True,
        }
        changes |= {"data.calendar": True}
        config = ef.load_config("custom:test,conv_lstm", changes)
        ef.train(config, "run").export(PATH, card="# A test", overwrite=True)


if __name__ == "__main__":
    main()
