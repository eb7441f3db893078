"""Users to choose from."""

from __future__ import annotations

import threading
from pathlib import Path

import aiohttp
import pytest

from features.record import Event
from features.schema import EventType
from features.settings import Settings
from features.store import FeatureStore, open_store
from gateway.console import users


async def record(settings: Settings, *user_ids: str) -> None:
    store = open_store(settings)
    await store.append([Event(user_id, "1", EventType.CLICK, 1, 1.0) for user_id in user_ids])
    await store.close()


async def ask(http: aiohttp.ClientSession) -> tuple[int, dict[str, object]]:
    async with http.get("/console/users") as answer:
        return answer.status, await answer.json()


async def test_some_of_the_store_are_named(
    http: aiohttp.ClientSession, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(users, "MOST_USERS", 2)
    await record(settings, "196", "é", "22")
    status, answer = await ask(http)
    assert status == 200
    assert answer.keys() == {"userIds"}
    assert len(answer["userIds"]) == 2  # type: ignore[arg-type]
    assert set(answer["userIds"]) < {"196", "é", "22"}  # type: ignore[call-overload]


async def test_the_store_is_opened_when_somebody_asks(http: aiohttp.ClientSession, tmp_path: Path) -> None:
    assert not (tmp_path / "store").exists()
    assert await ask(http) == (200, {"userIds": []})
    assert (tmp_path / "store").exists()
    assert await ask(http) == (200, {"userIds": []})


async def test_a_store_that_cannot_be_opened_is_said_and_tried_again(
    http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    (tmp_path / "store").touch()
    refused = {"code": "unavailable", "message": "the feature store does not answer; try again"}
    assert await ask(http) == (503, refused)
    (tmp_path / "store").unlink()
    assert await ask(http) == (200, {"userIds": []})


async def test_a_store_that_opens_slowly_is_opened_once(
    http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_open, opened = threading.Event(), []

    def open_slowly(settings: Settings) -> FeatureStore:
        may_open.wait(20)
        opened.append(settings)
        return open_store(settings)

    monkeypatch.setattr(users, "_TIMEOUT_S", 0.1)
    monkeypatch.setattr(users, "open_store", open_slowly)
    assert [(await ask(http))[0] for _ in range(2)] == [503, 503]
    may_open.set()
    monkeypatch.setattr(users, "_TIMEOUT_S", 20.0)
    assert await ask(http) == (200, {"userIds": []})
    assert len(opened) == 1
