from __future__ import annotations

import math
import re
import time
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.riptide.v1 import recommender_pb2 as pb
from features.catalog import Catalog, CatalogItem, write_catalog
from features.schema import EventType, item_keys
from gateway.errors import InvalidRequest
from gateway.validation import (
    check_diversity,
    check_events,
    check_filter,
    check_id,
    check_limit,
    check_request_id,
    check_surface,
    check_time,
)

NOW = int(time.time())


@pytest.mark.parametrize("limit", [1, 20, 100])
def test_limits_of_the_contract_pass(limit: int) -> None:
    assert check_limit(limit) == limit


@pytest.mark.parametrize("limit", [0, -1, 101, 10**6])
def test_other_limits_are_refused_by_name_and_bound(limit: int) -> None:
    with pytest.raises(InvalidRequest, match=f"^limit: must be from 1 to 100, not {limit}$"):
        check_limit(limit)


@given(st.text(min_size=1, max_size=300))
def test_an_id_passes_exactly_if_it_has_at_most_256_bytes(text: str) -> None:
    text = unicodedata.normalize("NFC", text)
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return  # a lone surrogate: protobuf strings cannot hold one
    if size <= 256:
        assert check_id("user_id", text) == text
    else:
        with pytest.raises(InvalidRequest, match=f"^user_id: must have 1 to 256 bytes, not {size}$"):
            check_id("user_id", text)


# Of the last one the normal form has 256 bytes.
@pytest.mark.parametrize("value", ["", "x" * 10_000, "é" * 129, "e\u0301" * 128])
def test_empty_and_overlong_ids_are_refused(value: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^user_id: must have 1 to 256 bytes"):
        check_id("user_id", value)


def test_an_id_is_measured_before_anything_is_done_that_takes_the_square_of_its_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def normalize(form: str, text: str) -> str:
        raise AssertionError(f"{len(text)} characters to be normalized")

    monkeypatch.setattr("gateway.validation.unicodedata", SimpleNamespace(normalize=normalize))
    marks = "a" + "\u0300" * 500_000 + "\u0323" * 500_000
    with pytest.raises(InvalidRequest, match=r"^user_id: must have 1 to 256 bytes, not 2000001$"):
        check_id("user_id", marks)


def test_an_overlong_request_id_is_refused() -> None:
    assert check_request_id("x" * 128)
    with pytest.raises(InvalidRequest, match=r"^request_id: must have at most 128 bytes, not 258"):
        check_request_id("é" * 129)


def test_a_surface_is_short_and_printable() -> None:
    for name in ("", "home", "é" * 32):
        assert check_surface(name) == name
    with pytest.raises(InvalidRequest, match=r"^surface: must have at most 64 bytes, not 66$"):
        check_surface("é" * 33)
    with pytest.raises(InvalidRequest, match=r"^surface: must be printable"):
        check_surface("home\n")


@pytest.mark.parametrize("diversity", [-0.1, 1.01, math.inf, math.nan])
def test_diversity_is_a_number_from_0_to_1(diversity: float) -> None:
    assert [check_diversity(fine) for fine in (0.0, 0.3, 1.0)] == [0.0, 0.3, 1.0]
    with pytest.raises(
        InvalidRequest, match=rf"^diversity: must be a number from 0 to 1, not {diversity:g}$"
    ):
        check_diversity(diversity)


@pytest.mark.parametrize("moment", [-1, NOW + 301])
def test_a_moment_is_at_most_five_minutes_ahead(moment: int) -> None:
    assert [check_time("time", fine, NOW) for fine in (0, 1, NOW + 300)] == [0, 1, NOW + 300]
    with pytest.raises(InvalidRequest, match=rf"^time: must be Unix seconds .*, not {moment}$"):
        check_time("time", moment, NOW)


def test_an_id_is_measured_in_the_form_that_is_stored() -> None:
    # This musical sign becomes three characters, 12 bytes, in its normal form.
    assert check_id("user_id", "\U0001d160" * 21)
    with pytest.raises(InvalidRequest, match=r"^user_id: must have 1 to 256 bytes, not 768$"):
        check_id("user_id", "\U0001d160" * 64)
    assert check_id("user_id", "e\u0301") == "é"


def test_a_request_id_that_would_break_a_log_line_or_a_header_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"^request_id: must be printable"):
        check_request_id("a\nb")


def test_an_unknown_category_is_refused_with_the_ones_there_are(catalog: Catalog) -> None:
    with pytest.raises(InvalidRequest, match=r"^filter.categories\[1\]: 'odd' is no category .* all, even$"):
        check_filter(pb.Filter(categories=["even", "odd"]), catalog)


def catalog_with(folder: Path, categories: Sequence[str]) -> Catalog:
    """A catalogue of one item, which is in all of them."""
    write_catalog(
        folder / "own.lmdb",
        items=[CatalogItem("1", "One", tuple(categories))],
        categories=categories,
        popular=item_keys(["1"]),
        neighbour_keys=np.zeros((1, 1), np.int64),
        neighbour_scores=np.zeros((1, 1), np.float32),
    )
    return Catalog(folder / "own.lmdb")


@pytest.mark.parametrize("length", [10, 1_000])
def test_a_refusal_fits_into_metadata_however_long_and_many_the_categories_are(
    tmp_path: Path, length: int
) -> None:
    catalog = catalog_with(tmp_path, [f"{number}" + "書" * length for number in range(200)])
    with pytest.raises(InvalidRequest) as refused:
        check_filter(pb.Filter(categories=["書" * length]), catalog)
    catalog.close()
    sentence = str(refused.value)
    assert "it has 0書書" in sentence
    assert re.search(r" and \d+ more$", sentence)
    assert len(quote(sentence)) < 8000


def test_a_category_is_known_in_any_of_its_forms(tmp_path: Path) -> None:
    catalog = catalog_with(tmp_path, ["Com\u00e9die"])
    categories, _ = check_filter(pb.Filter(categories=["Come\u0301die"]), catalog)
    catalog.close()
    assert categories == ("Com\u00e9die",)


def test_too_long_filters_are_refused(catalog: Catalog) -> None:
    with pytest.raises(InvalidRequest, match=r"^filter.exclude_item_ids: must have at most 500"):
        check_filter(pb.Filter(exclude_item_ids=["1"] * 501), catalog)
    with pytest.raises(InvalidRequest, match=r"^filter.categories: must have at most 64"):
        check_filter(pb.Filter(categories=["even"] * 65), catalog)
    with pytest.raises(InvalidRequest, match=r"^filter.exclude_item_ids\[1\]: must have 1 to 256"):
        check_filter(pb.Filter(exclude_item_ids=["1", ""]), catalog)


def event(**changed: object) -> pb.Event:
    fields: dict[str, object] = {"user_id": "u", "item_id": "3", "type": pb.EVENT_TYPE_CLICK, "time": NOW - 5}
    return pb.Event(**{**fields, **changed})  # type: ignore[arg-type]  # a table of cases


def test_a_good_event_passes_whole(catalog: Catalog) -> None:
    [checked] = check_events([event(weight=4.5)], [catalog])
    assert (checked.user_id, checked.item_id, checked.type, checked.time, checked.weight) == (
        "u", "3", EventType.CLICK, NOW - 5, 4.5,
    )  # fmt: skip


def test_an_event_without_time_and_weight_happens_now_with_weight_one(catalog: Catalog) -> None:
    [checked] = check_events([event(time=0)], [catalog])
    assert NOW <= checked.time <= time.time()
    assert checked.weight == 1


def test_an_item_that_only_one_of_the_serving_versions_has_is_taken(catalog: Catalog, tmp_path: Path) -> None:
    write_catalog(
        tmp_path / "new.lmdb",
        items=[CatalogItem("new", "New", ())],
        categories=[],
        popular=item_keys(["new"]),
        neighbour_keys=np.zeros((1, 1), np.int64),
        neighbour_scores=np.zeros((1, 1), np.float32),
    )
    new = Catalog(tmp_path / "new.lmdb")
    events = [event(item_id="new"), event()]
    assert [checked.item_id for checked in check_events(events, [catalog, new])] == ["new", "3"]
    new.close()


def test_a_weight_of_zero_is_zero(catalog: Catalog) -> None:
    assert check_events([event(weight=0)], [catalog])[0].weight == 0


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"user_id": ""}, r"user_id: must have 1 to 256 bytes, not 0"),
        ({"user_id": "x" * 10_000}, r"user_id: must have 1 to 256 bytes, not 10000"),
        ({"item_id": ""}, r"item_id: must have"),
        ({"item_id": "no such"}, r"item_id: 'no such' is not in the catalogue"),
        ({"type": pb.EVENT_TYPE_UNSPECIFIED}, r"type: must be one of EVENT_TYPE_VIEW, .*, not 0"),
        ({"type": 99}, r"type: must be one of .*, not 99"),
        ({"time": 32503680000}, r"time: must be Unix seconds .*, not 32503680000"),
        ({"time": -1}, r"time: must be Unix seconds"),
        ({"weight": float("nan")}, r"weight: must be a number from 0 to 1e\+06, not nan"),
        ({"weight": float("inf")}, r"weight: must be"),
        ({"weight": -0.5}, r"weight: must be"),
        ({"weight": 2e6}, r"weight: must be"),
    ],
)
def test_a_bad_event_is_refused_by_index_and_field(
    catalog: Catalog, changed: dict[str, object], sentence: str
) -> None:
    with pytest.raises(InvalidRequest, match=rf"^events\[1\]\.{sentence}"):
        check_events([event(), event(**changed)], [catalog])


@pytest.mark.parametrize("count", [0, 1001])
def test_no_events_and_too_many_are_refused(catalog: Catalog, count: int) -> None:
    with pytest.raises(InvalidRequest, match=f"^events: must have 1 to 1000 entries, not {count}$"):
        check_events([event()] * count, [catalog])
