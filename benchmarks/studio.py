"""The studio in a real browser: when the page, the first imagined frame and later steps are there, and memory.

Needs the extra `studio`, playwright and a Chromium, which draws in software here. `--random-seconds` is the length of a
seeded session of clicks, keys and drags; memory is that of the server and its workers, in its quarters. `--against`
takes the same steps with another version of dexworld in the same run, by turns. `--golden` compares both views, wide
and narrow, with pictures kept in a folder, or keeps them.
"""

import base64
import io
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from common import parser, write_and_print
from dexworld.hands import RIGHT, WRIST
from dexworld.studio.hand_drawing import Camera
from dexworld.studio.start_frame import Start, open_start

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
SOFTWARE = ("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
WAIT_MS, CLICK_MS = 120_000, 20_000
MOTIONS = ("left", "right", "up", "down", "forward", "back", "close", "open")
OTHERS = ("undo", "again", "Another scene", "link")
PLANNING = ("plan", "stop", "step", "go", "link")
KEYS = {True: "jlikuoghzvnm", False: "jlikcfbxpvnm"}  # in Imagine, and in Plan
ROUNDS = 2  # by turns, when two versions are compared
SIZES = ((1280, 800), (390, 844))
NEAR = 24  # levels that a pixel of a screenshot may differ by
DRAG_PX = 70
IMAGE_SIZE = (224, 392)


@contextmanager
def served(checkpoint, source=None):
    """The address of a `dexworld studio` and its process. source: the folder `src` of another version."""
    command = [sys.executable, "-c", "from dexworld.cli import main; main()", "studio", checkpoint, "--port", "0"]
    surroundings = os.environ | ({"PYTHONPATH": source} if source else {})
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=surroundings)
    try:
        lines = iter(process.stderr.readline, "")
        yield next(found[1] for line in lines if (found := re.search(r"open (http\S+)", line))), process
    finally:
        process.terminate()
        process.communicate()


def opened(browser, address, errors, size=SIZES[0]):
    """A page that is ready, and the seconds until it was."""
    page = browser.new_page(viewport={"width": size[0], "height": size[1]})
    page.set_default_timeout(WAIT_MS)
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    began = time.perf_counter()
    page.goto(f"{address}/?fixedDpr=0.5")
    page.get_by_text(re.compile("Now: ")).wait_for()
    return page, time.perf_counter() - began


def memory_mb(process):
    """Resident memory of a process and its children, megabytes. Linux only."""
    rows = subprocess.run(["ps", "-eo", "pid,ppid,rss"], capture_output=True, text=True, check=True).stdout.split("\n")[
        1:
    ]
    numbers = [tuple(map(int, row.split())) for row in rows if row.strip()]
    return sum(rss for pid, parent, rss in numbers if process.pid in (pid, parent)) / 1024


def button(page, name):
    """The button with exactly this name."""
    return page.get_by_role("button", name=name, exact=True)


def steps(page, numbers):
    """Seconds from a click to the frame's line in the page, and what the model's part took, of so many steps."""
    seen, own = [], []
    for number in numbers:
        began = time.perf_counter()
        button(page, MOTIONS[number % 6]).click()
        line = page.get_by_text(re.compile(rf"Step {number} of {number}, imagined in (\d+) ms"))
        line.wait_for()
        seen.append(time.perf_counter() - began)
        own.append(int(re.search(r"in (\d+) ms", line.inner_text())[1]) / 1000)
    return seen, own


def push_by_keys(page):
    """Seconds from the open page to a planned push of one's own, carried out, by keys alone."""
    began = time.perf_counter()
    page.keyboard.press("m")
    page.get_by_text(re.compile("cm to go")).wait_for()
    for key in "jc":
        page.keyboard.press(key)
    page.get_by_text(re.compile("And where should it be")).wait_for()
    for key in "jjjjc":
        page.keyboard.press(key)
    page.get_by_text(re.compile("0 moves. Press")).wait_for()
    page.keyboard.press("x")
    page.get_by_text(re.compile("1 move")).wait_for()
    return time.perf_counter() - began


def arrows(page):
    """The pixel of the page at which the arrows begin that move the hand, before the first step."""
    start = open_start(Start(), IMAGE_SIZE)
    pose = start.episode.world_from_camera[0]
    camera, box = Camera(start.episode.intrinsics, IMAGE_SIZE, pose), page.locator("canvas").last.bounding_box()
    across, down, ahead = pose[:3, :3].T @ (start.pose.keypoints[RIGHT][WRIST] - pose[:3, 3])
    focal = box["height"] / 2 / np.tan(camera.fov(box["width"] / box["height"]) / 2)
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    return float(middle[0] + focal * across / ahead), float(middle[1] + focal * down / ahead)


def drag(page, start, end):
    """Drag from a pixel to another."""
    page.mouse.move(*start)
    page.mouse.down()
    for share in (0.25, 0.5, 0.75, 1.0):
        page.mouse.move(*(a + share * (b - a) for a, b in zip(start, end, strict=True)))
        page.wait_for_timeout(30)
    page.mouse.up()


def session(page, process, seconds, seed, results):
    """A random session: notes how often it did what, and memory in its quarters."""
    from playwright.sync_api import TimeoutError as Gone

    chance, quarters, centre = random.Random(seed), 0, arrows(page)
    kinds = ("clicks", "clicks_on_what_was_gone", "keys", "drags")
    results |= {f"random_{kind}": 0 for kind in kinds}
    began = time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds:
        imagine, kind = button(page, "left").count() > 0, chance.random()
        if kind < 0.6:
            names, done = (MOTIONS if chance.random() < 0.9 else OTHERS) if imagine else PLANNING, "clicks"
            try:
                button(page, chance.choice(names)).first.click(timeout=CLICK_MS)
            except Gone:  # the view was changed by a key just now
                done = "clicks_on_what_was_gone"
        elif kind < 0.8:
            page.keyboard.press(chance.choice(KEYS[imagine]))
            done = "keys"
        else:
            start, end = ([each + chance.uniform(-DRAG_PX, DRAG_PX) for each in centre] for _ in range(2))
            drag(page, start, end)
            done = "drags"
        results[f"random_{done}"] += 1
        page.wait_for_timeout(chance.uniform(50, 400))
        if spent > (quarters + 1) * seconds / 4:
            quarters += 1
            results[f"memory_mb_quarter_{quarters}"] = memory_mb(process)
    results["random_seconds"], results["memory_mb_quarter_4"] = spent, memory_mb(process)


def golden(browser, address, errors, folder):
    """By view and width: the share of the screenshot's pixels that differ from the kept one, and the largest mean
    difference of a picture in it, in levels. What isn't kept yet is kept."""
    found = {}
    for size in SIZES:
        page, _ = opened(browser, address, errors, size)
        button(page, "left").click()
        page.get_by_text(re.compile("Step 1 of 1")).wait_for()
        for view, ready in (("Imagine", "Step 1 of 1"), ("Plan", "cm to go")):
            button(page, view).click()
            page.get_by_text(re.compile(ready)).wait_for()
            while min(float(decoded(content).std()) for content in pictures(page)) < 1.0:
                page.wait_for_timeout(500)  # grey is still to come
            page.wait_for_timeout(3000)  # the last drawing
            name = f"{view.lower()}_{size[0]}"
            found[f"golden_{name}"] = compared(folder / f"{name}.png", page.screenshot(), share_of_pixels)
            levels = []
            for place, content in enumerate(pictures(page)):
                levels.append(compared(folder / f"{name}_{place}.jpg", content, mean_levels))
            found[f"golden_{name}_pictures"] = max(levels)
        page.close()
    return found


def pictures(page):
    """The contents of the JPEG files in the page."""
    sources = page.locator("img[src^='data:image/jpeg']").evaluate_all("all => all.map(one => one.src)")
    return [base64.b64decode(source.split(",")[1]) for source in sources]


def decoded(content):
    """A picture file's pixels (H, W, 3)."""
    return np.asarray(Image.open(io.BytesIO(content)), float)[..., :3]


def compared(path, content, difference):
    """The difference between a kept picture and this one; 0.0 where it is kept just now."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    kept, seen = decoded(path.read_bytes()), decoded(content)
    return difference(kept, seen) if kept.shape == seen.shape else float("inf")


def share_of_pixels(kept, seen):
    """Of pixels that differ visibly."""
    return float((np.abs(kept - seen).max(axis=-1) > NEAR).mean())


def mean_levels(kept, seen):
    """Of all pixels."""
    return float(np.abs(kept - seen).mean())


def p90(values):
    """The ninth decile."""
    return statistics.quantiles(values, n=10, method="inclusive")[-1] if len(values) > 1 else values[0]


def main():
    arguments = parser(__doc__, "outputs/bench/studio")
    arguments.add_argument("--checkpoint", default="reference")
    arguments.add_argument("--steps", type=int, default=20)
    arguments.add_argument("--random-seconds", type=float, default=60.0)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--against", type=Path, help="folder `src` of another version, to take the same steps with")
    arguments.add_argument("--golden", type=Path, help="folder of pictures to compare the views with")
    options = arguments.parse_args()
    browser_path = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        browser_path = None
    if browser_path is None:
        print("the studio isn't measured: this machine has no Chromium, or no playwright")
        return
    errors, results = [], {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=[*SOFTWARE])
        try:
            measure(options, browser, errors, results)
        finally:  # what was measured is kept
            results |= {"console_errors": len(errors), "steps": options.steps, "cores": os.cpu_count()}
            write_and_print(Path(options.output), results | {"load": os.getloadavg()[2]})
            for error in errors[:5]:
                print(f"console: {error}")
            browser.close()


def measure(options, browser, errors, results):
    """All of it, into `results`."""
    with ExitStack() as stack:
        address, process = stack.enter_context(served(options.checkpoint))
        page, results["page_ready_s"] = opened(browser, address, errors)
        turns = [(page, [], [])]
        if options.against:
            other, _ = stack.enter_context(served(options.checkpoint, str(options.against.resolve())))
            turns.append((opened(browser, other, [])[0], [], []))
        for numbers in np.array_split(range(1, options.steps + 1), ROUNDS if options.against else 1):
            for each, seen, own in turns:
                for values, found in zip((seen, own), steps(each, [int(number) for number in numbers]), strict=True):
                    values += found
        (_, seen, own), *others = turns
        results |= {"first_frame_s": seen[0], "step_median_s": statistics.median(seen[1:] or seen)}
        results |= {"step_p90_s": p90(seen[1:] or seen), "step_model_p90_s": p90(own[1:] or own)}
        for each, before, _ in others:
            each.close()
            results["step_median_ratio"] = results["step_median_s"] / statistics.median(before[1:] or before)
            results["step_p90_ratio"] = results["step_p90_s"] / p90(before[1:] or before)
        if options.golden:
            results |= golden(browser, address, errors, options.golden)
        by_keys, _ = opened(browser, address, errors)
        results["push_by_keys_s"] = push_by_keys(by_keys)
        by_keys.close()
        session(page, process, options.random_seconds, options.seed, results)


if __name__ == "__main__":
    main()
