"""This machine's Chromium, pages in it, and where their pictures go.

Pictures go to the folder that SCREENSHOTS names, which the Makefile sets, else to one of pytest's.
`console.png` is the README's: copy it to docs/ when the page looks different.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, async_playwright

from tests.e2e.conftest import Deployment
from tests.e2e.console.visit import Visit, Visiting

CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Chromium's sandbox does not start for root.
    *(["--no-sandbox"] if os.geteuid() == 0 else []),
]
DESK = {"width": 1280, "height": 880}


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for screenshots."""
    named = os.environ.get("SCREENSHOTS")
    if named is None:
        return tmp_path_factory.mktemp("screenshots")
    Path(named).mkdir(parents=True, exist_ok=True)
    return Path(named)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """This machine's Chromium, without a window."""
    if CHROMIUM is None:
        pytest.fail("no chromium is on the PATH (Debian: apt install chromium)")
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        await chromium.close()


@pytest.fixture
def visiting(browser: Browser, deployment: Deployment, pictures: Path) -> Visiting:
    """Opens a page; takes the options of a browser context."""

    async def visit(**options: Any) -> Visit:
        context = await browser.new_context(**({"viewport": DESK, "color_scheme": "light"} | options))
        context.set_default_timeout(15_000)
        return Visit(await context.new_page(), f"127.0.0.1:{deployment.port('http')}", pictures)

    return visit
