"""What the console shows an operator: live figures, and a rollout that they promote and roll back."""

from __future__ import annotations

import asyncio
import re

import grpc
import pytest
from playwright.async_api import Dialog, expect

from client.riptide.v1 import rollouts_pb2
from client.riptide.v1.rollouts_pb2_grpc import RolloutsStub
from features.operator_token import TOKEN_METADATA, operator_token
from tests.e2e.conftest import Deployment
from tests.e2e.console.visit import Visiting, answering, calling

pytestmark = pytest.mark.browser


async def test_where_others_reach_the_gateway_the_page_says_that_operating_is_for_the_machine(
    visiting: Visiting,
) -> None:
    visit = await visiting()
    async with answering(visit.page, "**/console/operator", 200, {"offered": False}):
        await visit.user("196")
        await visit.page.locator("#key").fill("x")
        await expect(visit.page.locator("#may")).to_contain_text("are for the machine itself")
    await expect(visit.page.locator("#promote")).to_be_disabled()
    visit.check()


async def test_throughput_p99_and_batches_are_live(visiting: Visiting, deployment: Deployment) -> None:
    visit = await visiting()
    await visit.user("13")
    figures = visit.page.locator("#live b")
    async with calling(deployment):
        await expect(figures.nth(0)).to_have_text(re.compile(r"^\d{2,}$"))
        await expect(figures.nth(1)).to_have_text(re.compile(r"^[\d.]+ ms$"))
        await expect(figures.nth(2)).to_have_text(re.compile(r"^[1-4]\.\d$"))
    # What was is no longer shown when nobody calls.
    await expect(figures.nth(0)).to_have_text("0.0", timeout=20_000)
    visit.check()


async def test_a_rollout_is_watched_and_promoted_with_the_operators_key_only(
    visiting: Visiting, deployment: Deployment
) -> None:
    visit = await visiting()
    await visit.user("196")
    page = visit.page
    promote, roll_back = page.locator("#promote"), page.locator("#roll-back")
    await expect(page.locator("#phase")).to_have_text("idle")
    await page.locator("#key").fill("x")
    await expect(promote).to_be_disabled()  # there is nothing to promote
    await expect(page.locator("#may")).to_have_text("There is nothing to promote or to roll back now.")
    await page.locator("#key").fill("")

    published = await asyncio.to_thread(deployment.run, "rollout", "publish")
    assert published.returncode == 0, published.stderr
    token = operator_token(deployment.folder / "var")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{deployment.port('operator')}") as channel:
        wanted = rollouts_pb2.RolloutsStartRequest(steps=[50, 100], step_seconds=600, shadow_percent=50)
        begun = (await RolloutsStub(channel).Start(wanted, metadata=((TOKEN_METADATA, token),))).rollout
    async with calling(deployment):
        await expect(page.locator("#phase")).to_have_text("shadow", timeout=90_000)
        version = page.locator("th", has_text=re.compile(f"^{begun.candidate}$"))
        candidate = page.locator("#versions tbody tr").filter(has=version)
        unseen, overlap = candidate.locator("td").nth(4), candidate.locator("td").nth(5)
        await expect(unseen).to_have_text(re.compile("^[1-9]"))
        await expect(overlap).to_have_text("100\N{NO-BREAK SPACE}%")  # it is the same model
        await expect(promote).to_be_disabled()
        await expect(roll_back).to_be_disabled()
        await page.locator("#page button").nth(2).click()
        await expect(page.locator("#news")).to_contain_text("Recorded")
        await page.mouse.move(0, 0)
        await page.evaluate("document.activeElement.blur()")
        curve = page.locator("#live polyline").first
        await expect(curve).to_have_attribute("points", re.compile(r"^\S+( \S+){8,}$"), timeout=60_000)
        await visit.picture("console")

        dialogs: list[str] = []

        async def accept(dialog: Dialog) -> None:
            dialogs.append(dialog.message)
            await dialog.accept()

        page.on("dialog", accept)
        await page.locator("#key").fill("ключ")
        await expect(promote).to_be_enabled()
        for field in ("#key", "#why"):
            await page.locator(field).press("Enter")
        assert dialogs == []
        await promote.click()
        assert dialogs == [f"Make version {begun.candidate} the stable version for all users?"]
        await expect(page.locator("#operated")).to_have_text("an operator's key has no such characters")
        await page.locator("#key").fill("not the key")
        await promote.click()
        wrong = "riptide-operator-token: is missing, or not the operator's token"
        await expect(page.locator("#operated")).to_have_text(wrong)
        await expect(page.locator("#phase")).to_have_text("shadow")

        await page.locator("#key").fill(token)
        await expect(roll_back).to_be_enabled()
        await promote.click()
        await expect(page.locator("#operated")).to_have_text("Promoted: see above.")
        assert await page.evaluate("document.activeElement.id") == "promote"
        await expect(page.locator("#standing")).to_contain_text(f"Version {begun.candidate} is stable")
        await expect(page.locator("#phase")).to_have_text("retire")

        await page.locator("#why").fill("sales are down")
        await roll_back.click()
        await expect(page.locator("#operated")).to_have_text("Rolled back: see above.")
        await expect(page.locator("#phase")).to_have_text("rolled back")
        await expect(page.locator("#standing")).to_contain_text(f"Version {begun.stable} is stable")
        await expect(page.locator("#because")).to_contain_text("sales are down")
        await expect(promote).to_be_disabled()
        await expect(roll_back).to_be_disabled()
    assert token not in page.url
    stored = await page.evaluate("[document.cookie, localStorage.length, sessionStorage.length]")
    assert stored == ["", 0, 0]
    visit.check("401")
