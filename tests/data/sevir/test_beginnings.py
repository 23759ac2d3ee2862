"""Frames of radar events that forecasts begin from."""

from typing import Any

import numpy as np
import pytest

from earthformer_jax import data
from earthformer_jax.data import tfds_source
from earthformer_jax.data.forecasting.beginnings import LAST, Beginnings, Starts
from earthformer_jax.data.readers import times
from earthformer_jax.data.sevir import sevir
from tests.data import sevir_layout

LENGTHS = dict(in_len=3, out_len=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return sevir_layout.write(tmp_path_factory.mktemp("sevir"))


@pytest.fixture(scope="module")
def trained(folder):
    """The state of a model trained on the files."""
    return state_of(config(folder))


def state_of(settings):
    state = data.load(settings).data.state
    assert state is not None
    return state()


def config(folder, **settings):
    return {"name": "sevir", "path": str(folder)} | LENGTHS | settings


def find(folder, state, starts=LAST, **settings: Any):
    return data.beginnings(config(folder, **settings), state, starts)


def short(folder, frames):
    """Files with the first frames of the events only."""
    table = sevir_layout.catalog()
    offsets = sevir_layout.OFFSETS.split(":")[:frames]
    table["minute_offsets"] = ":".join(offsets)
    codes = sevir_layout.codes(frames=sevir_layout.FRAMES)
    cut = {name: vil[..., :frames] for name, vil in codes.items()}
    return sevir_layout.write(folder, cut, table)


def dates(moments):
    assert moments is not None
    return [times.text(int(minute)) for minute in moments.minutes]


def following(found: Beginnings, count):
    assert found.following is not None
    return dates(found.following(0, count))


def frames_of(event):
    """Codes `[t, h, w]` of an event."""
    name, index = sevir_layout.place_of(event)
    return np.moveaxis(sevir_layout.codes()[name][index], -1, 0)


def test_the_last_frames_of_the_newest_event(folder, trained):
    found = find(folder, trained)
    assert len(found.windows) == 1
    assert found.coordinates["event"].tolist() == ["S6"]
    assert found.last.tolist() == [48]
    assert dates(found.reference) == ["2019-09-01 02:00"]
    assert following(found, 2) == ["2019-09-01 02:05", "2019-09-01 02:10"]
    example = found.windows[0]
    codes = found.decode(example["inputs"], None)
    np.testing.assert_allclose(codes[..., 0], frames_of("S6")[-3:], atol=1e-4)
    assert example["filled"] == 0


def test_targets_are_not_needed(tmp_path, trained):
    found = find(short(tmp_path, 3), trained)
    codes = found.decode(found.windows[0]["inputs"], None)
    np.testing.assert_allclose(codes[..., 0], frames_of("S6")[:3], atol=1e-4)
    assert dates(found.reference) == ["2019-08-31 22:10"]


def test_the_newest_event_is_the_one_that_begins_last(tmp_path, trained):
    """Even if it has fewer frames than one before."""
    table = sevir_layout.catalog()
    row, size = table.loc[sevir_layout.row_of("S6")].copy(), 5
    row["id"], row["file_name"], row["file_index"] = "NEW", "new.h5", 0
    row["time_utc"] = "2019-09-01 00:30:00"
    row["minute_offsets"] = ":".join(sevir_layout.OFFSETS.split(":")[:size])
    table.loc[len(table)] = row
    codes = sevir_layout.codes() | {"new.h5": sevir_layout.codes(1)["vil/2018/A.h5"]}
    codes["new.h5"] = codes["new.h5"][:1, ..., :size]
    found = find(sevir_layout.write(tmp_path, codes, table, with_ids=False), trained)
    assert found.coordinates["event"].tolist() == ["NEW"]
    assert dates(found.reference) == ["2019-08-31 22:50"]


def test_a_date(folder, trained):
    found = find(folder, trained, Starts("2019-07-01T00:30"))
    assert found.coordinates["event"].tolist() == ["S7"]
    assert found.last.tolist() == [30]
    assert dates(found.reference) == ["2019-07-01 00:30"]
    codes = found.decode(found.windows[0]["inputs"], None)
    np.testing.assert_allclose(codes[..., 0], frames_of("S7")[28:31], atol=1e-4)


def test_events_at_the_same_time(folder, trained):
    """R1 and S3 of the catalog overlap in time, at different places."""
    found = find(folder, trained, Starts("2019-01-01T01:00"))
    assert sorted(found.coordinates["event"]) == ["R1", "S3"]
    assert dates(found.reference) == ["2019-01-01 01:00"] * 2


def test_a_period(folder, trained):
    found = find(folder, trained, Starts("2019-06-30", "2019-07-01T00:00", 5))
    assert set(found.coordinates["event"]) == {"S7"}
    assert found.last.tolist() == [2, 7, 12, 17, 22]


def test_all_in_order_of_time(folder, trained):
    found = find(folder, trained, Starts("all", every=12))
    assert len(found.windows) == 4 * 9
    moments = dates(found.reference)
    assert moments == sorted(moments)
    assert np.all(found.last % 12 == 2)


def test_time_step_and_space_step(folder):
    steps: dict[str, Any] = dict(time_step=2, space_step=3, crop=(2, 2))
    state = state_of(config(folder, **steps))
    found = find(folder, state, **steps)
    codes = found.decode(found.windows[0]["inputs"], None)[..., 0]
    blocks = frames_of("S6")[44::2].reshape(3, 4, 3, 4, 3).max(axis=(2, 4))
    np.testing.assert_allclose(codes, blocks[:, 1:3, 1:3], atol=1e-4)
    assert following(found, 1) == ["2019-09-01 02:10"]


def test_missing_pixels_are_filled_and_counted(tmp_path, trained):
    codes = sevir_layout.codes()
    codes["vil/2019/B.h5"][-1, :6, :, -1] = 255
    table = sevir_layout.catalog()
    table.loc[sevir_layout.row_of("S6"), "pct_missing"] = 0.01
    found = find(sevir_layout.write(tmp_path, codes, table), trained)
    example = found.windows[0]
    assert example["filled"] == pytest.approx(1 / 6)
    assert np.all(example["inputs"][-1, :6] == 0)


def test_nothing_to_forecast_from(tmp_path, trained):
    codes = sevir_layout.codes()
    codes["vil/2019/B.h5"][-1, ..., -3:] = 255
    folder = sevir_layout.write(tmp_path, codes)
    with pytest.raises(
        ValueError, match="S6 .*no observed pixel in the 3 frames up to"
    ):
        find(folder, trained)
    assert find(folder, trained, Starts("all")).windows[0]["filled"] == 0


def test_a_forecast_fed_back(folder, trained):
    found = find(folder, trained)
    inputs = found.windows[0]["inputs"]
    forecast = np.stack([np.full((12, 12, 1), v, np.float32) for v in (-0.5, 2.0)])
    assert found.advance is not None
    moved = found.advance(inputs, forecast, None)
    np.testing.assert_array_equal(moved[0], inputs[-1])
    assert moved[1].max() == 0
    assert found.decode(moved[2], None).max() == pytest.approx(254)


def test_the_twin():
    small: dict[str, Any] = dict(
        space_step=48, twin_train=2, twin_validation=2, twin_test=3
    )
    found = find("", state_of(config("", **small)), **small)
    whole = data.load(config("", **small)).data.test[0]
    frames = np.concatenate([whole["inputs"], whole["targets"]])
    np.testing.assert_array_equal(found.windows[0]["inputs"], frames[-3:])
    assert found.reference is not None
    assert found.reference.minutes[0] == whole["time"][-1]


def test_prepared_events_of_the_test_split(folder, trained, monkeypatch):
    """They need no more frames than the inputs; names are rows of the catalog."""
    splits = sevir.events({"path": str(folder)})
    monkeypatch.setattr(tfds_source, "is_prepared", lambda path: True)
    monkeypatch.setattr(tfds_source, "open_split", lambda path, split: splits[split])
    found = find(folder, trained, in_len=3, out_len=60)
    codes = found.decode(found.windows[0]["inputs"], None)
    np.testing.assert_allclose(codes[..., 0], frames_of("S6")[-3:], atol=1e-4)
    assert dates(found.reference) == ["2019-09-01 02:00"]


def test_a_single_frame(tmp_path, folder):
    """The time to the next one is then that of the training."""
    found = find(short(tmp_path, 1), state_of(config(folder, in_len=1)), in_len=1)
    assert dates(found.reference) == ["2019-08-31 22:00"]
    assert following(found, 1) == ["2019-08-31 22:05"]


@pytest.mark.parametrize(
    ("first", "stop", "settings", "message"),
    [
        ("2020", "", {}, "start=2020: .*2018-06-01 10:00..2019-09-01 02:00; use"),
        ("soon", "", {}, "start='soon' is not a date"),
        ("last", "2019", {}, "stop=2019 needs the date of a first forecast"),
        ("2019-09-02", "2019-09-03", {}, "start=2019-09-02, stop=2019-09-03: "),
        ("2019-08-31T22:05", "", {}, "3 frames without a gap .* event S6 has 2 up to"),
        ("last", "", {"time_step": 2}, "only events .* 10 min apart; .* 5 min apart"),
        ("last", "", {"space_step": 2}, "6 x 6 pixels, those .* 12 x 12"),
        ("last", "", {"crop": (4, 4)}, "4 x 4 pixels, those .* 12 x 12"),
    ],
)
def test_refused(folder, trained, first, stop, settings, message):
    with pytest.raises(ValueError, match=message):
        find(folder, trained, Starts(first, stop), **settings)


def test_other_sizes_on_request(folder, trained):
    found = data.beginnings(
        config(folder, space_step=2), trained, allow_other_grid=True
    )
    assert found.windows[0]["inputs"].shape == (3, 6, 6, 1)


def test_an_event_with_a_gap(tmp_path, trained):
    """A frame is missing before the last two."""
    table = sevir_layout.catalog()
    offsets = np.array([int(x) for x in sevir_layout.OFFSETS.split(":")])
    offsets[-2:] += 5
    table.loc[sevir_layout.row_of("S6"), "minute_offsets"] = ":".join(map(str, offsets))
    folder = sevir_layout.write(tmp_path, table=table)
    with pytest.raises(ValueError, match="event S6 has 2 up to 2019-09-01 02:05"):
        find(folder, trained)


def test_other_cadence_is_left_out(tmp_path, trained):
    table = sevir_layout.catalog()
    minutes = ":".join(str(2 * k) for k in range(sevir_layout.FRAMES))
    table.loc[sevir_layout.row_of("S6"), "minute_offsets"] = minutes
    folder = sevir_layout.write(tmp_path, table=table)
    found = find(folder, trained)
    assert found.coordinates["event"].tolist() == ["R5"]
    (note,) = found.notes
    assert note.startswith("left out: 1 events whose frames are 2 min apart")
    with pytest.raises(ValueError, match="start=2020: .*; left out: 1 events whose"):
        find(folder, trained, Starts("2020"))


def test_pixels_have_latitudes_and_longitudes(tmp_path, trained):
    table = sevir_layout.catalog()
    table["proj"] = "+proj=longlat"
    folder = sevir_layout.write(tmp_path, table=table)
    south = table.loc[sevir_layout.row_of("S6"), "llcrnrlat"]
    latitude, longitude = (
        first + (np.arange(12) + 0.5) / n for first, n in ((south, 4), (-100, 3))
    )
    crop = (5, 8)
    other = state_of(config(folder, crop=crop))
    for found, rows, columns in (
        (find(folder, trained), slice(None), slice(None)),
        (find(folder, other, crop=crop), slice(3, 8), slice(2, 10)),
    ):
        assert found.latitude is not None and found.longitude is not None
        np.testing.assert_allclose(found.latitude, latitude[rows])
        np.testing.assert_allclose(found.longitude, longitude[columns])
    # Events at different places have no common ones.
    assert find(folder, trained, Starts("all")).latitude is None


@pytest.mark.parametrize("normalization", ["01", "sevir"])
def test_encoding(folder, trained, normalization):
    chosen = config(folder, normalization=normalization)
    encoding = data.encoding(chosen, trained)
    codes = frames_of("S6")[-3:, ..., None]
    inputs = data.beginnings(chosen, trained).windows[0]["inputs"]
    encoded = (codes - encoding.offset) / encoding.scale
    np.testing.assert_allclose(encoded, inputs, atol=1e-5)
    assert encoding.fill is not None
    # A missing pixel is one without rain.
    np.testing.assert_allclose(encoding.fill, -encoding.offset / encoding.scale)
