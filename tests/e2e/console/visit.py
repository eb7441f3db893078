"""A page of the console in a browser, and what else may answer or call meanwhile."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL import Image
from playwright.async_api import Page, Route, expect

from client.client import Client
from tests.e2e.conftest import Deployment

# Two busy cores may take their time.
expect.set_options(timeout=30_000)


class Visit:
    """A page of the browser, and what it has said and asked for."""

    def __init__(self, page: Page, host: str, pictures: Path) -> None:
        self.page = page
        self.errors: list[str] = []
        self.asked: list[str] = []
        self._host = host
        self._pictures = pictures
        page.on("pageerror", lambda error: self.errors.append(f"page error: {error}"))
        page.on("console", self._hear)
        page.on("request", lambda request: self.asked.append(request.url))

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(f"{message.text} {message.location.get('url', '')}")

    async def go(self, fragment: str) -> None:
        await self.page.goto(f"http://{self._host}/console/{fragment}")

    async def user(self, user_id: str, *, degraded: bool = False) -> None:
        """Goes to the page of a user and waits for it."""
        await self.go(f"#user={user_id}")
        await expect(self.page.locator("#page > li")).to_have_count(10)
        for _ in range(10):  # on a busy machine the model may have been late
            if degraded or not await self.page.locator("#degraded").is_visible():
                return
            await self.page.reload()
            await expect(self.page.locator("#page > li")).to_have_count(10)
        raise AssertionError("no page of the model in ten tries")

    async def picture(self, name: str, *, whole: bool = False) -> None:
        taken = Image.open(io.BytesIO(await self.page.screenshot(full_page=whole)))
        # A third of the size, and no difference to be seen.
        few = taken.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few.save(self._pictures / f"{name}.png", optimize=True)

    async def titles(self, of: str) -> list[str]:
        return await self.page.locator(f"#{of} .title").all_inner_texts()

    def check(self, *expected: str) -> None:
        """Nothing was asked of other hosts, and nothing went wrong but what is expected, all of which did."""
        assert {urlsplit(url).netloc for url in self.asked} == {self._host}
        unexpected = [error for error in self.errors if not any(each in error for each in expected)]
        assert unexpected == []
        for each in expected:
            assert any(each in error for error in self.errors), each


Visiting = Callable[..., Awaitable[Visit]]


@asynccontextmanager
async def calling(deployment: Deployment) -> AsyncIterator[None]:
    """Others ask for pages meanwhile, four at a time."""

    async def ask(client: Client) -> None:
        for number in range(1, 1_000_000):
            await client.recommend(str(number % 900 + 1), limit=10)

    async with Client(deployment.target, timeout_s=10) as client:
        callers = [asyncio.create_task(ask(client)) for _ in range(4)]
        try:
            yield
        finally:
            for caller in callers:
                caller.cancel()
            ends = await asyncio.gather(*callers, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends


@asynccontextmanager
async def answering(page: Page, path: str, status: int, body: object) -> AsyncIterator[None]:
    """Something else answers what is asked for at a path: text, or JSON."""

    async def answer(route: Route) -> None:
        if isinstance(body, str):
            await route.fulfill(status=status, body=body, content_type="text/html")
        else:
            await route.fulfill(status=status, json=body)

    await page.route(path, answer)
    yield
    await page.unroute(path, answer)
