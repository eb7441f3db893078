"""The files of the page."""

from __future__ import annotations

import re
from pathlib import Path

import aiohttp
import pytest

from features.settings import Settings
from gateway.console import app
from gateway.http import serving

PAGE = Path(app.__file__).with_name("page")
FILES = sorted(PAGE.iterdir())
BODIES = {file: file.read_bytes() for file in FILES}


@pytest.mark.parametrize("path", ["/", "/console"])
async def test_the_way_to_the_page_is_told(http: aiohttp.ClientSession, path: str) -> None:
    async with http.get(path, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (302, "/console/")


@pytest.mark.parametrize("file", FILES, ids=[file.name for file in FILES])
async def test_a_file_is_sent_as_what_it_is_and_asked_for_again(
    http: aiohttp.ClientSession, file: Path
) -> None:
    kinds = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    name = "" if file.name == "index.html" else file.name
    async with http.get(f"/console/{name}") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == f"{kinds[file.suffix]}; charset=utf-8"
        assert answer.headers["Cache-Control"] == "no-cache"
        assert await answer.read() == BODIES[file]


@pytest.mark.parametrize(
    "path", ["/console/nothing.js", "/console/app.py", "/console/../app.py", "/console/%2e%2e/app.py"]
)
async def test_no_other_file_is_sent(http: aiohttp.ClientSession, path: str) -> None:
    async with http.get(path) as answer:
        assert answer.status == 404


async def test_what_an_editor_leaves_there_is_not_sent(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = ["index.html~", ".app.js.swp", "notes.txt"]
    page = tmp_path / "page"
    page.mkdir()
    for name in ["index.html", *left]:
        (page / name).write_text("text")
    monkeypatch.setattr(app, "_PAGE", page)
    async with serving(settings), aiohttp.ClientSession(f"http://127.0.0.1:{settings.http_port}") as session:
        for name, status in [("", 200), *((name, 404) for name in left)]:
            async with session.get(f"/console/{name}") as answer:
                assert answer.status == status, name


def test_every_file_that_a_file_names_is_there() -> None:
    text = "".join(file.read_text() for file in FILES)
    named = set(re.findall(r'(?:href|src)="([^"]+)"|from "\./([^"]+)"', text))
    assert {first or second for first, second in named} == {file.name for file in FILES} - {"index.html"}


def test_what_is_shown_is_text_and_never_markup() -> None:
    for file in FILES:
        if file.suffix == ".js":
            wrong = (
                r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|setTimeout\(\""
            )
            assert not re.search(wrong, file.read_text()), file.name


def test_nothing_is_fetched_from_elsewhere() -> None:
    for file in FILES:
        links = set(re.findall(r"\bhttps?://[^\s\"']+", file.read_text()))
        assert links <= {"http://www.w3.org/2000/svg"}, file.name  # a name, not a place
