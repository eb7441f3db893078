"""Who may use the console, and where it is off."""

from __future__ import annotations

import aiohttp
import pytest

from features.settings import Settings
from gateway.http import serving
from tests.unit.gateway.console.fakes import FakeDriver, FakeRecommender

RECOMMEND = "/riptide.v1.Recommender/Recommend"
PATHS = ["/", "/console", "/console/", "/console/console.js", "/console/users", "/console/rollout", "/x"]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8080", "localhost", "LocalHost:1", "10.1.2.3:80", "[::1]", "[::1]:8080"]
)
async def test_an_address_or_localhost_is_a_host(http: aiohttp.ClientSession, host: str) -> None:
    async with http.get("/console/", headers={"Host": host}) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.", "[evil]:80", "127.1"],
)
async def test_a_name_that_is_not_ours_is_refused(http: aiohttp.ClientSession, host: str, path: str) -> None:
    async with http.get(path, headers={"Host": host}, allow_redirects=False) as answer:
        assert answer.status == 421
        sentence = "Host: must be an address of this machine, or the name that RIPTIDE_HOST has\n"
        assert await answer.text() == sentence


async def test_a_call_for_another_host_is_not_passed_on(
    recommender: FakeRecommender, http: aiohttp.ClientSession
) -> None:
    async with http.post(RECOMMEND, json={}, headers={"Host": "evil.example"}) as answer:
        assert answer.status == 421
    assert recommender.requests == []


async def test_the_name_that_the_gateway_binds_is_a_host(settings: Settings) -> None:
    named = settings.model_copy(update={"host": "localhost"})
    async with serving(named), aiohttp.ClientSession(f"http://localhost:{named.http_port}") as session:
        for host, status in (("LOCALHOST", 200), ("riptide.example", 421)):
            async with session.get("/console/", headers={"Host": host}) as answer:
                assert answer.status == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://elsewhere.example"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "document"}, 403),
        ({"Origin": "http://127.0.0.1:8080"}, 200),
        ({"Origin": "http://127.0.0.1:8081"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
async def test_only_pages_from_here_may_call(
    recommender: FakeRecommender, http: aiohttp.ClientSession, headers: dict[str, str], status: int
) -> None:
    async with http.post(RECOMMEND, json={}, headers={"Host": "127.0.0.1:8080", **headers}) as answer:
        assert answer.status == status
    assert len(recommender.requests) == (status == 200)
    async with http.get("/console/users", headers={"Host": "127.0.0.1:8080", **headers}) as answer:
        assert answer.status == status


async def test_a_link_of_another_site_to_the_page_can_be_followed_and_a_form_cannot_call(
    recommender: FakeRecommender, http: aiohttp.ClientSession
) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    async with http.get("/console/", headers=link) as answer:
        assert answer.status == 200
    async with http.post(RECOMMEND, json={}, headers=link) as answer:
        assert answer.status == 403
    assert recommender.requests == []


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
async def test_monitoring_may_ask_under_any_name(http: aiohttp.ClientSession, path: str) -> None:
    headers = {"Host": "prometheus.example", "Sec-Fetch-Site": "cross-site"}
    async with http.get(path, headers=headers) as answer:
        assert answer.status == (503 if path == "/readyz" else 200)


@pytest.mark.parametrize("path", PATHS)
async def test_what_is_answered_is_not_kept_sniffed_framed_or_given_to_other_sites(
    http: aiohttp.ClientSession, path: str
) -> None:
    async with http.get(path, allow_redirects=False) as answer:
        policy = dict(
            part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";")
        )
        assert policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == "'none'"
        assert policy["base-uri"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        if answer.status in (200, 503):
            assert answer.headers["Cache-Control"] in ("no-cache", "no-store")


@pytest.mark.parametrize(
    ("host", "console", "offered"),
    [
        ("127.0.0.1", None, True),
        ("127.8.8.8", None, True),
        ("localhost", None, True),
        ("0.0.0.0", None, False),
        ("10.0.0.1", None, False),
        ("gateway.example", None, False),
        ("0.0.0.0", True, True),
        ("127.0.0.1", False, False),
    ],
)
def test_it_is_on_where_only_this_machine_can_ask_unless_the_setting_says_otherwise(
    host: str, console: bool | None, offered: bool
) -> None:
    assert Settings(host=host, console=console).offers_console == offered


async def test_where_others_reach_it_a_rollout_is_seen_and_not_operated(
    driver: FakeDriver, recommender: FakeRecommender, settings: Settings
) -> None:
    # The default operator_host is loopback all the while.
    wide = settings.model_copy(update={"host": "0.0.0.0", "console": True})
    async with serving(wide), aiohttp.ClientSession(f"http://127.0.0.1:{wide.http_port}") as session:
        async with session.get("/console/rollout") as answer:
            assert (await answer.json())["rollout"]["stable"] == "1"
        async with session.get("/console/operator") as answer:
            assert await answer.json() == {"offered": False}
        watched = len(driver.requests)
        for method in ("Promote", "RollBack", "Start"):
            path, headers = f"/riptide.v1.Rollouts/{method}", {"riptide-operator-token": "key"}
            async with session.post(path, json={}, headers=headers) as answer:
                said = await answer.json()
                assert (answer.status, said["code"]) == (501, "unimplemented")
                assert said["message"].startswith(
                    "promoting and rolling back is offered on the machine itself"
                )
        assert len(driver.requests) == watched
        async with session.post(RECOMMEND, json={}) as answer:
            assert answer.status == 200


async def test_on_loopback_a_rollout_is_operated(http: aiohttp.ClientSession) -> None:
    async with http.get("/console/operator") as answer:
        assert await answer.json() == {"offered": True}


async def test_on_all_addresses_it_is_reached_by_address_only(settings: Settings) -> None:
    wide = settings.model_copy(update={"host": "0.0.0.0", "console": True})
    async with serving(wide), aiohttp.ClientSession(f"http://127.0.0.1:{wide.http_port}") as session:
        for host, status in (("10.1.2.3:8080", 200), ("gateway.example", 421)):
            async with session.get("/console/", headers={"Host": host}) as answer:
                assert answer.status == status


@pytest.mark.parametrize("path", ["/", "/console", "/console/", "/console/users", RECOMMEND])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_where_it_is_off_the_setting_is_named(settings: Settings, method: str, path: str) -> None:
    off = settings.model_copy(update={"console": False})
    async with serving(off), aiohttp.ClientSession(f"http://127.0.0.1:{off.http_port}") as session:
        async with session.request(method, path, json={}) as answer:
            assert answer.status == 404
            assert "RIPTIDE_CONSOLE=1" in await answer.text()
        async with session.get("/healthz") as answer:
            assert await answer.text() == "ok\n"
