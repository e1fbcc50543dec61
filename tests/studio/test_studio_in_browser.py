"""The page in a real browser: every view, wide and narrow, by clicks and by keys, without an error in the console."""

import random
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from studio_fixtures import COARSE, SOFTWARE, LineDesk, chromium

from dexworld.models.reference import REFERENCE
from dexworld.studio.imagination import TrueScene
from dexworld.studio.imagine_session import MOTIONS, Desks
from dexworld.studio.planner import Planner
from dexworld.studio.studio_server import StudioConfig, StudioServer

WAIT_MS = 90_000
CLICKS = 6
DEEDS = ("undo", "again")


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


def test_two_visitors_wide_and_narrow_play_without_disturbing_each_other(opened, studio):
    wide = opened(1280, 800)
    button(wide, "left").click()
    wide.get_by_text("Step 1 of 1").wait_for()
    wide.mouse.click(300, 400)  # the scene has the keys
    wide.keyboard.press("o")
    wide.get_by_text("Step 2 of 2").wait_for()
    wide.get_by_alt_text("What really happens").wait_for()
    button(wide, "link").click()
    link = wide.get_by_text("This link opens the page").get_attribute("href")

    phone, chance = opened(390, 844, f"{link}&{COARSE}"), random.Random(0)
    phone.get_by_text("Step 2 of 2").wait_for()
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    for _ in range(CLICKS):
        button(phone, chance.choice(MOTIONS + DEEDS)).click()
    button(phone, "again").click()
    phone.get_by_text(re.compile("Now: the kitchen")).wait_for()
    phone.get_by_alt_text("Imagined").wait_for()

    wide.get_by_text("Step 2 of 2").wait_for()
    button(wide, "Plan").click()
    button(wide, "step").click()
    wide.get_by_text(re.compile("1 move: ")).wait_for()
    wide.get_by_alt_text("The goal").wait_for()
    button(wide, "Imagine").click()
    wide.get_by_text("Step 2 of 2").wait_for()
