"""How events that share time and place are divided."""

import numpy as np
import pandas as pd
import pytest

from earthformer_jax import data
from earthformer_jax.data import leaks
from earthformer_jax.data.sevir import catalog as catalog_lib
from earthformer_jax.data.sevir import division, sevir
from tests import golden_files
from tests.data import sevir_layout

SPLITS = leaks.ORDER
SHORT = dict(in_len=3, out_len=2, stride=1)


def events(table, tmp_path):
    path = tmp_path / "CATALOG.csv"
    table.to_csv(path, index=False)
    found, _ = catalog_lib.select(catalog_lib.read(path), 0, path)
    return found


def catalog(**columns):
    """Events of four hours, one a day, at one place unless columns say otherwise."""
    n = len(next(iter(columns.values())))
    days = pd.date_range("2019-05-01 12:00", periods=n)
    table = dict(
        id=[f"E{k}" for k in range(n)],
        file_name="a.h5",
        file_index=range(n),
        img_type="vil",
        time_utc=days,
        minute_offsets=sevir_layout.OFFSETS,
        llcrnrlat=30.0,
        llcrnrlon=-100.0,
        urcrnrlat=34.0,
        urcrnrlon=-96.0,
        pct_missing=0.0,
    )
    return pd.DataFrame(table | columns)


def sizes(splits):
    return [len(splits[split]) for split in SPLITS]


class TestFraction:
    def test_real_catalog(self):
        """By id, 12 of 79 test events shared time and place with a training event."""
        path = golden_files.shared_file("data", "sevir", "CATALOG_vil_part.csv")
        used, _ = catalog_lib.select(catalog_lib.read(path), 0, path)
        splits = division.split_by_fraction(used)
        assert sizes(splits) == [367, 77, 81]
        spans = {name: division.event_spans(part) for name, part in splits.items()}
        for k, split in enumerate(SPLITS):
            for before in SPLITS[:k]:
                assert not leaks.shared(spans[split], spans[before]).any()
                together = set(splits[split].episode) & set(splits[before].episode)
                assert not together
        by_id = {
            "train": used.take(np.arange(367)),
            "test": used.take(np.arange(446, 525)),
        }
        spans = {name: division.event_spans(part) for name, part in by_id.items()}
        assert leaks.shared(spans["test"], spans["train"]).sum() == 12

    def test_the_earliest_are_for_training(self, tmp_path):
        table = catalog(id=[f"E{9 - k}" for k in range(10)])
        splits = division.split_by_fraction(events(table, tmp_path))
        assert sizes(splits) == [7, 1, 2]
        assert splits["train"].id.tolist() == [f"E{k}" for k in range(3, 10)]
        assert splits["test"].id.tolist() == ["E0", "E1"]

    def test_an_episode_stays_together(self, tmp_path):
        table = catalog(episode_id=[1, 2, 3, np.nan, np.nan, 1])
        splits = division.split_by_fraction(events(table, tmp_path))
        assert splits["train"].id.tolist() == ["E0", "E1", "E2", "E5"]
        assert sizes(splits) == [4, 1, 1]

    def test_a_chain_of_events_stays_together(self, tmp_path):
        hours = pd.Timestamp("2019-05-01") + pd.to_timedelta([0, 3, 6, 40, 80], "h")
        splits = division.split_by_fraction(events(catalog(time_utc=hours), tmp_path))
        assert [splits[split].id.tolist() for split in SPLITS] == [
            ["E0", "E1", "E2"],
            ["E3"],
            ["E4"],
        ]

    def test_two_radars_at_the_same_time(self, tmp_path):
        places = np.repeat([[0.0], [10.0], [20.0]], 1, 1)[:, 0]
        table = catalog(
            time_utc=["2019-05-01"] * 3, llcrnrlat=places, urcrnrlat=places + 10
        )
        assert sizes(division.split_by_fraction(events(table, tmp_path))) == [1, 1, 1]
        with pytest.raises(
            ValueError, match="3 events cannot .* do not share time and"
        ):
            division.split_by_fraction(
                events(table.assign(llcrnrlat=places - 1), tmp_path)
            )

    def test_unknown_places_may_be_the_same(self, tmp_path):
        table = catalog(time_utc=["2019-05-01"] * 3).drop(columns="llcrnrlat")
        with pytest.raises(ValueError, match="3 events cannot be divided"):
            division.split_by_fraction(events(table, tmp_path))


class TestDate:
    def test_events_on_both_sides_of_a_limit(self, tmp_path):
        """The first event of validation begins before the last of training ends."""
        table = sevir_layout.catalog()
        columns = list(catalog_lib.CORNERS)
        near = [sevir_layout.row_of(event) for event in ("S3", "R1")]
        table.loc[near, columns] = [30.0, -100.0, 34.0, -96.0]
        dataset = data.load(
            dict(name="sevir", path=str(sevir_layout.write(tmp_path, table=table))), 0
        )
        assert (
            "left out: 3 windows that share time and place" in dataset.data.description
        )
        assert [len(getattr(dataset.data, s)) for s in SPLITS] == [6, 6, 12]
        assert "validation (6 windows of 2 events)" in dataset.data.description
        # Whole events are prepared for TFDS.
        assert [len(x) for x in sevir.events(dict(path=str(tmp_path))).values()] == [
            2,
            2,
            4,
        ]


class TestOneRadar:
    @pytest.fixture
    def path(self):
        return str(golden_files.shared_file("data", "radar", "sevir_layout"))

    @pytest.mark.parametrize(
        ("settings", "numbers"),
        [
            (dict(split="fraction"), [9, 2, 2]),
            (dict(split="fraction", stride=6), [11, 3, 3]),
            (
                dict(train_until="2010-08-26 03:00", validate_until="2010-08-26 04:00"),
                [3, 3, 9],
            ),
            (
                dict(train_until="2010-08-26 04:00", validate_until="2010-08-26 05:00"),
                [6, 3, 5],
            ),
        ],
    )
    def test_windows_are_divided_by_time(self, path, settings, numbers):
        """Of 36 target frames of the test split, 17 were training frames."""
        chosen = dict(max_missing=15.0, test_until="2011-01-01", space_step=64)
        dataset = data.load(dict(name="sevir", path=path) | chosen | settings, 0)
        parts = [getattr(dataset.data, split) for split in SPLITS]
        windows, targets = (
            [
                {int(t) for i in range(len(part)) for t in part[i]["time"][first:]}
                for part in parts
            ]
            for first in (0, 13)
        )
        assert (
            not targets[2] & (windows[0] | windows[1]) and not targets[1] & windows[0]
        )
        assert [len(part) for part in parts] == numbers

    def test_nothing_is_left(self, path):
        chosen = dict(max_missing=15.0, test_until="2011-01-01", split="fraction")
        with pytest.raises(
            ValueError,
            match="the train split is empty: the 5 events overlap in time an",
        ):
            data.load(dict(name="sevir", path=path, in_len=24, out_len=25) | chosen, 0)
        with pytest.raises(ValueError, match="cannot be divided as whole events"):
            sevir.events(dict(path=path) | chosen)
