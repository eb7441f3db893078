"""Whose pages are asked for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from features.lmdb_store import LmdbStore
from loadtest._visitors import Visitors, of_data, of_store
from tests.unit.loadtest.running import EVENTS, Gateway, locust


def test_users_are_ranked_by_their_events_and_the_more_active_come_more_often() -> None:
    visitors = Visitors(EVENTS)
    assert visitors.ids == ["busy", "calm", "née"]
    drawn = Counter(visitors.draw() for _ in range(3000))
    assert drawn["busy"] > drawn["calm"] > drawn["née"] > 0
    assert {visitors.draw_active() for _ in range(100)} == {"busy"}


def test_prepared_data_name_users(data: Path) -> None:
    assert of_data(data).ids == ["busy", "calm", "née"]


def test_the_store_names_the_users_who_have_events(
    store_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RIPTIDE_STORE", f"lmdb:{store_folder}")
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


@pytest.mark.parametrize("processes", [(), ("--processes", "2")], ids=["one process", "several"])
def test_without_data_a_run_asks_for_pages_of_the_stores_users(
    gateway: Gateway,
    data: Path,
    store_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    processes: tuple[str, ...],
) -> None:
    monkeypatch.setenv("RIPTIDE_STORE", f"lmdb:{store_folder}")
    words = ("Plain", "--data", "", "--rate-per-user", "20", *processes)
    _, output = locust(gateway.address, data, *words)
    assert set(gateway.users) == set(EVENTS), output
    assert gateway.users["busy"] > gateway.users["née"]


def test_a_store_that_cannot_be_opened_here_is_said_with_what_to_do(
    gateway: Gateway, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RIPTIDE_STORE", f"lmdb:{tmp_path / 'nowhere'}")
    status, output = locust(gateway.address, data, "--data", "")
    assert status == 2
    assert output.splitlines()[-1] == (
        f"users: {tmp_path / 'nowhere'}: there is no store; make up makes one; "
        "without the store here, --data names prepared data"
    )
    assert not gateway.users
