"""Which events of the SEVIR catalog are used, and for what."""

import csv

import numpy as np
import pandas as pd
import pytest

from earthformer_jax.data.sevir import catalog as catalog_lib
from earthformer_jax.data.sevir import division
from earthformer_jax.data.sevir.catalog import Dates
from earthformer_jax.data.sevir.events import count_windows
from tests import golden_files
from tests.data import sevir_layout

PAPER = dict(
    train_from="", train_until="2019-01-01", validate_until="2019-06-01", test_until=""
)
SPAN, STRIDE = 25, 12


def write(folder, table):
    path = folder / "CATALOG.csv"
    table.to_csv(path, index=False)
    return path


def used(path, max_missing=0.0):
    events, _ = catalog_lib.select(catalog_lib.read(path), max_missing, path)
    return events


def full_catalog():
    """A catalog of the size of SEVIR whose events follow the paper's numbers."""
    periods = {
        11_906: ("2017-06-13 00:00", "2019-01-01 00:00"),  # both limits included
        3_020: ("2019-01-01 00:01", "2019-06-01 00:00"),
        4_053: ("2019-06-01 00:01", "2019-11-30 00:00"),
    }
    times = np.concatenate(
        [
            pd.date_range(*period, periods=n).floor("min")
            for n, period in periods.items()
        ]
    )
    kept = pd.DataFrame(
        dict(
            id=[f"S{k:06d}" for k in range(len(times))],
            file_name="vil/all.h5",
            file_index=np.arange(len(times)),
            img_type="vil",
            time_utc=times,
            pct_missing=0.0,
        )
    )
    gaps = kept.iloc[:1000].assign(pct_missing=0.01)
    gaps = gaps.assign(id=[f"G{k}" for k in range(1000)])
    twice = kept.iloc[:40].assign(id=[f"D{k // 2}" for k in range(40)])
    other = kept.assign(img_type="ir107")
    table = pd.concat([kept, gaps, twice, other], ignore_index=True)
    return table.sample(frac=1, random_state=0)


class TestCountWindows:
    @pytest.mark.parametrize(
        ("frames", "span", "stride", "count"),
        [(49, 25, 12, 3), (25, 13, 6, 3), (36, 25, 12, 1), (25, 25, 1, 1)]
        + [(49, 25, 1, 25), (24, 25, 12, 0), (0, 25, 12, 0)],
    )
    def test_known(self, frames, span, stride, count):
        assert count_windows(frames, span, stride) == count

    def test_is_the_number_of_starts(self):
        for frames in range(40):
            for span in (1, 5, 13):
                for stride in (1, 4, 12):
                    starts = range(0, frames - span + 1, stride)
                    assert count_windows(frames, span, stride) == len(starts)


class TestRules:
    def test_numbers_of_the_paper(self, tmp_path):
        """Table 2: 35,718 / 9,060 / 12,159."""
        events = used(write(tmp_path, full_catalog()))
        splits = catalog_lib.split_by_date(events, Dates.parse(PAPER))
        sizes = {name: len(part) for name, part in splits.items()}
        assert sizes == dict(train=11_906, validation=3_020, test=4_053)
        windows = {
            name: int(np.sum(count_windows(np.full(n, 49), SPAN, STRIDE)))
            for name, n in sizes.items()
        }
        assert windows == dict(train=35_718, validation=9_060, test=12_159)

    def test_real_catalog(self):
        path = golden_files.shared_file("data", "sevir", "CATALOG_vil_part.csv")
        with path.open() as file:  # counted without pandas
            rows = list(csv.DictReader(file))
        complete = [row for row in rows if float(row["pct_missing"]) == 0]
        assert (len(rows), len(complete)) == (851, 525)
        assert len({row["id"] for row in complete}) == 525
        before_june = sum(row["time_utc"] <= "2019-06-01 00:00:00" for row in complete)

        events, left_out = catalog_lib.select(catalog_lib.read(path), 0, path)
        assert left_out == [
            "326 of 851 events with more missing pixels than max_missing=0"
        ]
        dates = Dates.parse(PAPER | dict(train_until="2019-03-01"))
        splits = catalog_lib.split_by_date(events, dates)
        assert len(splits["train"]) + len(splits["validation"]) == before_june == 424
        assert len(splits["test"]) == 101
        every = [x for part in splits.values() for x in count_windows(
            [len(offsets) for offsets in part.offsets], SPAN, STRIDE)]  # fmt: skip
        assert sum(every) == 3 * 525
        with pytest.raises(
            ValueError, match="train split .time_utc <= 2019-01-01. contains no"
        ):
            catalog_lib.split_by_date(events, Dates.parse(PAPER))
        with pytest.raises(ValueError, match="S805989 has no observed pixels"):
            catalog_lib.select(catalog_lib.read(path), 1.0, path)

    def test_events_are_in_the_order_of_their_ids(self, tmp_path):
        events = used(write(tmp_path, sevir_layout.catalog()))
        assert list(events.id) == sorted(sevir_layout.IDS)
        assert events.row[list(events.id).index("S4")] == sevir_layout.row_of("S4")

    def test_the_order_of_the_rows_does_not_matter(self, tmp_path):
        table = sevir_layout.catalog()
        a = used(write(tmp_path, table))
        b = used(write(tmp_path, table.sample(frac=1, random_state=3)))
        for name in ("id", "file_name", "file_index", "time", "corners"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))

    def test_limits_belong_to_what_ends_with_them(self, tmp_path):
        events = used(write(tmp_path, sevir_layout.catalog()))
        splits = catalog_lib.split_by_date(events, Dates.parse(PAPER))
        found = {name: tuple(part.id) for name, part in splits.items()}
        assert found == sevir_layout.OF_SPLIT

    def test_outer_limits(self, tmp_path):
        path = write(tmp_path, sevir_layout.catalog())
        limits = dict(train_from="2018-06-01 12:00", test_until="2019-07-01")
        dates = Dates.parse(PAPER | limits)
        inside = catalog_lib.within(used(path), dates, path)
        assert set(sevir_layout.IDS) - set(inside.id) == {"S8", "R5", "S6"}
        splits = catalog_lib.split_by_date(inside, dates)
        assert [len(splits[split]) for split in catalog_lib.SPLITS] == [1, 3, 2]

    def test_times_of_day_and_time_zones(self):
        dates = Dates.parse(PAPER | dict(train_until="2019-01-01T01:30+02:00"))
        assert dates.train_until == np.datetime64("2018-12-31T23:30")

    def test_max_missing(self, tmp_path):
        table = sevir_layout.catalog()
        table.loc[sevir_layout.row_of("S4"), "pct_missing"] = 0.2
        path = write(tmp_path, table)
        assert "S4" not in used(path, 0.19).id
        assert "S4" in used(path, 0.2).id

    def test_repeated_ids_are_dropped(self, tmp_path):
        table = sevir_layout.catalog()
        table.loc[sevir_layout.row_of("S4"), "id"] = "S8"
        path = write(tmp_path, table)
        events, left_out = catalog_lib.select(catalog_lib.read(path), 0, path)
        assert set(sevir_layout.IDS) - set(events.id) == {"S4", "S8"}
        assert left_out == ["2 rows of 1 ids that occur in several rows"]

    @pytest.mark.parametrize(
        ("count", "sizes"),
        [(3, (1, 1, 1)), (5, (3, 1, 1)), (12, (8, 2, 2)), (100, (70, 15, 15))],
    )
    def test_fractions(self, tmp_path, count, sizes):
        table = full_catalog().query("img_type == 'vil' and pct_missing == 0")
        table = table.drop_duplicates("id", keep=False)
        events = used(write(tmp_path, table.iloc[:count]))
        splits = division.split_by_fraction(events)
        assert tuple(len(splits[split]) for split in catalog_lib.SPLITS) == sizes
        joined = np.concatenate([splits[split].id for split in catalog_lib.SPLITS])
        np.testing.assert_array_equal(joined, events.id)

    def test_columns_that_may_be_absent(self, tmp_path):
        table = sevir_layout.catalog()[list(catalog_lib.REQUIRED)]
        events = used(write(tmp_path, table))
        assert np.isnan(events.corners).all()
        assert all(len(offsets) == 0 for offsets in events.offsets)

    def test_byte_order_mark(self, tmp_path):
        path = write(tmp_path, sevir_layout.catalog())
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        assert len(used(path)) == 9


class TestErrors:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (dict(pct_missing="lots"), "line 8 .id 'S4'. has pct_missing=lots; expect"),
            (dict(pct_missing=np.nan), "line 8 .id 'S4'. has pct_missing=nan; expect"),
            (dict(time_utc="12/05/2019"), "time_utc='12/05/2019', which is not a time"),
            (
                dict(time_utc=np.nan),
                "line 8 .* has time_utc=.*nan.*, which is not a ti",
            ),
            (dict(file_name=np.nan), "line 8 .* has no file_name"),
            (dict(file_index=-1), "line 8 .* has file_index=-1; expected a whole numb"),
            (dict(file_index=1.5), "line 8 .* has file_index=1.5; expected a whole nu"),
            (
                dict(minute_offsets="a:b"),
                "has minute_offsets='a:b'; expected whole min",
            ),
            (dict(llcrnrlat="north"), "has llcrnrlat=north; expected a number"),
        ],
    )
    def test_impossible_values(self, tmp_path, change, message):
        table = sevir_layout.catalog().astype(object)
        for name, value in change.items():
            table.loc[sevir_layout.row_of("S4"), name] = value
        with pytest.raises(ValueError, match=message):
            catalog_lib.read(write(tmp_path, table))

    def test_values_of_other_sensors_do_not_matter(self, tmp_path):
        table = sevir_layout.catalog().astype(object)
        table.loc[sevir_layout.row_of("S4") + 1, "file_index"] = np.nan
        assert len(used(write(tmp_path, table))) == 9

    def test_missing_column(self, tmp_path):
        table = sevir_layout.catalog().rename(columns=dict(pct_missing="pct_mising"))
        with pytest.raises(
            ValueError, match="no column 'pct_missing'; is it 'pct_misi"
        ):
            catalog_lib.read(write(tmp_path, table))

    def test_no_catalog(self, tmp_path):
        path = tmp_path / "CATALOG.csv"
        path.write_text("")
        with pytest.raises(ValueError, match="CATALOG.csv is not a catalog"):
            catalog_lib.read(path)

    def test_no_row_of_vil(self, tmp_path):
        table = sevir_layout.catalog().query("img_type == 'ir069'")
        with pytest.raises(
            ValueError, match="no row with img_type 'vil' .its types ar"
        ):
            catalog_lib.read(write(tmp_path, table))

    def test_nothing_without_missing_pixels(self, tmp_path):
        path = write(tmp_path, sevir_layout.catalog().assign(pct_missing=12.5))
        with pytest.raises(
            ValueError, match="none of 9 events has pct_missing <= .* 12"
        ):
            used(path)

    @pytest.mark.parametrize("everything", [1.0, 100.0])
    def test_event_without_any_pixel(self, tmp_path, everything):
        table = sevir_layout.catalog()
        table.loc[sevir_layout.row_of("S4"), "pct_missing"] = everything
        path = write(tmp_path, table)
        assert len(used(path)) == 8
        with pytest.raises(ValueError, match="event S4 has no observed pixels"):
            used(path, everything)

    def test_doubled_catalog(self, tmp_path):
        table = pd.concat([sevir_layout.catalog()] * 2)
        with pytest.raises(ValueError, match="every id has more than one vil row, as"):
            used(write(tmp_path, table))

    def test_two_events_at_one_place(self, tmp_path):
        table = sevir_layout.catalog()
        table.loc[sevir_layout.row_of("S4"), "file_index"] = 1
        with pytest.raises(
            ValueError, match="'S3' and 'S4' both have file_index=1 of v"
        ):
            used(write(tmp_path, table))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (dict(train_until="2019"), "train_until='2019' is not a date"),
            (
                dict(test_until="June"),
                "test_until='June' is not a date; write",
            ),
            (
                dict(validate_until="2018-06-01"),
                "validate_until=2018-06-01 must come after train_until",
            ),
            (
                dict(train_from="2019-01-01"),
                "train_until=2019-01-01 must come after train_from=2019-01",
            ),
        ],
    )
    def test_dates(self, change, message):
        with pytest.raises(ValueError, match=message):
            Dates.parse(PAPER | change)

    def test_empty_splits(self, tmp_path):
        path = write(tmp_path, sevir_layout.catalog())
        with pytest.raises(
            ValueError,
            match="the test split .2020-01-01 < time_utc. contains no events",
        ):
            dates = Dates.parse(PAPER | dict(validate_until="2020-01-01"))
            catalog_lib.split_by_date(used(path), dates)
        with pytest.raises(ValueError, match="'fraction': 2 events cannot be divided"):
            division.split_by_fraction(used(path).take(np.arange(2)))
        late = dict(train_from="2021-01-01", train_until="", validate_until="")
        with pytest.raises(ValueError, match="none of 9 events is within .train_from"):
            catalog_lib.within(used(path), Dates.parse(PAPER | late), path)
