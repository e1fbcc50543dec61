"""The page of `dexworld inspect`, the terminal's tables, and the command itself."""

import json
import re

import numpy as np
import pytest

from dexworld.cli.inspect import Inspect, show
from dexworld.cli.reader_options import reader_options
from dexworld.data.datasets import open_dataset
from dexworld.data.inspection import InspectConfig, inspect
from dexworld.data.inspection_account import account
from dexworld.data.recordings import EpisodeWriter
from dexworld.data.statistics import linear, logarithmic
from dexworld.report.histogram import Distribution, histogram_plot
from dexworld.report.inspection import duration_text, heat_map, inspection_page, percent_text, size_text
from dexworld.report.plots import BOTTOM, HEIGHT
from dexworld.track import ArrayFrames, Track


def hand_episode(number: int, length: int = 10) -> Track:
    time = np.arange(length)
    keypoints = np.zeros((length, 42, 3))
    keypoints[..., 0] = 0.01 * time[:, None] + np.tile(np.linspace(-0.1, 0.1, 21), 2)
    keypoints[..., 2] = 1.0
    return Track(
        frames=ArrayFrames(np.random.default_rng(number).integers(0, 256, (length, 48, 64, 3), dtype=np.uint8)),
        fps=10.0,
        world_from_camera=np.tile(np.eye(4), (length, 1, 1)),
        intrinsics=np.array([[100.0, 0, 32], [0, 100, 24], [0, 0, 1]]),
        source="test",
        task=f"pick & place <{number}>",
        columns={
            "keypoints_world": keypoints,
            "keypoints_valid": np.ones((length, 42), dtype=bool),
            "keypoint_confidence": np.full((length, 42), 0.9, np.float32),
        },
    )


@pytest.fixture
def folder(tmp_path):
    """Four episodes: two good ones, one that jumps, one whose video is gone."""
    writer = EpisodeWriter(tmp_path / "data", {"made by": "tests"})
    for number in range(4):
        episode = hand_episode(number)
        if number == 2:
            points = episode.keypoints_world.copy()
            points[5:] += 2.0
            episode = episode.with_columns(keypoints_world=points)
        writer.write(f"{number:04d}", episode)
    (tmp_path / "data" / "episodes" / "0003.mp4").unlink()
    return tmp_path / "data"


def test_the_page_shows_what_is_broken_what_looks_wrong_and_the_pictures(folder):
    text = inspection_page(inspect(open_dataset(folder), InspectConfig(workers=1)))
    assert "All 3 episodes" in text
    assert text.index("Broken") < text.index("What looks wrong") < text.index("Contact sheet")
    assert "episodes/0003" in text
    assert "keypoints jump" in text
    assert "0002, frame 5" in text
    assert "tracking confidence of a keypoint" in text
    assert "pick &amp; place &lt;0&gt;" in text
    assert len(re.findall(r'src="data:image/jpeg', text)) == 3 + 2  # contact sheet and two maps
    assert not re.search(r'(?:src|href)="http', text)


def test_recorded_actions_have_a_row_for_each_dimension_and_no_section_without_them(tmp_path):
    writer = EpisodeWriter(tmp_path / "robot", {"made by": "tests"})
    action = np.linspace([-1.0, 0.0], [1.0, 0.002], 10)
    writer.write("0", hand_episode(0).with_columns(action=action))
    result = inspect(writer.finish(), InspectConfig(decode="none", workers=1))
    text = inspection_page(result)
    assert "Recorded actions" in text
    assert "2 dimensions, 10 frames of 1 episode<" in text
    assert re.search(r"<td>1</td>(<td class=\"numeric\">[^<]*</td>){5}<td class=\"numeric\">0.002</td>", text)
    result.figures.actions.clear()
    assert "Recorded actions" not in inspection_page(result)


def test_a_dataset_without_defects_says_so(tmp_path):
    writer = EpisodeWriter(tmp_path / "data", {})
    writer.write("0000", hand_episode(0))
    text = inspection_page(inspect(writer.finish(), InspectConfig(workers=1)))
    assert "Every episode read could be opened." in text
    assert "No label or picture is outside its limits." in text


def test_a_page_of_a_sample_says_how_many_of_how_many_and_the_seed(folder):
    text = inspection_page(inspect(open_dataset(folder), InspectConfig(episodes=2, seed=7, workers=1, decode="none")))
    assert "A sample of 2 of 3 episodes, drawn with seed 7; no picture was decoded." in text
    assert "≈" in text
    assert "Contact sheet" not in text


def test_a_dataset_of_broken_files_has_a_page(folder):
    for path in (folder / "episodes").glob("*.mp4"):
        path.unlink()
    text = inspection_page(inspect(open_dataset(folder)))
    assert text.count("episodes/000") >= 4


def test_the_command_writes_page_figures_and_a_line_per_episode(folder, tmp_path, capsys):
    Inspect(folder, tmp_path / "out", config=InspectConfig(workers=1, seed=5)).run()
    shown = capsys.readouterr().out
    assert "keypoints jump" in shown
    assert "episodes/0003" in shown
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (content["kind"], content["episodes"], content["readable"], content["run"]["seed"]) == ("episodes", 3, 3, 5)
    assert content["findings"][0]["kind"] == "keypoint-jump"
    assert content["broken"]["episodes"][0]["stage"] == "opening"
    lines = [json.loads(line) for line in (tmp_path / "out" / "episodes.jsonl").read_text().splitlines()]
    assert [line["episode"] for line in lines] == ["0000", "0001", "0002"]
    assert lines[2]["findings"][0]["frame"] == 5
    assert (tmp_path / "out" / "report.html").read_text().startswith("<!doctype html>")


def test_text_of_a_dataset_is_no_markup_in_the_terminal(tmp_path, capsys):
    writer = EpisodeWriter(tmp_path / "data", {})
    writer.write("0000", hand_episode(0))
    result = inspect(writer.finish(), InspectConfig(workers=1))
    figures = account(result)
    figures["broken"] = {"count": 1, "episodes": [{"episode": "a", "stage": "labels", "reason": "[/red] [bold]x"}]}
    show(result, figures)
    assert "[/red] [bold]x" in capsys.readouterr().out


def test_a_distribution_is_drawn_in_percent_between_its_bins():
    histogram = linear(0.0, 4.0, 4)
    histogram.add(np.array([0.5, 1.5, 1.5, 9.0]))
    text = histogram_plot([Distribution("one", histogram)], "metres")
    (points,) = re.findall(r'<polyline[^>]*points="([^"]*)"', text)
    heights = [HEIGHT - BOTTOM - float(point.split(",")[1]) for point in points.split()]
    assert heights[1] * 2 == pytest.approx(heights[3], abs=0.2)  # 25 and 50 percent
    assert "one: 25 % above 4." in text
    with pytest.raises(ValueError, match="nothing to draw"):
        histogram_plot([Distribution("none", linear(0, 1, 2))], "metres")
    other = linear(0.0, 4.0, 8)
    other.add(np.ones(1))
    with pytest.raises(ValueError, match="different bins"):
        histogram_plot([Distribution("one", histogram), Distribution("two", other)], "metres")


def test_a_logarithmic_axis_has_powers_of_ten():
    histogram = logarithmic(1e-3, 1e3, 4)
    histogram.add(np.geomspace(2e-3, 5e2, 200))
    text = histogram_plot([Distribution("one", histogram)], "m/s", log=True)
    assert all(f">{tick}<" in text for tick in ("0.01", "0.1", "1", "10", "100"))


def test_a_map_is_brightest_where_most_keypoints_are():
    counts = np.zeros((18, 32), int)
    counts[3, 5], counts[9, 9] = 100, 25
    picture = heat_map(counts, "left").sum(axis=-1)[::12, ::12]
    assert picture.shape == (18, 32)
    assert picture.argmax() == 3 * 32 + 5
    assert picture[0, 0] < picture[9, 9] < picture[3, 5]


def test_figures_are_told_in_fitting_units():
    assert [duration_text(hours) for hours in (None, 0.001, 0.5, 829.0)] == ["0 s", "3.6 s", "30 min", "829 h"]
    assert [size_text(count) for count in (12, 5520, 481_000_000_000, 2_400_000_000_000)] == [
        "12 B",
        "5.52 kB",
        "481 GB",
        "2.4 TB",
    ]
    assert [percent_text(share) for share in (0.001, 0.5, 0.999, 1.0)] == ["0.1 %", "50 %", "> 99 %", "100 %"]


def test_reader_options_come_as_settings_or_as_a_file(tmp_path):
    chosen = reader_options(("egodex.split=test", "egodex.tasks=a,b", "egodex.min-confidence=1"))
    assert (chosen.egodex.split, chosen.egodex.tasks, chosen.egodex.min_confidence) == ("test", ("a", "b"), 1.0)
    path = tmp_path / "options.json"
    path.write_text(json.dumps({"egodex": {"split": "train", "max_episodes": 3}}))
    chosen = reader_options((str(path), "egodex.split=extra"))
    assert (chosen.egodex.split, chosen.egodex.max_episodes) == ("extra", 3)
    assert reader_options(()) == reader_options(("egodex.split=null",))
    chosen = reader_options(("droid.hand.style=official", "droid.hand.closed-radii=[0.01,0.02,0.03,0.04]"))
    assert (chosen.droid.hand.style, chosen.droid.hand.closed_radii) == ("official", (0.01, 0.02, 0.03, 0.04))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("egodex.splits=test", r"reader.egodex.splits doesn't exist; reader.egodex has split, tasks"),
        ("vhs.split=test", r"reader.vhs doesn't exist; reader has egodex"),
        ("egodex.max_episodes=few", r"reader.egodex.max_episodes is 'few'; it must be int"),
        ("egodex.min_confidence=2", "lie between 0 and 1"),
        ("test", "LAYOUT.FIELD=VALUE"),
        ("droid.hand.style=fist", r"reader.droid.hand.style is 'fist'; it must be one of gripper, official"),
        ("droid.camera.lens=left", r"reader.droid.camera is \{'lens': 'left'\}"),
    ],
)
def test_reader_options_that_do_not_exist_or_fit_are_named(setting, message):
    with pytest.raises(ValueError, match=message):
        reader_options((setting,))
