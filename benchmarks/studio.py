"""The studio in a real browser: when the page, the first imagined frame and later steps are there, and memory.

Needs the extra `studio`, playwright and a Chromium, which draws in software here. `--random-seconds` is the length of a
seeded session of clicks and new scenes; memory is that of the server and its workers, in its quarters.
"""

import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from common import parser, write_and_print

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
SOFTWARE = ("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
WAIT_MS = 120_000
MOTIONS = ("left", "right", "up", "down", "forward", "back", "close", "open")
OTHERS = ("undo", "again", "Another scene")


@contextmanager
def served(checkpoint):
    """The address of a `dexworld studio` and its process."""
    command = [sys.executable, "-c", "from dexworld.cli import main; main()", "studio", checkpoint, "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        lines = iter(process.stderr.readline, "")
        yield next(found[1] for line in lines if (found := re.search(r"open (http\S+)", line))), process
    finally:
        process.terminate()
        process.communicate()


def memory_mb(process):
    """Resident memory of a process and its children, megabytes. Linux only."""
    rows = subprocess.run(["ps", "-eo", "pid,ppid,rss"], capture_output=True, text=True, check=True).stdout.split("\n")[
        1:
    ]
    numbers = [tuple(map(int, row.split())) for row in rows if row.strip()]
    return sum(rss for pid, parent, rss in numbers if process.pid in (pid, parent)) / 1024


def steps(page, count):
    """Seconds from a click to the frame's line in the page, and what the model's part took, for so many steps."""
    seen, own = [], []
    for number in range(1, count + 1):
        began = time.perf_counter()
        page.get_by_role("button", name=MOTIONS[number % 6], exact=True).click()
        line = page.get_by_text(re.compile(rf"Step {number} of {number}, imagined in (\d+) ms"))
        line.wait_for()
        seen.append(time.perf_counter() - began)
        own.append(int(re.search(r"in (\d+) ms", line.inner_text())[1]) / 1000)
    return seen, own


def session(page, process, seconds, seed):
    """A random session: its clicks, and memory in its quarters."""
    chance, memory, clicks = random.Random(seed), [], 0
    began = time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds:
        name = chance.choice(MOTIONS if chance.random() < 0.9 else OTHERS)
        page.get_by_role("button", name=name, exact=True).click()
        clicks += 1
        page.wait_for_timeout(chance.uniform(50, 400))
        if spent > (len(memory) + 1) * seconds / 4:
            memory.append(memory_mb(process))
    return clicks, [*memory, memory_mb(process)][:4]


def p90(values):
    """The ninth decile."""
    return statistics.quantiles(values, n=10, method="inclusive")[-1] if len(values) > 1 else values[0]


def main():
    arguments = parser(__doc__, "outputs/bench/studio")
    arguments.add_argument("--checkpoint", default="reference")
    arguments.add_argument("--steps", type=int, default=20)
    arguments.add_argument("--random-seconds", type=float, default=60.0)
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    browser_path = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        browser_path = None
    if browser_path is None:
        print("the studio isn't measured: this machine has no Chromium, or no playwright")
        return
    errors = []
    with served(options.checkpoint) as (address, process), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=[*SOFTWARE])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(WAIT_MS)
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        began = time.perf_counter()
        page.goto(f"{address}/?fixedDpr=0.5")
        page.get_by_text(re.compile("Now: ")).wait_for()
        ready = time.perf_counter() - began
        seen, own = steps(page, options.steps)
        clicks, memory = session(page, process, options.random_seconds, options.seed)
        browser.close()
    results = {
        "page_ready_s": ready,
        "first_frame_s": seen[0],
        "step_p90_s": p90(seen[1:] or seen),
        "step_model_p90_s": p90(own[1:] or own),
        "random_clicks": clicks,
        "console_errors": len(errors),
        **{f"memory_mb_quarter_{number}": value for number, value in enumerate(memory, 1)},
        "steps": options.steps,
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[2],
    }
    write_and_print(Path(options.output), results)
    for error in errors[:5]:
        print(f"console: {error}")


if __name__ == "__main__":
    main()
