"""The examples that add a robot, an environment and a planner from outside the package."""

import runpy
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("name", ["my_robot", "my_environment", "my_planner"])
def test_an_example_stays_short(name):
    assert len((EXAMPLES / f"{name}.py").read_text(encoding="utf-8").splitlines()) < 100
