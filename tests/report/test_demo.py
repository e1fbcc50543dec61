import re
from dataclasses import replace

import numpy as np
import pytest

from dexworld.report.demo import Clicked, DemoResults, PlanRecord, write_demo_report


def measured() -> dict:
    """What `evaluation.json` of a checkpoint holds."""
    figures = {"mse_ratio_1s": 0.321, "mse_ratio_1s_low": 0.298, "mse_ratio_1s_high": 0.345}
    figures |= {"object_mse_ratio_1s": None, "episodes": 123}
    rates = {"success": 0.9, "low": 0.82, "high": 0.95, "n": 100, "seconds_per_plan": 9.5}
    return {"tasks": {"reach": rates | {"random": 0.05, "expert": None}}, "open_loop": figures}


@pytest.fixture
def page_of(tmp_path):
    """A demonstration's page of some episodes."""
    return lambda *episodes, **fields: write_demo_report(tmp_path / "demo", DemoResults(episodes, **fields))


def test_a_page_is_complete_and_loads_nothing_from_outside(page_of, make_episode, text_of):
    facts = {"timings": {"planning": 100.0, "pictures": 30.0}, "checkpoint": {"Parameters": "3.1 M"}}
    facts |= {"versions": {"torch": "2.13.0"}, "command": "dexworld demo --seed 1", "renderer": "EGL"}
    failed = make_episode("push", 1_000_001, success=False)
    path = page_of(make_episode(), failed, measured=measured(), **facts)
    page, text = path.read_text(encoding="utf-8"), text_of(path)
    assert all(address.startswith("data:") for address in re.findall(r'(?:src|href|poster)="([^"]{0,30})', page))
    assert "http" not in re.sub(r"base64,[^\"]*", "", page)
    rates = ("90 %", "82 to 95 %", "Random motion")
    for part in (*rates, "1 of 2", "0.321", "0.298 to 0.345", "123", "2 min 10 s", "3.1 M", "2.13.0", "EGL"):
        assert part in text
    assert "Scripted expert" not in text  # it has no figure


def test_failures_are_shown_as_failures(page_of, make_episode, text_of):
    text = text_of(page_of(make_episode(success=False), make_episode(seed=1_000_001)))
    assert text.count("Not solved") == 1
    assert "1 of 2 episodes solved" in text
    assert "Hand to goal pose 40.0 cm 30.0 cm below 15.0 cm" in text
    assert text.count("missed") == 1


def test_a_page_of_clicks_shows_them_and_says_which_pixel_is_under_the_pointer(page_of, make_episode, text_of):
    pixels, wanted = np.array([[20.0, 10.0]]), np.array([[40.0, 30.0]])
    path = page_of(replace(make_episode("push"), clicked=Clicked(pixels, wanted, (28.0, 5.0))))
    text, page = text_of(path), path.read_text(encoding="utf-8")
    for part in ("Dots to their crosses, as the model sees them 28 px 5 px", "Goal of points", "Pixel under the"):
        assert part in text
    assert "Solved" not in text
    assert "episodes solved" not in text
    assert "data-pixels" in page
    assert "pointermove" in page


def test_imagined_pictures_stand_beside_what_happened(page_of, make_episode):
    page = page_of(make_episode()).read_text()
    for step in (1, 2):
        assert f'alt="imagined, step {step}"' in page
        assert f'alt="happened, step {step}"' in page


def test_a_plan_that_cannot_be_decoded_shows_no_pictures(page_of, make_episode, moving_disc):
    page = page_of(make_episode(plans=(PlanRecord(None, moving_disc[0], 1.0),))).read_text()
    assert "imagined, step" not in page
    assert "1 plan, 1.0 s each" in page


def test_text_from_outside_is_escaped_and_what_was_not_measured_left_out(page_of, make_episode):
    page = page_of(make_episode(), notices=("a < b", "<script>alert(1)</script>")).read_text()
    assert "a &lt; b" in page
    for part in ("<script>", "How often it works", "How good the imagination is"):
        assert part not in page
