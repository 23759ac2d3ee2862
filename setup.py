"""Installs the folder configs/ with the package; everything else is in setup.cfg."""

import setuptools

setuptools.setup(
    packages=[
        *setuptools.find_packages(include=["earthformer_jax*"]),
        "earthformer_jax.configs",
    ],
    package_dir={"earthformer_jax.configs": "configs"},
)
