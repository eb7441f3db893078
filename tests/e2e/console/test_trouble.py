"""The console when answers come late, broken, or not at all."""

from __future__ import annotations

import asyncio
import re
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Page, Request, Route, expect

from client.riptide.v1 import recommender_pb2 as pb
from client.riptide.v1.recommender_pb2_grpc import RecommenderStub
from tests.e2e.console.visit import Visiting, answering

pytestmark = pytest.mark.browser
# Answers that the page has read to the end.
READ = """
  window.read = [];
  const text = Response.prototype.text;
  Response.prototype.text = async function () {
    const said = await text.call(this);
    window.read.push(said);
    return said;
  };
"""


async def holding(page: Page, user_id: str) -> asyncio.Event:
    """Pages for a user come when the event is set, and not before."""
    held = asyncio.Event()

    async def hold(route: Route, request: Request) -> None:
        if request.post_data_json["userId"] == user_id:
            await held.wait()
        await route.continue_()

    await page.route("**/Recommend", hold)
    return held


async def test_an_answer_to_an_older_question_is_not_shown(visiting: Visiting) -> None:
    visit = await visiting()
    await visit.page.add_init_script(READ)
    await visit.user("196")
    held = await holding(visit.page, "13")
    for user_id in ("13", "300"):
        await visit.page.locator("#user").fill(user_id)
        await visit.page.keyboard.press("Enter")
    await expect(visit.page.locator("#news")).to_have_text("10 items for user 300.")
    shown = await visit.titles("page")
    async with visit.page.expect_response("**/Recommend") as answered:
        held.set()
    late = await (await answered.value).text()
    await visit.page.wait_for_function("(late) => window.read.includes(late)", arg=late)
    assert await visit.titles("page") == shown
    await expect(visit.page.locator("#news")).to_have_text("10 items for user 300.")
    visit.check()


async def test_a_click_and_an_option_meanwhile_do_not_cancel_the_user_who_was_asked_for(
    visiting: Visiting, gateway: RecommenderStub
) -> None:
    visit = await visiting()
    await visit.user("196")
    page = visit.page
    title = (await visit.titles("page"))[0]
    held = await holding(page, "13")
    await page.locator("#user").fill("13")
    await page.keyboard.press("Enter")
    await expect(page.locator("#page")).to_have_attribute("aria-busy", "true")
    async with page.expect_response("**/RecordEvents"):
        await page.locator("#page button").first.click()
    await page.locator("#explain").uncheck()
    held.set()
    await expect(page.locator("#news")).to_contain_text("10 items for user 13.")
    await expect(page.locator("#page")).not_to_contain_text("because of")
    await expect(page.locator("#page")).not_to_have_attribute("aria-busy", "true")
    assert await page.locator("#user").input_value() == "13"
    assert urlsplit(page.url).fragment == "user=13"
    stored = (await gateway.DescribeUser(pb.DescribeUserRequest(user_id="196"), timeout=5)).events[-1]
    assert stored.title == title
    visit.check()


DOWN = {"code": "unavailable", "message": "the feature store does not answer; try again"}


async def test_without_a_store_there_are_a_page_and_live_figures(visiting: Visiting) -> None:
    visit = await visiting()
    page = visit.page
    async with answering(page, "**/DescribeUser", 503, DOWN), answering(page, "**/users", 503, DOWN):
        await visit.go("#user=196")
        await expect(page.locator("#page > li")).to_have_count(10)
        await expect(page.locator("#known")).to_have_text(f"History not known: {DOWN['message']}.")
        await expect(page.locator("#connection")).to_have_text("connected")
        await expect(page.locator("#live b").first).to_have_text(re.compile(r"^[\d.]+$"))
    await expect(page.locator("#users option").first).to_be_attached()
    await page.locator("#ask .main").click()
    await expect(page.locator("#known")).to_contain_text("stored")
    visit.check("503")


async def test_users_that_come_late_do_not_replace_what_is_typed(visiting: Visiting) -> None:
    visit = await visiting()
    page = visit.page
    async with answering(page, "**/users", 503, DOWN):
        await visit.go("")
        said = f"Users to choose from are not known: {DOWN['message']}; trying again"
        await expect(page.locator("#news")).to_have_text(said)
        await page.locator("#user").press_sequentially("30")
    await expect(page.locator("#users option").first).to_be_attached()
    await expect(page.locator("#news")).to_have_text("")
    assert await page.locator("#user").input_value() == "30"
    await page.keyboard.press("Enter")
    await expect(page.locator("#news")).to_have_text("10 items for user 30.")
    visit.check("503")


@pytest.mark.parametrize(
    ("status", "answer", "said"),
    [
        (503, DOWN, "May not be recorded: click on “{}”. the feature store does not answer; try again"),
        (504, {"code": "deadline_exceeded", "message": "late"}, "May not be recorded: click on “{}”. late"),
        (400, {"code": "invalid_argument", "message": "wrong"}, "Not recorded: click on “{}”. wrong"),
    ],
)
async def test_an_event_that_fails_is_said_and_not_tried_again(
    visiting: Visiting, status: int, answer: dict[str, str], said: str
) -> None:
    visit = await visiting()
    await visit.user("42")
    title = (await visit.titles("page"))[0]
    async with answering(visit.page, "**/RecordEvents", status, answer):
        await visit.page.locator("#page button").first.click()
        await expect(visit.page.locator("#news")).to_have_text(said.format(title))
    visit.check(str(status))


async def test_what_is_not_the_gateways_answer_is_said_and_passes(visiting: Visiting) -> None:
    visit = await visiting()
    await visit.user("196")
    page = visit.page
    async with answering(page, "**/Recommend", 200, "<p>Sign in"), answering(page, "**/rollout", 200, {}):
        await page.locator("#ask .main").click()
        await expect(page.locator("#news")).to_contain_text("what was answered is no JSON")
        await expect(page.locator("#page")).not_to_have_attribute("aria-busy", "true")
        await expect(page.locator("#standing")).to_contain_text("this page does not understand the answer")
    async with answering(page, "**/Recommend", 200, {"items": None}):
        await page.locator("#ask .main").click()
        await expect(page.locator("#news")).to_have_text("this page does not understand the answer")
        await expect(page.locator("#page")).not_to_have_attribute("aria-busy", "true")
    item = {"itemId": "5", "title": "Five", "rank": 1, "score": "NaN", "categories": []}
    async with answering(page, "**/Recommend", 200, {"items": [item], "degraded": "", "requestId": "r"}):
        await page.locator("#ask .main").click()
        await expect(page.locator("#page .score")).to_have_text(["NaN"])
        await expect(page.locator("#stages")).to_be_empty()
    await page.locator("#ask .main").click()
    await expect(page.locator("#page > li")).to_have_count(10)
    await expect(page.locator("#standing")).to_contain_text("is stable")
    visit.check("page error: ")


async def test_that_the_gateway_is_gone_is_shown_and_passes(visiting: Visiting) -> None:
    visit = await visiting()
    await visit.user("13")
    await expect(visit.page.locator("#connection")).to_have_text("connected")
    await visit.page.context.set_offline(True)
    await visit.page.locator("#user").fill("300")
    await visit.page.keyboard.press("Enter")
    await expect(visit.page.locator("#news")).to_have_text("the gateway does not answer; trying again")
    await expect(visit.page.locator("#connection")).to_have_text("the gateway does not answer; trying again")
    await expect(visit.page.locator("#standing")).to_contain_text("is not known: the gateway does not answer")
    await visit.page.context.set_offline(False)
    await expect(visit.page.locator("#connection")).to_have_text("connected")
    await expect(visit.page.locator("#news")).to_have_text("10 items for user 300.")
    await expect(visit.page.locator("#standing")).to_contain_text("is stable")
    visit.check("ERR_INTERNET_DISCONNECTED")
