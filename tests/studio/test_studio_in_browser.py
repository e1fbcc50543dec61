"""The page in a real browser: every view, wide and narrow, by clicks and by keys, without an error in the console."""

import random
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from studio_fixtures import COARSE, SOFTWARE, LineDesk, chromium

from dexworld.models.reference import REFERENCE
from dexworld.studio.imagination import TrueScene
from dexworld.studio.imagine_session import Desks
from dexworld.studio.planner import Planner
from dexworld.studio.studio_server import StudioConfig, StudioServer

WAIT_MS = 90_000
CLICKS = 15


@pytest.fixture(scope="module")
def studio(imaginer):
    pytest.importorskip("viser", reason="the extra `studio` isn't installed")
    with ThreadPoolExecutor(1) as line:
        desks = Desks(*(LineDesk(made, line) for made in (imaginer, TrueScene(), Planner(REFERENCE))))
        with StudioServer(StudioConfig(port=0), desks=desks) as server:
            yield server
        line.submit(desks.scene.made.close).result()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed")
    if chromium() is None:
        pytest.skip("there is no Chromium on this machine")
    with playwright.sync_playwright() as started:
        yield (running := started.chromium.launch(executable_path=chromium(), args=[*SOFTWARE]))
        running.close()


@pytest.fixture
def opened(browser, studio):
    """Opens the page in a window; whatever its console says of errors fails the test."""
    errors, pages = [], []

    def visit(width, height, address=None):
        page = browser.new_page(viewport={"width": width, "height": height})
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        pages.append(page)
        page.set_default_timeout(WAIT_MS)
        page.goto(address or f"{studio.url}/?{COARSE}")
        page.get_by_role("button", name="left", exact=True).wait_for()
        return page

    yield visit
    for page in pages:
        page.close()
    assert not errors


def button(page, name):
    return page.get_by_role("button", name=name, exact=True)


def test_a_hand_is_moved_by_click_and_key_and_a_link_leads_back(opened, studio):
    page = opened(1280, 800)
    button(page, "left").click()
    page.get_by_text("Step 1 of 1").wait_for()
    page.mouse.click(300, 400)  # the scene has the keys
    page.keyboard.press("o")
    page.get_by_text("Step 2 of 2").wait_for()
    page.get_by_alt_text("What really happens").wait_for()
    button(page, "link").click()
    link = page.get_by_text("This link opens the page").get_attribute("href")
    other = opened(1280, 800, f"{link}&{COARSE}")
    other.get_by_text("Step 2 of 2").wait_for()
    button(page, "undo").click()
    page.get_by_text("Step 1 of 1").wait_for()
    other.get_by_text("Step 2 of 2").wait_for()  # visitors don't disturb each other
    button(other, "Plan").click()
    button(other, "step").click()
    other.get_by_text(re.compile("1 move: ")).wait_for()
    other.get_by_alt_text("The goal").wait_for()
    button(other, "Imagine").click()
    other.get_by_text("Step 2 of 2").wait_for()


def test_random_clicks_on_a_phone_end_in_no_error(opened, studio):
    page, chance = opened(390, 844), random.Random(0)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    names = ("left", "right", "up", "down", "forward", "back", "close", "open", "undo", "again")
    for _ in range(CLICKS):
        button(page, chance.choice(names)).click()
    button(page, "again").click()
    page.get_by_text(re.compile("Now: the kitchen")).wait_for()
    page.get_by_alt_text("Imagined").wait_for()
