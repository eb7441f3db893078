"""The console in a real browser, with the whole of Riptide behind it: `make test-console`."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest
from playwright.async_api import expect

from client.riptide.v1 import recommender_pb2 as pb
from client.riptide.v1.recommender_pb2_grpc import RecommenderStub
from tests.e2e.console.visit import Visiting

pytestmark = pytest.mark.browser
PHONE = {"width": 360, "height": 740}
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
