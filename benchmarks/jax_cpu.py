"""JAX on the cores of one machine: devices, and how fast it multiplies matrices."""

import time

import jax
import jax.numpy as jnp

from benchmarks import machine
from earthformer_jax.training import mesh as mesh_lib


def data_mesh(devices: int) -> jax.sharding.Mesh:
    """A mesh with one axis "data" over this many CPU devices.

    Call it before anything else that uses a device.
    """
    jax.config.update("jax_num_cpu_devices", devices)
    return mesh_lib.data_mesh()


def matrix_seconds(repeats: int = 1) -> float:
    """Time of a product of two float32 matrices (the best of several)."""
    matrix = jnp.full((machine.MATRIX_SIZE, machine.MATRIX_SIZE), 0.5, jnp.float32)
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(matrix, matrix))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(product(matrix, matrix))
        times.append(time.perf_counter() - start)
    return min(times)


def matrix_gflops(repeats: int = 5) -> float:
    """10^9 floating-point operations per second; a multiply-add is two."""
    return machine.MATRIX_OPERATIONS / matrix_seconds(repeats) / 1e9
