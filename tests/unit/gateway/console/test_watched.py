"""The state of the rollout, watched while somebody asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import aiohttp
import grpc
import pytest

from client.riptide.v1 import rollouts_pb2 as pb
from features.operator_token import operator_token, watching_token
from features.settings import Settings
from gateway.console import watched
from tests.unit.gateway.console.fakes import FakeDriver


async def ask(http: aiohttp.ClientSession) -> tuple[int, dict[str, object]]:
    async with http.get("/console/rollout") as answer:
        return answer.status, await answer.json()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


async def look_and_go_away(
    driver: FakeDriver, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Returns when the stream is closed."""
    monkeypatch.setattr(watched, "_IDLE_S", 0.3)
    assert (await ask(http))[0] == 200
    async with asyncio.timeout(20):
        while driver.open:
            await asyncio.sleep(0.01)
            await driver.speak()


async def test_the_newest_state_is_answered_in_the_json_mapping(
    driver: FakeDriver, http: aiohttp.ClientSession
) -> None:
    driver.state = pb.RolloutsWatchResponse(
        rollout=pb.Rollout(phase=pb.ROLLOUT_PHASE_CANARY, stable=1, candidate=2, percent=25),
        versions=[pb.VersionFigures(version=2, overlap=0.0), pb.VersionFigures(version=1)],
    )
    status, answer = await ask(http)
    assert status == 200
    assert {"phase": "ROLLOUT_PHASE_CANARY", "candidate": "2", "percent": 25.0}.items() <= answer[
        "rollout"
    ].items()  # type: ignore[attr-defined]
    assert ["overlap" in figures for figures in answer["versions"]] == [True, False]  # type: ignore[attr-defined]


async def test_all_who_look_share_one_stream_and_see_what_is_new(
    driver: FakeDriver, http: aiohttp.ClientSession
) -> None:
    await asyncio.gather(*(ask(http) for _ in range(5)))
    driver.state = pb.RolloutsWatchResponse(rollout=pb.Rollout(stable=7))
    await driver.speak()
    async with asyncio.timeout(20):
        while (await ask(http))[1]["rollout"]["stable"] != "7":  # type: ignore[index]
            await asyncio.sleep(0.01)
    assert driver.opened == driver.open == 1


async def test_a_token_that_lets_watch_alone_is_shown_and_not_told(
    driver: FakeDriver, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async with http.get("/console/rollout", headers={"riptide-operator-token": "another"}) as answer:
        assert watching_token(tmp_path) not in await answer.text()
        assert watching_token(tmp_path) not in str(answer.headers)
    assert [told["riptide-operator-token"] for told in driver.metadata] == [watching_token(tmp_path)]
    assert operator_token(tmp_path) not in str(driver.metadata)


async def test_nobody_looks_and_the_stream_is_closed_until_somebody_does(
    driver: FakeDriver, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    await look_and_go_away(driver, http, monkeypatch)
    driver.state = pb.RolloutsWatchResponse(rollout=pb.Rollout(stable=9))
    status, answer = await ask(http)
    assert (status, answer["rollout"]["stable"]) == (200, "9")  # type: ignore[index]
    assert driver.opened == 2


async def test_what_a_driver_has_said_before_the_stream_was_closed_is_not_told_as_news(
    driver: FakeDriver, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    await look_and_go_away(driver, http, monkeypatch)
    driver.silent = True
    monkeypatch.setattr(watched, "_FIRST_S", 0.3)
    assert (await ask(http))[0] == 503


async def test_it_stays_open_while_somebody_looks(
    driver: FakeDriver, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Time passes as fast as is asked: a second each, of the fifteen that it may be idle.
    now = [1000.0]
    monkeypatch.setattr(watched, "monotonic", lambda: now[0])
    for number in range(40):
        driver.state = pb.RolloutsWatchResponse(rollout=pb.Rollout(stable=number))
        await driver.speak()
        async with asyncio.timeout(20):
            while (await ask(http))[1]["rollout"]["stable"] != str(number):  # type: ignore[index]
                await asyncio.sleep(0.01)
        now[0] += 1
    assert (driver.opened, driver.open) == (1, 1)


async def test_that_no_driver_answers_is_said(http: aiohttp.ClientSession, settings: Settings) -> None:
    absent = f"no driver of rollouts answers at 127.0.0.1:{settings.operator_port}: "
    absent += "python -m rollout drive is one"
    for _ in range(3):
        assert await ask(http) == (503, {"code": "unavailable", "message": absent})


async def test_what_a_driver_refuses_is_said(driver: FakeDriver, http: aiohttp.ClientSession) -> None:
    driver.refusal = grpc.StatusCode.UNAVAILABLE, "the feature store does not answer; try again"
    refused = {"code": "unavailable", "message": "the feature store does not answer; try again"}
    assert await ask(http) == (503, refused)
    driver.refusal = None
    assert (await ask(http))[0] == 200


async def test_a_driver_that_falls_silent_is_not_waited_for(
    driver: FakeDriver, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched, "_FIRST_S", 0.1)
    monkeypatch.setattr(watched, "_SILENCE_S", 0.3)
    driver.silent = True
    status, answer = await ask(http)
    assert (status, answer["code"]) == (503, "unavailable")
    await until(lambda: driver.open == 0)


async def test_without_a_token_file_it_says_so(
    driver: FakeDriver, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    (tmp_path / "operator_token").touch()
    message = "the operator's token cannot be read"
    assert await ask(http) == (503, {"code": "unavailable", "message": message})
