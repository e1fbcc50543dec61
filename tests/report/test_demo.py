import re
from html.parser import HTMLParser

import numpy as np
import pytest

from dexworld.report.demo import demo_page, duration, write_demo_report
from dexworld.report.demo_results import DemoResults, Distance, SuccessRow

VOID = {"meta", "img", "source", "br"}


class Balance(HTMLParser):
    """Checks that every element is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def visible_text(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", page, flags=re.S)))


def open_loop_figures() -> dict:
    seconds = [0.2 * step for step in range(1, 21)]
    curves: dict = {"seconds": seconds}
    for key, value in (
        ("mse_ratio", 0.3), ("shuffled_mse_ratio", 1.1), ("pck20_visible", 90.0), ("copy_last_pck20_visible", 20.0)
    ):  # fmt: skip
        curves |= {key: [value] * 20, f"{key}_low": [value * 0.9] * 20, f"{key}_high": [value * 1.1] * 20}
    figures = {
        "mse_ratio_1s": 0.321,
        "mse_ratio_1s_low": 0.298,
        "mse_ratio_1s_high": 0.345,
        "object_mse_ratio_1s": None,
    }
    return figures | {"episodes": 123, "curves": curves}


def test_a_page_is_complete_balanced_and_loads_nothing_from_outside(tmp_path, make_episode):
    results = DemoResults(
        episodes=(make_episode(), make_episode("push", 1_000_001, success=False)),
        success=(SuccessRow("reach", 0.9, 0.82, 0.95, 100, {"random": 0.05}, 9.5),),
        open_loop=open_loop_figures(),
        timings={"planning": 100.0, "pictures": 30.0},
        checkpoint={"Parameters": "3.1 M"},
        versions={"torch": "2.13.0"},
        command="dexworld demo --seed 1",
        renderer="EGL",
    )
    path = write_demo_report(tmp_path / "demo", results)
    page = path.read_text(encoding="utf-8")
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert all(address.startswith("data:") for address in re.findall(r'(?:src|href|poster)="([^"]{0,30})', page))
    assert "http" not in re.sub(r"base64,[^\"]*", "", page)
    text = visible_text(page)
    for part in (
        "1 of 2",
        "90 %",
        "82 to 95 %",
        "0.321",
        "0.298 to 0.345",
        "123",
        "2 min 10 s",
        "3.1 M",
        "2.13.0",
        "EGL",
    ):
        assert part in text


def test_failures_are_shown_as_failures(make_episode):
    page = demo_page(DemoResults((make_episode(success=False), make_episode(seed=1_000_001))))
    text = visible_text(page)
    assert text.count("Not solved") == 1
    assert "1 of 2 episodes solved" in text
    assert "30.0 cm" in text
    assert text.count("missed") == 1


def test_imagined_pictures_stand_beside_what_happened(make_episode):
    page = demo_page(DemoResults((make_episode(),)))
    for step in (1, 2):
        assert f'alt="imagined, step {step}"' in page
        assert f'alt="what happened, step {step}"' in page
    assert 'alt="imagined, after 3 s"' in page  # the first plan looks three steps ahead
    assert page.count("<polyline") == 4  # best and elites of two plans


def test_a_plan_that_cannot_be_decoded_shows_its_search_and_no_pictures(make_episode, moving_disc):
    from dexworld.report.demo_results import PlanRecord

    plan = PlanRecord(None, moving_disc[:1], [2.0, 1.0], [2.5, 1.5], 1.0)
    page = demo_page(DemoResults((make_episode(plans=(plan,)),)))
    assert "imagined, step" not in page
    assert page.count("<polyline") == 2


def test_text_from_outside_is_escaped(make_episode):
    page = demo_page(DemoResults((make_episode(note="<script>alert(1)</script>"),), notices=("a < b",)))
    assert "<script>" not in page
    assert "a &lt; b" in page


def test_parts_that_were_not_measured_are_left_out(make_episode):
    text = visible_text(demo_page(DemoResults((make_episode(),))))
    assert "How often it works" not in text
    assert "How good the imagination is" not in text


def test_success_rows_come_from_results_json():
    row = SuccessRow.from_results(
        "grasp",
        {"success": 0.7, "low": 0.6, "high": 0.78, "n": 100, "random": 0.0, "expert": None, "seconds_per_plan": 9.0},
    )
    assert row.controls == {"random": 0.0}
    assert (row.success, row.n, row.seconds_per_plan) == (0.7, 100, 9.0)


def test_measures_are_told_in_units_that_people_use():
    assert Distance("d", 0, 0, 0).shown(0.123) == "12.3 cm"
    assert Distance("d", 0, 0, 0, "rad").shown(np.pi / 2) == "90°"
    assert Distance("d", 0, 0, 0, "N").shown(2.0) == "2 N"


def test_durations_are_told_in_minutes_from_ninety_seconds_on():
    assert [duration(value) for value in (4.25, 65.2, 366.4)] == ["4.2 s", "65 s", "6 min 6 s"]


def test_wrong_pictures_are_refused_by_name(make_episode):
    with pytest.raises(ValueError, match="reach 1000000: goal_image"):
        make_episode(goal_image=np.zeros((4, 4)))
    with pytest.raises(ValueError, match="goal keypoints"):
        make_episode(goal_keypoints=np.zeros((42, 2)))
    with pytest.raises(ValueError, match="nothing to show"):
        DemoResults(())
