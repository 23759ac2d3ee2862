r"""`tfds build` for an installation without TensorFlow.

    python datasets/build.py datasets/nbody_mnist --data_dir=DATA [options]

The `tfds` program imports all of its commands at start-up, and one of them needs
TensorFlow. This script runs only its `build` command, with the same options: among them
`--beam_pipeline_options=runner=...`, with which Apache Beam makes the examples, on one
machine or on many.
"""

import sys

from absl import app
from tensorflow_datasets.scripts.cli import build, cli_utils

from earthformer_jax.data.tfds_examples import check_beam

WRONG_INPUT = 2


def main(arguments: build.Args) -> int:
    """Builds the data set given on the command line; returns the exit status."""
    try:
        if arguments.generation.beam_pipeline_options:
            check_beam()  # TFDS would go on without it
        arguments.execute()
    except (ValueError, OSError, AssertionError) as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG_INPUT
    return 0


if __name__ == "__main__":
    app.run(main, flags_parser=cli_utils.make_flags_parser(build.Args, __doc__))
