"""The page in a real browser: every view, wide and narrow, by clicks and by keys, without an error in the console."""

import base64
import io
import random
import re
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from data_fixtures import write_small_dataset
from PIL import Image
from studio_fixtures import COARSE, SOFTWARE, LineDesk, chromium

from dexworld.robots.kinematics import quaternion_matrix
from dexworld.studio.data_session import DataChoice
from dexworld.studio.dataset_reader import DatasetReader
from dexworld.studio.imagination import TrueScene
from dexworld.studio.imagine_session import MOTIONS, Desks
from dexworld.studio.start_frame import Start
from dexworld.studio.state_link import Place, packed
from dexworld.studio.studio_server import StudioConfig, StudioServer

WAIT_MS = 90_000
CLICKS = 6
DEEDS = ("undo", "again")


@pytest.fixture(scope="module")
def studio(imaginer, planner, painter):
    pytest.importorskip("viser", reason="the extra `studio` isn't installed")
    with ThreadPoolExecutor(1) as line:
        made = imaginer, TrueScene(), planner, DatasetReader(), painter
        desks = Desks(*(LineDesk(each, line) for each in made))
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
        button(page, "Imagine").wait_for()
        return page

    yield visit
    for page in pages:
        page.close()
    assert not errors


def button(page, name):
    return page.get_by_role("button", name=name, exact=True)


def link_of(page):
    button(page, "link").click()
    return f"{page.get_by_text('This link opens the page').get_attribute('href')}&{COARSE}"


def drag_arrow(page, visitor):
    """Drag the arrow that moves the hand along the world's y-axis, by the mouse; how far, in metres."""
    eye, gizmo = visitor.client.camera, visitor.view.drawing._nodes["gizmo"]
    box, ends = page.locator("canvas").last.bounding_box(), []
    for share in (0.8, 1.6):
        seen = gizmo.position + np.array([0.0, share * gizmo.scale, 0.0]) - eye.position
        across, down, ahead = np.asarray(quaternion_matrix(eye.wxyz)).T @ seen
        focal = box["height"] / 2 / np.tan(eye.fov / 2)
        middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        ends.append((middle[0] + focal * across / ahead, middle[1] + focal * down / ahead))
    page.mouse.move(*ends[0])
    page.mouse.down()
    page.mouse.move(*ends[1], steps=3)
    page.mouse.up()
    return 0.8 * gizmo.scale


def push_by_keys(page):
    """From the open page to a planned push of one's own that is carried out, by keys alone."""
    heard = {"m": "cm to go", "jc": "And where should it be", "jjjjc": "0 moves. Press", "x": "1 move"}
    for keys, said in heard.items():
        for key in keys:
            page.keyboard.press(key)
        page.get_by_text(re.compile(said)).wait_for()


def until(page, condition):
    """Wait until it holds."""
    ends = time.monotonic() + WAIT_MS / 1000
    while not condition():
        assert time.monotonic() < ends
        page.wait_for_timeout(50)


def contrast(page, name):
    """Of a picture in the page: grey ones, which are still to come, have none."""
    content = page.get_by_alt_text(name).get_attribute("src").split(",")[1]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))).std()


def test_two_visitors_wide_and_narrow_play_without_disturbing_each_other(opened, studio):
    wide = opened(1280, 800)
    wide.get_by_text(re.compile("Now: the kitchen")).wait_for()  # viser's console tells of updates to what goes at once
    push_by_keys(wide)
    wide.get_by_alt_text("Expected of the last move").wait_for()
    button(wide, "Imagine").click()
    button(wide, "left").click()
    wide.get_by_text("Step 1 of 1").wait_for()
    wide.mouse.click(300, 400)  # the scene has the keys
    wide.keyboard.press("o")
    wide.get_by_text("Step 2 of 2").wait_for()
    (visitor,) = studio._visitors.values()
    far = drag_arrow(wide, visitor)
    until(wide, lambda: visitor.session.control.offset[1] == pytest.approx(0.05 + far, abs=0.03))
    steps = f"Step {len(visitor.session.path)} of {len(visitor.session.path)}"
    wide.get_by_text(steps).wait_for()
    until(wide, lambda: contrast(wide, "What really happens") > 10)
    phone, chance = opened(390, 844, link_of(wide)), random.Random(0)
    phone.get_by_text(steps).wait_for()
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    for _ in range(CLICKS):
        button(phone, chance.choice(MOTIONS + DEEDS)).click()
    button(phone, "again").click()
    phone.get_by_text(re.compile("Now: the kitchen")).wait_for()
    assert contrast(phone, "Imagined") > 10

    wide.get_by_text(steps).wait_for()
    button(wide, "Plan").click()
    wide.get_by_text(re.compile("1 move")).wait_for()
    button(wide, "Imagine").click()
    wide.get_by_text(steps).wait_for()


def test_data_and_painted_hands_wide_and_on_a_phone_that_a_link_opens(opened, studio, tmp_path):
    write_small_dataset(tmp_path / "small")
    shared = packed(Place("Data", Start(), (), data=DataChoice(str(tmp_path / "small"), find="push")))
    wide = opened(1280, 800, f"{studio.url}/?websocket={studio.url.replace('http', 'ws')}/{shared}&{COARSE}")
    wide.get_by_text("Episode 0, e0: open the drawer. Frame 0 of 12").wait_for()
    wide.get_by_text("2 of 4 episodes match").wait_for()
    button(wide, "following").click()
    wide.get_by_text("Episode 1, e1: push the cup. Frame 0 of 12").wait_for()
    wide.mouse.click(300, 600)  # the scene has the keys
    wide.keyboard.press("l")
    wide.get_by_text("Episode 1, e1: push the cup. Frame 1 of 12").wait_for()
    wide.get_by_alt_text("Left and right hand over time").wait_for()

    button(wide, "DWM").click()
    wide.get_by_label("What really happens").wait_for()
    button(wide, "keep").click()
    (visitor,) = studio._visitors.values()
    place = visitor.painting.opened.cameras[-1][:3, 3]
    until(wide, lambda: np.allclose(visitor.client.camera.position, place, atol=0.01))
    wide.mouse.click(250, 500)
    wide.get_by_text("Way-point 1 of 1, the right hand.").wait_for()
    wide.keyboard.press("j")
    wide.keyboard.press("x")
    wide.get_by_text("The goal favours candidate 1.").wait_for()

    link, phone = link_of(wide), wide
    phone.set_viewport_size({"width": 390, "height": 844})
    phone.goto(link)
    phone.get_by_text("Way-point 1 of 1, the right hand.").wait_for()
    phone.get_by_label("Imagined").wait_for()
    button(phone, "Data").click()
    phone.get_by_text("Episode 1, e1: push the cup. Frame 1 of 12").wait_for()
    phone.get_by_alt_text("The film").wait_for()
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    button(phone, "Open this frame in Imagine").click()
    phone.get_by_text(re.compile("Drag the arrows at the wrist.* Now: ")).wait_for()
