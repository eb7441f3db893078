"""What users did and were shown, as training reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from features.schema import feature_key, surface_key
from tests.unit.training.preparing import NOON, config, log, run
from training import user_log
from training.dataset import History, Prepared, open_prepared
from training.errors import TrainingError

SETTINGS = config(events={"columns": {"type": "type", "surface": "where"}, "exposures": ["seen"]})
HEADER = "user_id,item_id,time,type,where"


def opened(folder: Path, *rows: str, users: str | None = None) -> Prepared:
    return open_prepared(run(folder, log(*rows, header=HEADER), SETTINGS, users=users).folder)


def test_events_carry_the_keys_of_their_surfaces_in_their_own_order(tmp_path: Path) -> None:
    prepared = opened(
        tmp_path, f"a,x,{NOON + 1},VIEW,home", f"a,z,{NOON + 2},VIEW,", f"a,y,{NOON},VIEW,search"
    )
    (history,) = prepared.histories()
    assert history.surfaces.tolist() == [surface_key("search"), surface_key("home"), 0]
    assert history.until(2).surfaces.tolist() == [surface_key("search"), surface_key("home")]


def test_events_of_one_second_keep_their_surfaces_when_lots_are_drawn(tmp_path: Path) -> None:
    prepared = opened(tmp_path, *(f"a,{n:02},{NOON},VIEW,s{n:02}" for n in range(30)))
    (history,) = prepared.histories()
    assert history.items.tolist() != sorted(history.items.tolist())
    assert history.surfaces.tolist() == [surface_key(f"s{item - 1:02}") for item in history.items]


def test_users_carry_the_keys_of_their_attributes_in_alphabetical_order(tmp_path: Path) -> None:
    users = "user_id,tier,country\n0,gold,DE\na,gold,\nc,,FR\nd,silver,FR\n\u00e9,gold,JP\nz,gold,DE\n"
    events = [f"{user},x,{NOON},VIEW," for user in ("a", "b", "c", "\u00e9", "\uffee", "\U0001f600")]
    prepared = opened(tmp_path, *events, users=users)
    assert prepared.attributes == ("country", "tier")
    for rows in (1, 2, 100):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(user_log, "_ROWS_PER_READ", rows)
            got = {history.user_id: history.features.tolist() for history in prepared.histories()}
        assert got == {
            "a": [0, feature_key("tier", "gold")],
            "b": [0, 0],
            "c": [feature_key("country", "FR"), 0],
            "\u00e9": [feature_key("country", "JP"), feature_key("tier", "gold")],
            "\uffee": [0, 0],
            "\U0001f600": [0, 0],
        }
    assert all(history.until(0).features is history.features for history in prepared.histories())


def test_without_a_users_file_there_are_no_attributes(tmp_path: Path) -> None:
    prepared = opened(tmp_path, f"a,x,{NOON},VIEW,")
    (history,) = prepared.histories()
    assert (prepared.attributes, history.features.tolist()) == ((), [])


def test_a_history_without_surfaces_and_attributes_can_be_cut_too() -> None:
    history = History("a", np.array([1, 2], np.int32), np.array([1, 2]), np.array([1, 1], np.uint8)).until(1)
    assert (len(history), history.surfaces.tolist(), history.features.tolist()) == (1, [], [])


def test_exposures_come_by_user_and_whole_wherever_the_record_batches_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = {"a": 3, "b": 1, "d": 5}
    prepared = opened(
        tmp_path,
        *(f"{user},x,{NOON},VIEW," for user in "abcd"),
        *(f"{user},{n},{NOON + n},seen,s{n}" for user, count in shown.items() for n in range(count)),
    )
    for rows in (1, 2, 3, 100):
        monkeypatch.setattr(user_log, "_ROWS_PER_READ", rows)
        got = {e.user_id: [prepared.items[i - 1].item_id for i in e.items] for e in prepared.exposures()}
        assert got == {user: [str(n) for n in range(count)] for user, count in shown.items()}
        assert list(got) == ["a", "b", "d"]
    last = list(prepared.exposures())[-1]
    assert last.times.tolist() == [NOON + n for n in range(5)]
    assert last.surfaces.tolist() == [surface_key(f"s{n}") for n in range(5)]
    assert (last.items.dtype, last.times.dtype, last.surfaces.dtype) == (np.int32, np.int64, np.int64)


def test_an_exposure_of_an_item_that_is_not_in_the_catalogue_is_named(tmp_path: Path) -> None:
    prepared = opened(tmp_path, f"a,x,{NOON},VIEW,", f"a,y,{NOON},seen,")
    fewer = Prepared(prepared.folder, prepared.fingerprint, prepared.items[:1], ())
    with pytest.raises(TrainingError, match=r"exposures\.parquet: item 'y'"):
        list(fewer.exposures())
