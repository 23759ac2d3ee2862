"""--mode=compare: the models of several workdirs on the same test examples."""

import os
import pathlib

from earthformer_jax.run.command_line import as_config_error
from earthformer_jax.settings import ConfigError

FOLDER = "comparison"


def compare(workdirs: str | None, output: str | None = None) -> list[pathlib.Path]:
    """Compares models, prints a table, and writes it with a figure.

    Args:
        workdirs: separated by commas.
        output: the folder to write into; None: `FOLDER`.

    Returns:
        the files written.

    Raises:
        ConfigError: if the workdirs cannot be compared; nothing has been written then.
        OSError: if a file cannot be written.
    """
    if not workdirs:
        raise ConfigError("--workdirs is missing, e.g. --workdirs=runs/a,runs/b")
    paths = [
        pathlib.Path(os.path.expanduser(name.strip()))
        for name in workdirs.split(",")
        if name.strip()
    ]
    folder = pathlib.Path(os.path.expanduser(output or FOLDER))
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--output={output or FOLDER} is a file: expected a folder")
    # Slow to import, and needed by no other mode.
    from earthformer_jax.reports.verification import comparison
    from earthformer_jax.reports.verification.compare import compare

    with as_config_error("--workdirs"):
        made = compare(paths)
    print(comparison.table(made), flush=True)
    files = comparison.write(made, folder)
    print("\nwritten: " + ", ".join(map(str, files)), flush=True)
    return files
