"""Extrapolation and S-PROG next to those of pysteps, an independent library.

Where it is installed: `pip install pysteps opencv-python-headless`. It is not among the
extras of the package.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.data.sevir.rain import RAIN
from earthformer_jax.data.sevir.twin import RadarTwin
from earthformer_jax.ops.nowcasting.motion import FRAMES, motion
from earthformer_jax.ops.nowcasting.semi_lagrangian import extrapolate, is_known
from earthformer_jax.ops.nowcasting.semi_lagrangian import trajectories as ways
from earthformer_jax.ops.nowcasting.sprog import s_prog

LEADS = 8


@pytest.fixture(scope="module")
def event():
    """Codes `[t, h, w]` of an event of the radar twin, at 3 km."""
    twin = RadarTwin("validation", 1, FRAMES + LEADS, space_step=3)
    return twin[0].astype(np.float32)


@pytest.fixture(scope="module")
def flow(event):
    return np.asarray(
        jax.jit(motion)(RAIN.above(jnp.asarray(event[:FRAMES, ..., None])))
    )


def carried(frame, flow):
    found = jax.jit(extrapolate, static_argnums=2)(frame[..., None], flow, LEADS)
    return np.asarray(found)[..., 0]


def pysteps_carried(frame, flow):
    """NaN where something flows in from outside."""
    library = pytest.importorskip("pysteps.extrapolation.semilagrangian")
    columns_first = np.moveaxis(flow[..., ::-1], -1, 0).astype(float)
    return library.extrapolate(frame.astype(float), columns_first, LEADS, n_iter=3)


def rmse(forecast, event, where):
    error = (forecast - event[FRAMES:])[where]
    return np.sqrt(np.mean(np.square(error)))


def test_the_same_motion_gives_the_same_forecast(event, flow):
    last = event[FRAMES - 1]
    ours, theirs = carried(last, flow), pysteps_carried(last, flow)
    inside = np.isfinite(theirs)
    known = np.asarray(is_known(jax.jit(ways, static_argnums=1)(flow, LEADS)))
    assert (known != inside).mean() < 0.01
    assert rmse(ours, event, inside) == pytest.approx(
        rmse(theirs, event, inside), rel=0.02
    )
    assert np.sqrt(np.mean((ours - theirs)[inside] ** 2)) < 2  # codes


def test_our_motion_is_as_good(event, flow):
    """Of squared errors with either motion; both are far better than persistence."""
    pytest.importorskip("cv2")
    lucaskanade = pytest.importorskip("pysteps.motion.lucaskanade")
    decibels = np.asarray(RAIN.above(jnp.asarray(event[:FRAMES])), float)
    found = lucaskanade.dense_lucaskanade(decibels)
    last = event[FRAMES - 1]
    theirs = pysteps_carried(last, np.moveaxis(found, 0, -1)[..., ::-1])
    inside = np.isfinite(theirs)
    ours, theirs = (rmse(x, event, inside) for x in (carried(last, flow), theirs))
    unmoved = rmse(np.broadcast_to(last, (LEADS, *last.shape)), event, inside)
    assert ours < 1.1 * theirs < 0.8 * unmoved


def test_s_prog_is_as_good(event, flow):
    """With one motion. Pysteps keeps the rainy area, which costs it squared errors."""
    library = pytest.importorskip("pysteps.nowcasts.sprog")
    columns_first = np.moveaxis(flow[..., ::-1], -1, 0).astype(float)
    theirs = library.forecast(
        event[:FRAMES][-3:].astype(float),
        columns_first,
        LEADS,
        precip_thr=16.0,
        n_cascade_levels=6,
        probmatching_method="mean",
    )
    run = jax.jit(s_prog, static_argnums=2)
    ours = np.asarray(run(event[:FRAMES, ..., None], flow, LEADS))[..., 0]
    inside = np.isfinite(theirs)
    assert 0.85 < rmse(ours, event, inside) / rmse(theirs, event, inside) < 1.02
