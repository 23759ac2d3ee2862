import io

import numpy as np
from PIL import Image

from earthformer_jax.plotting import save_animation
from earthformer_jax.reports.page import images
from tests.reports.page.checking import decoded

NOISE = np.random.default_rng(0).integers(0, 256, (100, 600, 3), dtype=np.uint8)


def test_figures_are_scaled_down_until_they_fit(tmp_path):
    large, small, moving = tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.gif"
    Image.fromarray(NOISE).save(large)
    Image.fromarray(NOISE[:20, :20] * 0).save(small)
    save_animation(np.stack([NOISE, NOISE[::-1]]), moving)
    paths = [large, small, moving]
    made = images.encode(paths, most=150_000)
    sizes = [len(decoded(uri)) for uri, _, _ in made]
    assert sum(sizes) <= 150_000
    assert sum(p.stat().st_size for p in paths) > 1.3 * 150_000
    assert [(w, h) for _, w, h in made] == [(600, 100), (20, 20), (600, 100)]
    with Image.open(io.BytesIO(decoded(made[2][0]))) as image:
        assert image.n_frames == 2 and image.width < 600
        assert image.info["duration"] == 250


def test_what_fits_is_kept_as_it_is(tmp_path):
    path = tmp_path / "flat.gif"
    save_animation(np.zeros((2, 8, 8, 3), np.uint8), path)
    ((uri, _, _),) = images.encode([path])
    assert decoded(uri) == path.read_bytes()


def test_none_becomes_illegible(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(NOISE).save(path)
    ((uri, _, _),) = images.encode([path], most=10)
    with Image.open(io.BytesIO(decoded(uri))) as image:
        assert images.NARROWEST <= image.width < images.NARROWEST / images.SHRINK
