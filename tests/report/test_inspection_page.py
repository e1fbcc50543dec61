"""The page of `dexworld inspect`, the terminal's tables, and the command itself."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from dexworld.cli.inspect import Inspect, show
from dexworld.cli.reader_options import reader_options
from dexworld.data.inspection import InspectConfig, account, inspect
from dexworld.data.recordings import EpisodeDataset, EpisodeWriter
from dexworld.report.inspection_page import size_text
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
def folder(tmp_path):
    """Four episodes: two good ones, one that jumps, one whose video is gone."""
    episodes = [hand_episode(number) for number in range(4)]
    jump = np.where(np.arange(10) < 5, 0.0, 2.0)[:, None, None]
    episodes[2] = episodes[2].with_columns(keypoints_world=episodes[2].keypoints_world + jump)
    dataset(tmp_path / "data", *episodes)
    (tmp_path / "data" / "episodes" / "0003.mp4").unlink()
    return tmp_path / "data"


def run(folder: Path, out: Path, **settings) -> str:
    """The page of the command."""
    Inspect(folder, out, config=InspectConfig(workers=1, **settings)).run()
    return (out / "report.html").read_text(encoding="utf-8")


def test_the_command_writes_page_figures_and_a_line_per_episode(folder, tmp_path, capsys):
    text = run(folder, tmp_path / "out", seed=5)
    assert "3 of 3 episodes read, 18 pictures decoded." in text
    assert text.index("Broken") < text.index("What looks wrong") < text.index("Contact sheet")
    named = ("left hand, tracking confidence", "pick &amp; place &lt;0&gt;", "Tracking errors or missing frames")
    for part in ("episodes/0003", "keypoints jump", "0002, frame 5", *named):
        assert part in text
    assert len(re.findall(r'src="data:image/jpeg', text)) == 3  # contact sheet
    assert not re.search(r'(?:src|href)="http', text)
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


def test_a_page_of_a_sample_says_how_many_of_how_many_and_the_seed(folder, tmp_path):
    text = run(folder, tmp_path / "out", episodes=2, seed=7, decode="none")
    assert "2 of 3 episodes read (a sample drawn with seed 7), 0 pictures decoded." in text
    assert "≈" in text
    assert "Contact sheet" not in text


def test_a_dataset_of_broken_files_has_a_page(folder, tmp_path):
    for path in (folder / "episodes").glob("*.mp4"):
        path.unlink()
    assert run(folder, tmp_path / "out").count("episodes/000") >= 4


def test_tables_show_each_dimension_of_actions_and_say_how_many_rows_are_left_out(tmp_path, capsys):
    episode = hand_episode(0).with_columns(action=np.linspace([-1.0, 0.0], [1.0, 0.002], 10))
    source = dataset(tmp_path / "robot", episode)
    text = run(source.folder, tmp_path / "out")
    assert "0 kinds of findings" in text
    assert "2 dimensions, 10 frames, episodes: 1<" in text
    assert re.search(r"<td>1</td>(<td class=\"numeric\">[^<]*</td>){5}<td class=\"numeric\">0.002</td>", text)
    figures = account(inspect(source, InspectConfig(workers=1)))
    broken = [{"episode": f"{number}", "stage": "labels", "reason": "[/red] [bold]x"} for number in range(22)]
    show(figures | {"broken": {"count": 22, "episodes": broken}}, seed=0)
    shown = capsys.readouterr().out
    assert shown.count("[/red] [bold]x") == 20  # text from the dataset is no markup
    assert "and 2 more: see results.json" in shown


def test_sizes_are_given_in_fitting_units():
    sizes = {12: "12 B", 5520: "5.52 kB", 481_000_000_000: "481 GB", 2_400_000_000_000: "2.4 TB"}
    assert [size_text(count) for count in sizes] == list(sizes.values())


def test_reader_options_come_as_settings_or_as_a_file(tmp_path):
    chosen = reader_options(("egodex.split=test", "egodex.tasks=a,b", "egodex.min-confidence=1"))
    assert (chosen.egodex.split, chosen.egodex.tasks, chosen.egodex.min_confidence) == ("test", ("a", "b"), 1.0)
    path = tmp_path / "options.json"
    path.write_text(json.dumps({"egodex": {"split": "train", "max_episodes": 3}}))
    chosen = reader_options((str(path), "egodex.split=extra"))
    assert (chosen.egodex.split, chosen.egodex.max_episodes) == ("extra", 3)
    assert reader_options(()) == reader_options(("egodex.split=null",))
    chosen = reader_options(("droid.hand.style=official", "droid.hand.closed-radii=[0.01,0.02,0.03,0.04]"))
    assert reader_options(("droid.intrinsics=60,60,64,36",)).droid.intrinsics == (60.0, 60.0, 64.0, 36.0)
    assert (chosen.droid.hand.style, chosen.droid.hand.closed_radii) == ("official", (0.01, 0.02, 0.03, 0.04))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("egodex.splits=test", r"reader.egodex has unknown fields splits; EgoDexOptions knows split, tasks"),
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
