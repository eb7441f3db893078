from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.unit.training.preparing import NOON, config, log, run
from training import dataset, user_log
from training.dataset import open_prepared
from training.errors import TrainingError


def test_histories_are_whole_wherever_the_record_batches_end(make_prepared, monkeypatch):
    by_user = {f"u{u}": [(f"i{i}", 10 * i) for i in range(u, u + n)] for u, n in enumerate((1, 7, 2, 9, 4))}
    prepared = make_prepared(by_user)
    for rows in (1, 2, 3, 5, 100):
        monkeypatch.setattr(user_log, "_ROWS_PER_READ", rows)
        got = {
            h.user_id: [(prepared.items[i - 1].item_id, t) for i, t in zip(h.items, h.times, strict=True)]
            for h in prepared.histories()
        }
        assert got == by_user


def test_events_of_one_second_are_not_in_the_order_of_their_ids_but_always_in_the_same(make_prepared):
    prepared = make_prepared({f"u{u}": [(f"i{i:02}", 5 + i // 20) for i in range(40)] for u in range(2)})
    first, second = prepared.histories()
    assert first.times.tolist() == sorted(first.times.tolist())
    assert first.items.tolist() != sorted(first.items.tolist())
    assert first.items.tolist() != second.items.tolist()
    assert sorted(first.items[:20].tolist()) == list(range(1, 21))
    assert [h.items.tolist() for h in prepared.histories()] == [first.items.tolist(), second.items.tolist()]


def test_a_folder_without_prepared_data_is_said_in_a_sentence(tmp_path: Path):
    with pytest.raises(TrainingError, match="no prepared data here"):
        open_prepared(tmp_path)


def test_an_event_on_an_item_that_is_not_in_the_catalogue_is_named(make_prepared):
    prepared = make_prepared({"u": [("a", 1), ("b", 2)]}, {"a": []})
    with pytest.raises(TrainingError, match="'b'"):
        list(prepared.histories())


def test_items_have_the_times_they_were_published_where_the_file_says(tmp_path: Path):
    settings = config(items={"columns": {"published": "since"}})
    events = log(f"a,1,{NOON}", f"b,2,{NOON + 9}", f"a,2,{NOON + 5}", f"c,2,{NOON + 7}")
    done = run(tmp_path, events, settings, items="item_id,title,since\n1,,2020-01-01\n2,,\n3,,\n")
    assert open_prepared(done.folder).published.tolist() == [1_577_836_800, 0, 0]


def test_items_have_the_texts_that_a_language_model_reads(tmp_path: Path):
    settings = config(items={"columns": {"text": ["plot"]}})
    done = run(tmp_path, log(f"a,1,{NOON}"), settings, items="item_id,title,plot\n2,B,End\n1,A,\n")
    assert open_prepared(done.folder).item_texts == ("A", "B. End")


def test_items_have_vectors_by_name_and_zeros_where_they_have_none(tmp_path: Path, monkeypatch):
    header = "item_id,title,embedding:sound,embedding:image,embedding:none\n"
    items = header + "1,A,,1 2,\n2,B,,,\n3,C,5,3 4,\n4,D,,5 6,\n"
    prepared = open_prepared(run(tmp_path, log(f"a,1,{NOON}"), items=items).folder)
    for rows in (1, 2, 100):
        monkeypatch.setattr(dataset, "_VECTORS_PER_READ", rows)
        vectors = open_prepared(prepared.folder).item_vectors
        assert list(vectors) == ["image", "sound"]
        assert vectors["image"].tolist() == [[1, 2], [0, 0], [3, 4], [5, 6]]
        assert vectors["sound"].tolist() == [[0], [0], [5], [0]]
        assert vectors["image"].dtype == np.float32


def test_what_is_known_of_items_is_read_once(make_prepared):
    prepared = make_prepared({"u": [("a", 1), ("b", 2)]})
    assert prepared.published is prepared.published
    assert prepared.item_texts is prepared.item_texts
    assert prepared.item_vectors is prepared.item_vectors == {}
