"""The examples that add a robot, an environment, a planner and a reader from outside the package."""

import json
import runpy
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from dexworld import cli
from dexworld.data.readers import LAYOUTS
from dexworld.data.video import write_video
from dexworld.robots.description import read_description
from dexworld.robots.model_file import find_installed
from robot_fixtures import HAND_TOML, hand_mjcf

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.fixture
def example(monkeypatch):
    """`example(name)` runs the `main` of a script that lies beside the others."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return lambda name: runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]()


def test_a_robot_of_ones_own_reaches_a_pose_by_its_kinematics(example):
    assert example("my_robot") < 0.01


def test_an_environment_of_ones_own_is_played_by_the_policies(example):
    rates = example("my_environment")
    assert set(rates) == {"do_nothing", "random", "true_simulator"}
    assert rates["do_nothing"] < 0.5 < rates["true_simulator"]


def test_a_planner_of_ones_own_takes_the_place_of_cem(example):
    costs = example("my_planner")
    assert costs["cem"] < costs["staying"]
    assert costs["shooting"] < costs["staying"]


# What makes a command of the recipe small.
SMALL = {
    "collect": ("--episodes", "2", "--workers", "1"),
    "train": ("--preset", "debug", "--steps", "2", "--batch-size", "2", "--validation-windows", "2", "--device", "cpu"),
    "evaluate": ("--episodes", "1", "--workers", "1", "--samples", "8", "--elites", "2", "--iterations", "1"),
}


def test_the_recipe_takes_a_hand_from_its_model_to_a_plan(tmp_path, monkeypatch):
    recipe = EXAMPLES / "my_robot"
    hand = recipe / "g1_right.toml"
    if find_installed(read_description(hand).model) is None:  # another hand takes its place
        (tmp_path / "hand.xml").write_text(hand_mjcf())
        hand = tmp_path / "hand.toml"
        hand.write_text(f'model = "hand.xml"\n{HAND_TOML}')
    monkeypatch.chdir(tmp_path)
    text = (recipe / "README.md").read_text(encoding="utf-8").replace("\\\n", " ").replace("g1_right.toml", str(hand))
    commands = [shlex.split(line)[1:] for line in text.splitlines() if line.startswith("dexworld ")]
    assert [command[0] for command in commands] == ["robot", "collect", "collect", "train", "evaluate"]
    for command in commands:
        if command[0] == "collect":
            table = command.index("table")
            command[table:] = [*SMALL["collect"], *command[table:], "--frames", "8"]
        cli.main([*command, *(SMALL.get(command[0], ()) if command[0] != "collect" else ())])
    figures = json.loads(Path("outputs/g1-tasks/results.json").read_text())
    assert {figures[task]["random_n"] for task in ("reach", "push")} == {1}
    assert figures["reach"]["final_distance"] > 0


def test_an_example_stays_short():
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) < 100, path.name


def test_a_reader_of_ones_own_brings_its_column_into_windows(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(LAYOUTS, "mine", None)  # taken back after the test
    prepared_window = runpy.run_path(str(EXAMPLES / "my_reader.py"))["prepared_window"]
    folder = tmp_path / "recordings"
    folder.mkdir()
    for number in range(2):
        write_video(folder / f"{number}.mp4", np.full((9, 32, 48, 3), 60 * number, np.uint8), fps=5.0)
        np.savez(
            folder / f"{number}.npz",
            keypoints_world=np.ones((9, 42, 3)),
            keypoints_valid=np.ones((9, 42), bool),
            world_from_camera=np.tile(np.eye(4), (9, 1, 1)),
            intrinsics=np.eye(3),
            gaze_world=np.arange(27.0).reshape(9, 3) + 100 * number,
        )
    (folder / "2.npz").write_bytes(b"broken")
    window = prepared_window(folder, tmp_path / "store", "gaze_world")
    assert "2.npz" in capsys.readouterr().out
    frames = window.rows - 9 * window.clips[:, None]
    torch.testing.assert_close(window.track["gaze_world"][..., 0], 3.0 * frames + 100 * window.clips[:, None])
    torch.testing.assert_close(window.frames.float().mean(dim=(2, 3, 4)), 60.0 * window.clips[:, None].expand(2, 4))
