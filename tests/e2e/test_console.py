"""The console in a real browser, with the whole of Riptide behind it: `make test-console`.

Pictures go to the folder that SCREENSHOTS names, which the Makefile sets, else to one of pytest's.
`console.png` is the README's: copy it to docs/ when the page looks different.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import pytest
from PIL import Image
from playwright.async_api import Browser, Dialog, Page, Request, Route, async_playwright, expect

from client.client import Client
from client.riptide.v1 import recommender_pb2 as pb
from client.riptide.v1 import rollouts_pb2
from client.riptide.v1.recommender_pb2_grpc import RecommenderStub
from client.riptide.v1.rollouts_pb2_grpc import RolloutsStub
from features.operator_token import TOKEN_METADATA, operator_token
from tests.e2e.conftest import Deployment

pytestmark = pytest.mark.browser
# Two busy cores may take their time.
expect.set_options(timeout=30_000)

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
DESK, PHONE = {"width": 1280, "height": 880}, {"width": 360, "height": 740}
# Contrast of each text with what is behind it, WCAG 2.2, where it is below 4.5.
FAINT = """() => {
  const parts = (color) => color.match(/[\\d.]+/g).map(Number);
  const luminance = (color) => {
    const [r, g, b] = parts(color).slice(0, 3).map((part) => part / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if ((parts(color)[3] ?? 1) > 0) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const faint = [];
  for (const element of document.body.querySelectorAll("*")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if ((!own && !element.value) || element.disabled || !element.checkVisibility()) continue;
    const colors = [getComputedStyle(element).color, behind(element)];
    const [low, high] = colors.map(luminance).sort((a, b) => a - b);
    const contrast = (high + 0.05) / (low + 0.05);
    if (contrast < 4.5) faint.push([element.outerHTML.slice(0, 100), contrast]);
  }
  return faint;
}"""
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
        # On a busy machine the model may have been late.
        while await self.page.locator("#degraded").is_visible() and not degraded:
            await self.page.reload()
            await expect(self.page.locator("#page > li")).to_have_count(10)

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
        pytest.skip("no chromium is on the PATH (Debian: apt install chromium)")
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        await chromium.close()


Visiting = Callable[..., Awaitable[Visit]]


@pytest.fixture
def visiting(browser: Browser, deployment: Deployment, pictures: Path) -> Visiting:
    """Opens a page; takes the options of a browser context."""

    async def visit(**options: Any) -> Visit:
        context = await browser.new_context(**({"viewport": DESK, "color_scheme": "light"} | options))
        context.set_default_timeout(15_000)
        return Visit(await context.new_page(), f"127.0.0.1:{deployment.port('http')}", pictures)

    return visit


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


async def test_a_page_is_shown_and_a_click_changes_history_and_page(
    visiting: Visiting, gateway: RecommenderStub
) -> None:
    visit = await visiting()
    await visit.user("196")
    page = visit.page
    before, had = await visit.titles("page"), await visit.titles("history")
    assert before[0] not in had
    first = page.locator("#page > li").first
    assert re.fullmatch(r"0\.\d{3}", await first.locator(".score").inner_text())
    assert "because of" in await first.inner_text()
    await expect(page.locator("#origin")).to_contain_text(re.compile(r"^recommender version \d+ · cohort "))
    await expect(page.locator("#stages")).to_contain_text(
        re.compile(r"queue .*features .*model .*total [\d.]+ ms")
    )
    await expect(page.locator("#degraded")).to_be_hidden()
    assert await page.locator("#page .mark:not(:empty)").count() == 0

    await first.locator("button").click()

    await expect(page.locator("#news")).to_contain_text(f"Recorded: click on “{before[0]}”. The page has ")
    assert await visit.titles("history") == [before[0], *had][: len(had)]
    assert before[0] not in await visit.titles("page")
    assert await visit.titles("page") != before[1:]
    assert await page.locator("#page .mark.fresh").count() >= 1
    stored = (await gateway.DescribeUser(pb.DescribeUserRequest(user_id="196"), timeout=5)).events[-1]
    assert (stored.title, stored.type, stored.weight) == (before[0], pb.EVENT_TYPE_CLICK, 1)
    assert "click · " in await page.locator("#history > li").first.inner_text()
    visit.check()


async def test_all_can_be_done_by_keyboard_and_the_focus_is_seen_and_kept(visiting: Visiting) -> None:
    visit = await visiting()
    await visit.user("22")
    page = visit.page
    await page.locator("#user").focus()
    await page.keyboard.press("Control+A")
    await page.keyboard.type("13")
    await page.keyboard.press("Enter")
    await expect(page.locator("#news")).to_have_text("10 items for user 13.")
    assert urlsplit(page.url).fragment == "user=13"

    stops = []
    while not await page.evaluate("document.activeElement.matches('#page li:nth-child(2) button')"):
        await page.keyboard.press("Tab")
        stops.append(await page.evaluate("document.activeElement.id || document.activeElement.innerText"))
        assert len(stops) < 20, stops
    options = ["limit", "type", "diversity", "explain"]
    assert [stop for stop in stops if stop in options] == options
    outline = "getComputedStyle(document.activeElement, '::after').outlineStyle"
    assert await page.evaluate(outline) == "solid"

    second = (await visit.titles("page"))[1]
    await page.keyboard.press("Enter")
    await expect(page.locator("#news")).to_contain_text(f"Recorded: click on “{second}”.")
    assert (await visit.titles("history"))[0] == second
    assert await page.evaluate("document.activeElement.matches('#page li:nth-child(2) button')")

    # And on from there to the last that can be used.
    for _ in range(40):
        await page.keyboard.press("Tab")
        if await page.evaluate("document.activeElement.id") == "why":
            break
    assert await page.evaluate("document.activeElement.id") == "why"
    visit.check()


async def test_another_kind_of_event_length_and_diversity_can_be_chosen(visiting: Visiting) -> None:
    visit = await visiting()
    await visit.user("300")
    page = visit.page
    relevant = await visit.titles("page")
    await page.locator("#diversity").fill("0.9")
    await page.locator("#diversity").blur()
    await expect(page.locator("#news")).to_contain_text("The page has ")
    await page.locator("#limit").select_option("20")
    await expect(page.locator("#page > li")).to_have_count(20)
    assert (await visit.titles("page"))[:10] != relevant
    await page.locator("#explain").uncheck()
    await expect(page.locator("#page")).not_to_contain_text("because of")
    await page.locator("#type").select_option("like")
    await page.locator("#page button").nth(3).click()
    await expect(page.locator("#news")).to_contain_text("Recorded: like on ")
    await expect(page.locator("#history > li").first).to_contain_text("like · ")
    visit.check()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_text_stands_out_from_what_is_behind_it(visiting: Visiting, scheme: str) -> None:
    visit = await visiting(color_scheme=scheme)
    await visit.user("5")
    await visit.page.locator("#page button").first.click()
    await expect(visit.page.locator("#news")).to_contain_text("Recorded")
    await expect(visit.page.locator("#standing")).to_contain_text("is stable")
    await visit.page.locator("#key").fill("x")
    assert await visit.page.evaluate(FAINT) == []
    dark = await visit.page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    ground = await visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert dark == (scheme == "dark") == (int(re.findall(r"\d+", ground)[0]) < 128)
    await visit.picture(scheme)
    visit.check()


async def test_it_fits_a_phone(visiting: Visiting) -> None:
    visit = await visiting(viewport=PHONE, has_touch=True, is_mobile=True)
    await visit.user("5")
    await expect(visit.page.locator("#versions")).to_be_visible()
    await visit.page.locator("#page button").nth(1).tap()
    await expect(visit.page.locator("#news")).to_contain_text("Recorded")
    assert await visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert await visit.page.evaluate("innerWidth") == PHONE["width"]
    await visit.picture("phone", whole=True)
    visit.check()


async def test_without_a_user_the_first_is_shown_and_users_are_offered(visiting: Visiting) -> None:
    visit = await visiting()
    await visit.go("")
    await expect(visit.page.locator("#page > li")).to_have_count(10)
    assert await visit.page.locator("#user").input_value() == "1"
    offered = await visit.page.locator("#users option").evaluate_all("each => each.map((one) => one.value)")
    assert len(offered) > 100
    assert offered == sorted(offered, key=int)
    visit.check()


async def test_a_link_names_the_user(visiting: Visiting) -> None:
    visit = await visiting()
    await visit.user("13")
    await visit.go("#user=nobody%20%26%20%23knows")
    await expect(visit.page.locator("#known")).to_have_text("Nothing is stored of this user.")
    assert await visit.page.locator("#user").input_value() == "nobody & #knows"
    visit.check("404")


async def test_an_unknown_user_gets_a_page_and_what_degraded_means(visiting: Visiting) -> None:
    visit = await visiting()
    await visit.user("<b>nobody</b>", degraded=True)
    await expect(visit.page.locator("#known")).to_have_text("Nothing is stored of this user.")
    await expect(visit.page.locator("#degraded")).to_be_visible()
    await expect(visit.page.locator("#degraded")).to_contain_text("popular items")
    await expect(visit.page.locator("#news")).to_have_text("10 items for user <b>nobody</b>.")
    visit.check("404")  # of DescribeUser: Chromium tells of it, and so it should


async def test_what_the_gateway_refuses_is_shown_in_its_words(visiting: Visiting) -> None:
    visit = await visiting()
    await visit.go(f"#user={'x' * 300}")
    await expect(visit.page.locator("#news")).to_have_text("user_id: must have 1 to 256 bytes, not 300")
    await expect(visit.page.locator("#page > li")).to_have_count(0)
    visit.check("400")


async def holding(page: Page, user_id: str) -> asyncio.Event:
    """Pages for a user come when the event is set, and not before."""
    held = asyncio.Event()

    async def hold(route: Route, request: Request) -> None:
        if request.post_data_json["userId"] == user_id:
            await held.wait()
        await route.continue_()

    await page.route("**/Recommend", hold)
    return held


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


async def test_a_screen_reader_hears_what_a_button_records_and_no_news_twice(visiting: Visiting) -> None:
    visit = await visiting()
    await visit.user("196")
    page = visit.page
    button = page.locator("#page button").first
    await expect(button).to_have_accessible_description("Records an event: click")
    await page.locator("#type").select_option("add to cart")
    await expect(button).to_have_accessible_description("Records an event: add to cart")
    await expect(page.locator("#connection")).to_have_text("connected")
    await page.evaluate("window.said = document.getElementById('connection').firstChild")
    for _ in range(2):  # the second is asked for when the first has been told of
        async with page.expect_response("**/metrics"):
            pass
    assert await page.evaluate("window.said === document.getElementById('connection').firstChild")
    visit.check()


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
        seen = "document.querySelector('#live polyline').getAttribute('points').split(' ').length > 8"
        await page.wait_for_function(seen, timeout=60_000)
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
