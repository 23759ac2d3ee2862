"""python -m earthformer_jax, and the command earthformer-jax: the same as main.py."""

import runpy


def run() -> None:
    """Runs `earthformer_jax.main` as `python -m earthformer_jax.main` does."""
    runpy.run_module("earthformer_jax.main", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    run()
