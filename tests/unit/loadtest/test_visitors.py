"""Whose pages are asked for."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from features.lmdb_store import LmdbStore
from loadtest._visitors import Visitors, of_data, of_store
from tests.unit.loadtest.conftest import store_in
from tests.unit.loadtest.running import EVENTS, Done, at_once, prepared, run


def test_users_are_ranked_by_their_events_and_the_more_active_come_more_often() -> None:
    visitors = Visitors(EVENTS)
    assert visitors.ids == ["busy", "calm", "née"]
    drawn = Counter(visitors.draw() for _ in range(3000))
    assert drawn["busy"] > drawn["calm"] > drawn["née"] > 0
    assert {visitors.draw_active() for _ in range(100)} == {"busy"}


def test_prepared_data_name_users(tmp_path: Path) -> None:
    assert of_data(prepared(tmp_path / "data")).ids == ["busy", "calm", "née"]


async def test_the_store_names_the_users_who_have_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RIPTIDE_STORE", f"lmdb:{await store_in(tmp_path / 'store')}")
    assert of_store().ids == ["busy", "calm", "née"]


def test_where_there_is_no_store_none_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIPTIDE_STORE", f"lmdb:{tmp_path / 'nowhere'}")
    with pytest.raises(ValueError, match="nowhere: there is no store; make up makes one"):
        of_store()
    assert not list(tmp_path.iterdir())


async def test_a_store_without_users_is_said_to_have_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await LmdbStore(tmp_path / "empty", history_cap=100, map_bytes=1 << 24).close()
    monkeypatch.setenv("RIPTIDE_STORE", f"lmdb:{tmp_path / 'empty'}")
    with pytest.raises(ValueError, match="nobody in the store has an event"):
        of_store()


@pytest.fixture(scope="module")
def done(folder: Path) -> dict[str, Done]:
    store = asyncio.run(store_in(folder / "store"))
    words = ("Plain", "--data", "", "--rate-per-user", "20")
    here, nowhere = ({"RIPTIDE_STORE": f"lmdb:{where}"} for where in (store, folder / "nowhere"))
    return at_once(
        {
            "one process": partial(run, folder / "one", *words, variables=here),
            "several": partial(run, folder / "several", *words, "--processes", "2", variables=here),
            "no store": partial(run, folder / "none", "--data", "", variables=nowhere),
        }
    )


@pytest.mark.parametrize("name", ["one process", "several"])
def test_without_data_a_run_asks_for_pages_of_the_stores_users(done: dict[str, Done], name: str) -> None:
    users = done[name].gateway.users
    assert set(users) == set(EVENTS), done[name].output
    assert users["busy"] > users["née"]


def test_a_store_that_cannot_be_opened_here_is_said_with_what_to_do(
    done: dict[str, Done], folder: Path
) -> None:
    refused = done["no store"]
    assert refused.status == 2
    assert refused.output.splitlines()[-1] == (
        f"users: {folder / 'nowhere'}: there is no store; make up makes one; "
        "without the store here, --data names prepared data"
    )
    assert not refused.gateway.users
