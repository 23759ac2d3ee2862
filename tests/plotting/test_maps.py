import numpy as np
import pytest

from earthformer_jax import plotting
from earthformer_jax.plotting.degrees import edges, longitude_text
from earthformer_jax.plotting.maps import coastline

LATITUDE = np.arange(-30.0, 31.0, 10.0)
LONGITUDE = np.arange(160.0, 291.0, 10.0)
OCEAN = np.ones((7, 14), bool)
OCEAN[4:, 11:] = False


def rows():
    rng = np.random.default_rng(0)
    return {
        name: np.where(OCEAN, rng.normal(size=(6, 7, 14)), np.nan)
        for name in ("Truth", "Model")
    }


def maps(**options):
    return plotting.forecast_maps(
        rows(),
        leads=(1, 3, 6),
        start_month=10,
        latitude=LATITUDE,
        longitude=LONGITUDE,
        ocean_mask=OCEAN,
        **options,
    )


def test_maps_have_a_row_per_field_and_a_column_per_lead():
    panels = [a for a in maps().axes if a.get_label() != "<colorbar>"]
    assert len(panels) == 6
    titles = [a.get_title() for a in panels[:3]]
    assert titles == ["Lead 1 (Nov)", "Lead 3 (Jan)", "Lead 6 (Apr)"]


def test_colours_are_centred_at_zero():
    for panel in maps().axes[:6]:
        low, high = panel.collections[0].get_clim()
        assert low == -high < 0


def test_index_is_written_on_the_maps():
    index = {"Truth": np.arange(6.0), "Model": -np.arange(6.0)}
    texts = [t.get_text() for a in maps(index=index).axes for t in a.texts]
    assert "Niño3.4 +5.0 K" in texts and "Niño3.4 −5.0 K" in texts


def testcoastline_lies_between_land_and_ocean():
    x, y = edges(LONGITUDE), edges(LATITUDE)
    segments = coastline(x, y, OCEAN)
    assert len(segments) == 3 + 3
    assert all(p[0] == 265 for s in segments[:3] for p in s)
    assert all(p[1] == 5 for s in segments[3:] for p in s)


@pytest.mark.parametrize(
    "value, text", ((0, "0°"), (190, "170°W"), (120, "120°E"), (180, "180°"))
)
def test_longitudes_read_well(value, text):
    assert longitude_text(value) == text
