"""The page of `dexworld inspect`, the terminal's tables, and the command itself."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from dexworld.cli.inspect import Inspect, show
from dexworld.cli.reader_options import reader_options
from dexworld.data.datasets import open_dataset
from dexworld.data.inspection import InspectConfig, account, inspect
from dexworld.data.recordings import EpisodeDataset, EpisodeWriter
from dexworld.report.inspection_page import duration_text, heat_map, size_text, write_inspection_page
from dexworld.track import ArrayFrames, Track


def hand_episode(number: int, length: int = 10) -> Track:
    time = np.arange(length)
    keypoints = np.zeros((length, 42, 3))
    keypoints[..., 0] = 0.01 * time[:, None] + np.tile(np.linspace(-0.1, 0.1, 21), 2)
    keypoints[..., 2] = 1.0
    columns = {"keypoints_world": keypoints, "keypoints_valid": np.ones((length, 42), dtype=bool)}
    columns["keypoint_confidence"] = np.full((length, 42), 0.9, np.float32)
    frames = ArrayFrames(np.random.default_rng(number).integers(0, 256, (length, 48, 64, 3), dtype=np.uint8))
    intrinsics = np.array([[100.0, 0, 32], [0, 100, 24], [0, 0, 1]])
    task = f"pick & place <{number}>"
    return Track(np.tile(np.eye(4), (length, 1, 1)), intrinsics, columns, 10.0, frames, "test", task)


def dataset(folder: Path, *episodes: Track) -> EpisodeDataset:
    writer = EpisodeWriter(folder, {"made by": "tests"})
    for number, episode in enumerate(episodes):
        writer.write(f"{number:04d}", episode)
    return writer.finish()


@pytest.fixture
def page_of(tmp_path):
    """The page's source, of an inspection."""
    return lambda result: write_inspection_page(tmp_path / "page", result).read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    """Four episodes: two good ones, one that jumps, one whose video is gone."""
    episodes = [hand_episode(number) for number in range(4)]
    jump = np.where(np.arange(10) < 5, 0.0, 2.0)[:, None, None]
    episodes[2] = episodes[2].with_columns(keypoints_world=episodes[2].keypoints_world + jump)
    dataset(tmp_path / "data", *episodes)
    (tmp_path / "data" / "episodes" / "0003.mp4").unlink()
    return tmp_path / "data"


def test_the_page_shows_what_is_broken_what_looks_wrong_and_the_pictures(folder, page_of):
    text = page_of(inspect(open_dataset(folder), InspectConfig(workers=1)))
    assert "All 3 episodes" in text
    assert text.index("Broken") < text.index("What looks wrong") < text.index("Contact sheet")
    named = ("tracking confidence of a keypoint", "pick &amp; place &lt;0&gt;")
    for part in ("episodes/0003", "keypoints jump", "0002, frame 5", *named):
        assert part in text
    assert len(re.findall(r'src="data:image/jpeg', text)) == 3 + 2  # contact sheet and two maps
    assert not re.search(r'(?:src|href)="http', text)


def test_recorded_actions_have_a_row_for_each_dimension_and_no_section_without_them(tmp_path, page_of):
    episode = hand_episode(0).with_columns(action=np.linspace([-1.0, 0.0], [1.0, 0.002], 10))
    result = inspect(dataset(tmp_path / "robot", episode), InspectConfig(decode="none", workers=1))
    text = page_of(result)
    assert "Recorded actions" in text
    assert "2 dimensions, 10 frames of 1 episode<" in text
    assert re.search(r"<td>1</td>(<td class=\"numeric\">[^<]*</td>){5}<td class=\"numeric\">0.002</td>", text)
    result.figures.actions.clear()
    assert "Recorded actions" not in page_of(result)


def test_a_page_of_a_sample_says_how_many_of_how_many_and_the_seed(folder, page_of):
    text = page_of(inspect(open_dataset(folder), InspectConfig(episodes=2, seed=7, workers=1, decode="none")))
    assert "A sample of 2 of 3 episodes, drawn with seed 7; no picture was decoded." in text
    assert "≈" in text
    assert "Contact sheet" not in text


def test_a_dataset_of_broken_files_has_a_page(folder, page_of):
    for path in (folder / "episodes").glob("*.mp4"):
        path.unlink()
    assert page_of(inspect(open_dataset(folder))).count("episodes/000") >= 4


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


def test_a_dataset_without_defects_says_so_and_its_text_is_no_markup_in_the_terminal(tmp_path, page_of, capsys):
    result = inspect(dataset(tmp_path / "data", hand_episode(0)), InspectConfig(workers=1))
    text = page_of(result)
    assert "Every episode read could be opened." in text
    assert "No label or picture is outside its limits." in text
    figures = account(result)
    figures["broken"] = {"count": 1, "episodes": [{"episode": "a", "stage": "labels", "reason": "[/red] [bold]x"}]}
    show(result, figures)
    assert "[/red] [bold]x" in capsys.readouterr().out


def test_a_map_is_brightest_where_most_keypoints_are():
    counts = np.zeros((18, 32), int)
    counts[3, 5], counts[9, 9] = 100, 25
    picture = heat_map(counts, "left").sum(axis=-1)[::12, ::12]
    assert picture.shape == (18, 32)
    assert picture.argmax() == 3 * 32 + 5
    assert picture[0, 0] < picture[9, 9] < picture[3, 5]


def test_figures_are_told_in_fitting_units():
    assert [duration_text(hours) for hours in (None, 0.001, 0.5, 829.0)] == ["0 s", "3.6 s", "30 min", "829 h"]
    sizes = {12: "12 B", 5520: "5.52 kB", 481_000_000_000: "481 GB", 2_400_000_000_000: "2.4 TB"}
    assert [size_text(count) for count in sizes] == list(sizes.values())


def test_reader_options_come_as_settings_or_as_a_file(tmp_path):
    chosen = reader_options(("egodex.split=test", "lerobot.extras=a,b", "egodex.min-confidence=1"))
    assert (chosen.egodex.split, chosen.lerobot.extras, chosen.egodex.min_confidence) == ("test", ("a", "b"), 1.0)
    path = tmp_path / "options.json"
    path.write_text(json.dumps({"egodex": {"split": "train", "max_episodes": 3}}))
    chosen = reader_options((str(path), "egodex.split=extra"))
    assert (chosen.egodex.split, chosen.egodex.max_episodes) == ("extra", 3)
    assert reader_options(()) == reader_options(("egodex.split=null",))
    assert reader_options(("droid.intrinsics=60,60,64,36",)).droid.intrinsics == (60.0, 60.0, 64.0, 36.0)
    assert reader_options(("droid.hand.style=official",)).droid.hand.style == "official"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("egodex.splits=test", r"reader.egodex has unknown fields splits; EgoDexOptions knows split, min_confidence"),
        ("vhs.split=test", r"reader has unknown fields vhs; ReaderOptions knows egodex"),
        ("egodex.max_episodes=few", r"reader.egodex.max_episodes is 'few'; it must be int"),
        ("egodex.min_confidence=2", "lie between 0 and 1"),
        ("test", "LAYOUT.FIELD=VALUE"),
        ("droid.hand.style=fist", r"reader.droid.hand.style is 'fist'; choose 'gripper' or 'official'"),
        ("droid.camera.lens=left", r"reader.droid.camera is \{'lens': 'left'\}"),
    ],
)
def test_reader_options_that_do_not_exist_or_fit_are_named(setting, message):
    with pytest.raises(ValueError, match=message):
        reader_options((setting,))
