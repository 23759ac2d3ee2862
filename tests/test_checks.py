"""Public functions refuse arrays and values of the wrong kind, by their names."""

import functools

import numpy as np
import pytest

from earthformer_jax import losses
from earthformer_jax.metrics import channels, frames, pixel, precipitation
from earthformer_jax.metrics.statistics import ssim
from earthformer_jax.ops import (
    attention,
    convolution,
    cuboid,
    dense,
    dropout,
    global_attention,
    moments,
    norm,
    patches,
    patterns,
    resample,
    stencil,
)
from earthformer_jax.ops.cuboid import CuboidSpec
from earthformer_jax.ops.patterns import CrossSpec

NAN = float("nan")
FIELD = np.zeros((1, 4, 6, 8, 2), np.float32)
SPEC = CuboidSpec((2, 3, 4))
Q, K = np.ones((1, 2, 3, 2, 4), np.float32), np.ones((1, 2, 5, 2, 4), np.float32)
G = np.ones((1, 7, 2, 4), np.float32)
PLANE = np.ones((1, 4, 6, 2), np.float32)
KERNEL = np.ones((3, 3, 2, 5), np.float32)
TARGETS = np.zeros((2, 3, 12, 12, 1), np.float32)
attend = functools.partial(attention.attend, scale=1.0)
attend_global = functools.partial(global_attention.attend_global, scale=1.0)


def score(metric, forecast, **batch):
    return metric.update(metric.init(), forecast, dict(targets=TARGETS) | batch)


# Function and its good arguments.
CASES = {
    "cut": (cuboid.cut, dict(x=FIELD, size=(2, 3, 4), strategy="lll")),
    "uncut": (
        cuboid.uncut,
        dict(x=np.zeros((1, 8, 24, 2)), size=(2, 3, 4), strategy="lld", grid=(4, 6, 8)),
    ),
    "decompose": (cuboid.decompose, dict(x=FIELD, spec=SPEC, padding="zeros")),
    "merge": (
        cuboid.merge,
        dict(x=np.zeros((1, 8, 24, 2)), spec=SPEC, grid=(4, 6, 8), padding="zeros"),
    ),
    "CuboidSpec": (CuboidSpec, dict(size=(1, 2, 2), strategy="ldl", shift=(0, 1, 1))),
    "CrossSpec": (CrossSpec, dict(size=(2, 2), strategy="lll", n_temporal=1)),
    "pattern": (patterns.self_attention, dict(name="axial", grid=(4, 6, 8))),
    "cross pattern": (patterns.cross_attention, dict(name="cross_1x1", grid=(4, 6, 8))),
    "resize_nearest": (resample.resize_nearest, dict(x=FIELD, grid=(4, 3, 8))),
    "pad_grid": (resample.pad_grid, dict(x=FIELD, grid=(4, 6, 9), padding="zeros")),
    "unpad_grid": (resample.unpad_grid, dict(x=FIELD, grid=(4, 5, 8), padding="zeros")),
    "patch_merge": (
        resample.patch_merge,
        dict(x=FIELD, factor=(1, 2, 2), padding="nearest"),
    ),
    "upsample": (
        resample.upsample_convolve,
        dict(x=PLANE, kernel=KERNEL, plane=(8, 12)),
    ),
    "patches": (patches.reshape_patch, dict(x=PLANE, patch=2)),
    "patches back": (
        patches.reshape_patch_back,
        dict(x=np.ones((1, 2, 3, 8)), patch=2),
    ),
    "attend": (attend, dict(query=Q, key=K, value=K)),
    "attend, masked": (
        attend,
        dict(query=Q, key=K, value=K, mask=np.ones((2, 3, 5), bool)),
    ),
    "attend_global": (attend_global, dict(query=G, key=K, value=K)),
    "recall": (global_attention.recall, dict(query=FIELD, history=FIELD)),
    "dense": (dense.dense, dict(x=PLANE, kernel=np.ones((2, 3)))),
    "layer_norm": (
        functools.partial(norm.layer_norm, epsilon=1e-5),
        dict(x=PLANE, scale=np.ones(2), offset=np.ones(2)),
    ),
    "convolve": (
        functools.partial(convolution.convolve, padding=((1, 1), (1, 1))),
        dict(x=PLANE, kernel=KERNEL),
    ),
    "convolve_clips": (
        convolution.convolve_clips,
        dict(x=FIELD, kernel=np.ones((2, 3, 3, 2, 1), np.float32)),
    ),
    "shrink": (convolution.shrink, dict(x=PLANE, kernel=KERNEL, stride=2)),
    "enlarge": (convolution.enlarge, dict(x=PLANE, kernel=KERNEL, stride=2)),
    "moments": (moments.moment_loss, dict(kernel=np.ones((3, 3, 2, 9), np.float32))),
    "stencil": (
        functools.partial(
            stencil.apply_stencil, offsets=((0, 0), (0, 1)), plane=(4, 6)
        ),
        dict(x=PLANE, weights=np.ones((2, 2))),
    ),
    "ssim": (ssim.ssim, dict(forecast=TARGETS[..., 0], target=TARGETS[..., 0])),
    "mse": (
        functools.partial(losses.create_loss("mse"), weights=np.ones(1)),
        dict(forecast=TARGETS, targets=TARGETS),
    ),
    "afcrps": (
        functools.partial(losses.create_loss("afcrps"), weights=np.ones(1)),
        dict(forecast=TARGETS[None], targets=TARGETS),
    ),
    "PixelError": (
        functools.partial(score, pixel.PixelError()),
        dict(forecast=TARGETS),
    ),
    "FrameScores": (
        functools.partial(score, frames.FrameScores()),
        dict(forecast=TARGETS, observed=TARGETS == 0, valid=np.ones(2, bool)),
    ),
    "ChannelScores": (
        functools.partial(score, channels.ChannelScores(("a",))),
        dict(forecast=TARGETS, observed=TARGETS == 0),
    ),
    "RainScores": (
        functools.partial(score, precipitation.RainScores()),
        dict(forecast=TARGETS, valid=np.ones(2, bool)),
    ),
}
NO_ARRAYS = ("x", 3, [1.0], object())
WRONG = {
    tuple: (None, 5, 4.0, "axial", (), (4,), (4.5, 6, 8), (NAN, 6, 8), (True, 6, 8))
    + (("4", "6", "8"), (-1, 6, 8), (4, 6, 8, 2), np.ones((3, 3))),
    int: (0, -1, 2.5, NAN, True, "2", None, (2,), np.ones(2)),
    str: ("lxz", "", 5, None, 4.5, ("l", 3, "l"), np.ones(3), True),
    CuboidSpec: (None, (2, 3, 4), "axial"),
}


OPTIONAL = ("mask", "observed", "valid")
ANY_RANK = {"patches", "patches back", "dense", "layer_norm", "ssim"}


@pytest.mark.parametrize("case", CASES)
def test_functions(case):
    """Every argument is tried with one axis less and as other kinds of things."""
    function, good = CASES[case]
    function(**good)
    for name, value in good.items():
        if name == "plane":
            continue
        wrong = WRONG.get(type(value), ())
        if isinstance(value, np.ndarray):
            first = () if name in OPTIONAL else (None,)
            less = () if case in ANY_RANK else (value[0],)
            wrong = (*first, *less, *NO_ARRAYS)
        for other in wrong:
            with pytest.raises((ValueError, TypeError)) as refused:
                function(**good | {name: other})
            said = str(refused.value)
            assert (name if name != "name" else "pattern") in said, (name, other, said)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: attend(Q, K[:, :1], K), r"key has shape \(1, 1, 5, 2, 4\): expected"),
        (lambda: attend(Q, K, K[:, :, :4]), r"value .* \[1, 2, 5, 2, e\]"),
        (lambda: attend(Q, K[..., :3], K), r"\[b, n, s, a, d\] = \[1, 2, s, 2, 4\]"),
        (lambda: attend(Q, K, K, bias=np.ones((3, 3, 5))), "bias has shape"),
        (lambda: attend(Q, K, K, mask=np.ones((2, 3, 5))), "mask is of type float64"),
        (lambda: attend(Q, K, K, scale="1"), "scale='1': expected a number"),
        (lambda: attend(Q.astype(int), K, K), "query is of type int64: expected float"),
        (lambda: attend(Q, K, K, global_key=G, global_value=G[:, :6]), "global_value"),
        (lambda: attend(Q, K, K, global_key=G), "global_value=None: expected an array"),
        (lambda: attend(Q, K, K, dropout_rate=2.0, dropout_key=1), "rate=2.0"),
        (lambda: attend(Q, K, K, implementation=["xla"]), "implementation="),
        (lambda: dropout.dropout(Q, "half", None), "rate='half': expected a number"),
        (lambda: dropout.dropout(Q, NAN, None), "rate=nan: expected"),
        (lambda: cuboid.cut(FIELD, (3, 3, 4), "lll"), "expected a multiple of size="),
        (lambda: resample.pad_grid(FIELD, (4, 5, 8), "zeros"), "at least that of x"),
        (lambda: resample.unpad_grid(FIELD, (4, 7, 8), "zeros"), "at most that of x"),
        (
            lambda: score(pixel.PixelError(), TARGETS[:, :1]),
            r"forecast has shape \(2, 1, 12, 12, 1\): expected",
        ),
        (
            lambda: score(pixel.PixelError(np.ones((5, 1, 1, 1))), TARGETS),
            r"weights has shape \(5, 1, 1, 1\): expected",
        ),
        (
            lambda: score(frames.FrameScores(), TARGETS, observed=TARGETS[:1] == 0),
            "observed has shape",
        ),
        (
            lambda: score(pixel.PixelError(), TARGETS[..., [0, 0]]),
            "forecast has shape",
        ),
        (
            lambda: losses.create_loss("mse")(TARGETS[:, :1], TARGETS, np.ones(1)),
            "forecast has shape",
        ),
    ],
)
def test_what_is_said(call, message):
    with pytest.raises(ValueError, match=message):
        call()
