"""Which surfaces the ranking network tells apart."""

from __future__ import annotations

from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.schema import surface_key
from training import facts


def surfaces(folder, names):
    path = folder / "events.parquet"
    pq.write_table(pa.table({"surface": pa.array(names, pa.string())}), path, row_group_size=3)
    return facts._surfaces(SimpleNamespace(events_path=path)).tolist()


def test_a_surface_has_five_events_wherever_they_stand_and_a_name(tmp_path):
    names = [*["home", "search", None, ""] * 4, "home", "", "", None]
    assert surfaces(tmp_path, names) == [surface_key("home")]


def test_there_are_no_surfaces_where_the_log_tells_of_none(tmp_path):
    assert surfaces(tmp_path, [None] * 9) == []


@pytest.mark.parametrize("most", [1, 2])
def test_of_too_many_the_busiest_are_kept(tmp_path, monkeypatch, most):
    monkeypatch.setattr(facts, "_MOST_SURFACES", most)
    names = [*["a"] * 5, *["b"] * 9, *["c"] * 7]
    assert surfaces(tmp_path, names) == sorted(map(surface_key, ["b", "c"][:most]))
