"""The synthetic radar."""

import pickle

import numpy as np
import pytest

from earthformer_jax.data.sevir import twin as twin_lib
from earthformer_jax.data.sevir.twin import RadarTwin

COARSE = dict(frames=13, space_step=8)  # 48 x 48 pixels


def events(split="train", count=8, seed=0, **changes):
    twin = RadarTwin(split, count, seed=seed, **(COARSE | changes))
    return np.stack([twin[i] for i in range(count)])


class TestRadarTwin:
    def test_codes(self):
        codes = events(count=3)
        assert (codes.shape, codes.dtype) == ((3, 13, 48, 48), np.uint8)
        assert codes.max() <= 254

    def test_an_event_is_a_function_of_its_number(self):
        twin = RadarTwin("test", 10**9, **COARSE)
        copy = pickle.loads(pickle.dumps(twin))
        np.testing.assert_array_equal(twin[123_456_789], copy[123_456_789])
        np.testing.assert_array_equal(events(count=3)[2], events(count=8)[2])

    def test_events_splits_and_seeds_differ(self):
        a, b = events(count=2)
        for other in (b, *events("validation", 1), *events(count=1, seed=1)):
            assert np.mean(a != other) > 0.1

    def test_rows_and_blocks_make_no_difference(self, monkeypatch):
        """How many rows are computed at a time changes only the order of sums."""
        one = events(count=2, frames=3, space_step=4).astype(int)
        monkeypatch.setattr(twin_lib, "ROWS", 32)
        monkeypatch.setattr(twin_lib, "BLOCK_ROWS", 8)
        monkeypatch.setattr(twin_lib, "BLOCK_COLUMNS", 32)
        other = events(count=2, frames=3, space_step=4).astype(int)
        assert np.abs(one - other).max() <= 1
        assert np.mean(one != other) < 1e-3

    def test_looks_like_sevir(self):
        """Mean 33.44 and deviation 47.54 are those of SEVIR; heavy rain is rare."""
        codes = events(count=60, frames=2).astype(float)
        assert 25 < codes.mean() < 42
        assert 38 < codes.std() < 56
        shares = [np.mean(codes >= t) for t in (16, 74, 133, 160, 181, 219)]
        assert shares[0] > 0.2
        assert 1e-4 < shares[-1] < 0.01
        assert np.all(np.diff(shares) < 0)

    def test_rain_moves(self):
        """Half an hour later a moved picture fits better than the old one."""
        still, moved = 0.0, 0.0
        for event in events(count=12, frames=7).astype(float):
            first, last = event[0], event[6]
            errors = {
                (i, j): np.mean(
                    (np.roll(first, (i, j), (0, 1)) - last)[6:-6, 6:-6] ** 2
                )
                for i in range(-6, 7)
                for j in range(-6, 7)
            }
            still += errors[0, 0]
            moved += min(errors.values())
        assert moved < 0.6 * still

    def test_pictures_change_slowly(self):
        codes = events(count=6).astype(float)
        lags = [
            np.corrcoef(codes[:, 0].ravel(), codes[:, k].ravel())[0, 1]
            for k in (1, 4, 12)
        ]
        assert lags[0] > 0.9
        assert lags[0] > lags[1] > lags[2] > 0

    def test_the_same_rain_at_any_resolution(self):
        fine = events(count=4, frames=2, space_step=2).astype(float)
        coarse = events(count=4, frames=2, space_step=8).astype(float)
        fine = fine.reshape(4, 2, 48, 4, 48, 4).mean(axis=(3, 5))
        assert np.corrcoef(fine.ravel(), coarse.ravel())[0, 1] > 0.8

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                dict(split="tset"),
                "split 'tset' is unknown; use one of train, validation",
            ),
            (dict(size=0), "size=0 must be positive"),
            (dict(space_step=7), "space_step=7 does not divide the 384 km"),
        ],
    )
    def test_errors(self, change, message):
        with pytest.raises(ValueError, match=message):
            RadarTwin(**(dict(split="train", size=1) | COARSE | change))

    def test_ends(self):
        twin = RadarTwin("train", 2, **COARSE)
        for index in (-1, 2):
            with pytest.raises(IndexError, match=f"event {index} of 2"):
                twin[index]


def moved(monkeypatch, field, shift, pixels):
    """A corner of the texture that a field `[n, n]` is, one shift later."""

    def noise(rng, km, out):
        out[...] = field[:, None]

    monkeypatch.setattr(twin_lib, "_noise", noise)
    monkeypatch.setattr(twin_lib, "TEXTURE_PERIOD", float(len(field)))
    monkeypatch.setattr(twin_lib, "TEXTURE_LIFE", np.inf)
    rng, minutes = np.random.default_rng(0), np.array([0.0, 1.0])
    texture = twin_lib._Texture(rng, shift, minutes, pixels, km=1.0)
    return texture.rows(1, slice(0, pixels))


class TestParts:
    def test_one_cell(self):
        """Highest in the middle of its life, where the wind has carried it."""
        cells = twin_lib.Cells(
            place=np.array([[100.0, 200.0]]),
            velocity=np.array([[0.5, -1.0]]),
            middle=np.array([30.0]),
            life=np.array([60.0]),
            peak=np.array([8.0]),
            size=np.array([[10.0, 20.0]]),
        )
        minutes = np.array([0.0, 15.0, 30.0, 45.0, 60.0])
        all_cells, rain = twin_lib._Rain(cells, minutes, pixels=384, km=1.0), []
        strips = [slice(k, k + twin_lib.ROWS) for k in range(0, 384, twin_lib.ROWS)]
        assert not any(all_cells.rows(t, x) is not None for t in (0, 4) for x in strips)
        rain = np.zeros((5, 384, 384), np.float32)
        for t in (1, 2, 3):
            for rows in strips:
                if (found := all_cells.rows(t, rows)) is not None:
                    rain[t, rows] = found
        centre = np.arange(384) + 0.5
        for k, minute in enumerate((15, 30, 45), 1):
            age = minute / 60
            north = (centre - (100 + 0.5 * (minute - 30))) / (10 * (0.7 + 0.6 * age))
            east = (centre - (200 - (minute - 30))) / (20 * (0.7 + 0.6 * age))
            distance = north[:, None] ** 2 + east[None, :] ** 2
            height = 8 * np.sin(np.pi * age) ** 2
            np.testing.assert_allclose(
                rain[k], height * np.exp(-distance / 2), rtol=1e-4, atol=1e-6
            )

    def test_noise(self):
        """Two fields of the same spectrum, which do not depend on each other."""
        fields = np.empty((64, 2, 64), np.float32)
        twin_lib._noise(np.random.default_rng(0), 8.0, fields)
        np.testing.assert_allclose(fields.mean(axis=(0, 2)), 0, atol=1e-6)
        spread = twin_lib.TEXTURE_SPREAD
        np.testing.assert_allclose(fields.std(axis=(0, 2)), spread, rtol=1e-5)
        a, b = fields[:, 0], fields[:, 1]
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.2
        white = np.random.default_rng(0).standard_normal((64, 64), np.float32)
        waves = np.fft.fft2(white) * twin_lib._amplitude(64, 8.0)
        waves[0, 0] = 0
        want = np.fft.ifft2(waves).real
        np.testing.assert_allclose(a, want * spread / want.std(), atol=1e-5)

    def test_one_pixel_has_no_noise(self):
        fields = np.ones((1, 2, 1), np.float32)
        twin_lib._noise(np.random.default_rng(0), 384.0, fields)
        np.testing.assert_array_equal(fields, 0)

    def test_wind_without_divergence(self):
        rng = np.random.default_rng(0)
        wind = twin_lib._wind(rng)
        assert np.trace(wind.gradient) == pytest.approx(0, abs=1e-12)
        middle = np.full((1, 2), 192.0)
        np.testing.assert_allclose(wind.at(middle)[0], wind.mean)
        speed = np.linalg.norm(wind.mean)
        assert twin_lib.WIND_SPEED[0] <= speed <= twin_lib.WIND_SPEED[1]

    def test_whole_pixels_roll(self, monkeypatch):
        field = np.random.default_rng(0).standard_normal((10, 10)).astype(np.float32)
        for shift in ((0, 0), (3, -2), (-11, 25)):
            np.testing.assert_allclose(
                moved(monkeypatch, field, np.array(shift), 10),
                np.roll(field, shift, (0, 1)),
                rtol=1e-6,
            )

    def test_parts_of_pixels(self, monkeypatch):
        """A wave of 16 pixels is where it should be, to a thousandth."""
        at = 2 * np.pi * np.arange(32) / 16
        field = (np.sin(at)[:, None] * np.cos(at)[None, :]).astype(np.float32)
        have = moved(monkeypatch, field, np.array([2.3, -0.6]), 20)
        i, j = np.arange(20)[:, None] - 2.3, np.arange(20)[None, :] + 0.6
        want = np.sin(2 * np.pi * i / 16) * np.cos(2 * np.pi * j / 16)
        np.testing.assert_allclose(have, want, atol=5e-3)
