"""Meshes on the kitchen's robot: another look, the same physics."""

import json
from dataclasses import replace

import mujoco
import numpy as np
import pytest

from dexworld.data.datasets import open_dataset
from dexworld.robots.franka_allegro import ARM_JOINTS, FLANGE, HAND_ON_FLANGE, JOINTS
from dexworld.robots.robot_meshes import RobotLook
from dexworld.robots.task_suite import task_suite
from dexworld.sim.collect_scenes import SceneRange, collect
from dexworld.sim.kitchen.explore import ExploreConfig, record_exploration
from dexworld.sim.kitchen.kitchen_env import KitchenEnv
from dexworld.sim.kitchen.kitchen_simulation import Simulation
from dexworld.sim.kitchen.worn_meshes import check_look

SEED = 900_003
OBJ = "v 0 0 0\nv 0.09 0 0\nv 0 0.09 0\nv 0 0 0.09\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"
LINK = '<geom type="mesh" mesh="tiny" contype="0" conaffinity="0" rgba="0.9 0.1 0.7 1"/><geom size="0.02"/>'


def body(number: int, inside: str, moved=(0.0, 0.0, 0.0)) -> str:
    """A link of the reference robot as MJCF."""
    joint = JOINTS[number]
    place = " ".join(map(str, np.add(joint.origin, moved)))
    turn, axis, limits = (" ".join(map(str, each)) for each in (joint.quaternion, joint.axis, joint.limits))
    hinge = f'<joint name="j{number}" axis="{axis}" range="{limits}" limited="true"/>'
    return f'<body name="b{number}" pos="{place}" quat="{turn}">{hinge}{LINK}{inside}</body>'


def mjcf(aside: float = 0.0) -> str:
    """The reference robot with a tetrahedron on every link, its base turned; `aside`: metres that joint 9 is off."""
    inside = ""
    for first in range(ARM_JOINTS, len(JOINTS), 4):
        finger = ""
        for number in reversed(range(first, first + 4)):
            moved = np.add(FLANGE, HAND_ON_FLANGE) if number == first else np.array([aside * (number == 9), 0, 0])
            finger = body(number, finger, moved)
        inside += finger
    for number in reversed(range(ARM_JOINTS)):
        inside = body(number, inside)
    base = f'<body name="base" pos="1 2 3" quat="0.6 0 0 0.8">{LINK}{inside}</body>'
    mesh = '<asset><mesh name="tiny" file="tiny.obj"/></asset>'
    return f'<mujoco><compiler angle="radian"/>{mesh}<worldbody>{base}</worldbody></mujoco>'


@pytest.fixture(scope="module")
def clothes(tmp_path_factory):
    """A folder with the robot's file, its mesh and its description; and the description's path."""
    folder = tmp_path_factory.mktemp("clothes")
    (folder / "tiny.obj").write_text(OBJ)
    (folder / "robot.xml").write_text(mjcf())
    names = [f"j{number}" for number in range(len(JOINTS))]
    fingers = "\n".join(
        f"{finger} = {[f'b{first + joint}' for joint in range(4)]}"
        for finger, first in (("index", 7), ("middle", 11), ("ring", 15), ("thumb", 19))
    )
    text = f'name = "tiny"\nmodel = "robot.xml"\nbase = "base"\narm = {names[:7]}\nfingers = {names[7:]}\n'
    (folder / "robot.toml").write_text(f'{text}[right]\nwrist = "b6"\n{fingers}\nlittle = "ring"\n'.replace("'", '"'))
    return folder / "robot.toml"


def test_meshes_change_the_picture_and_not_a_bit_of_the_physics(clothes):
    config = ExploreConfig(frames=4, weights=(0.0, 0.0, 1.0, 0.0))
    plain, worn = (
        record_exploration(SEED, config=replace(config, look=look)) for look in (RobotLook(), RobotLook(str(clothes)))
    )
    for name, column in plain.columns.items():
        np.testing.assert_array_equal(worn.columns[name], column)
    assert (worn.frames.read([3]) != plain.frames.read([3])).any()
    assert worn.source == f"{plain.source}, meshes {clothes}"


def test_a_state_of_the_plain_robot_goes_on_in_meshes_that_stand_where_its_links_are(simulation, clothes):
    state, targets = simulation.get_state(), simulation.joint_targets + 0.2
    simulation.move(targets, 0.5)
    with Simulation(replace(simulation.layout, meshes=str(clothes))) as worn:
        worn.set_state(state)
        worn.move(targets, 0.5)
        np.testing.assert_array_equal(worn.get_state().physics, simulation.get_state().physics)
        model, data = worn.model, worn.data
    drawn = np.flatnonzero((model.geom_group == 2) & (model.geom_type == mujoco.mjtGeom.mjGEOM_MESH))
    assert len(drawn) == 1 + len(JOINTS)
    for number, name in ((1, "arm_link1"), (7, "arm_link7"), (23, "hand_joint_15")):
        vertices = model.mesh_vert[model.mesh_vertadr[model.geom_dataid[drawn[number]]] :][:4]
        world = vertices @ data.geom_xmat[drawn[number]].reshape(3, 3).T + data.geom_xpos[drawn[number]]
        assert np.abs(world - data.body(name).xpos).max(axis=1).min() < 1e-6  # the tetrahedron's corner


def test_a_share_of_the_scenes_has_meshes_by_their_seeds():
    worn = [bool(RobotLook("x", 0.3).worn(seed)) for seed in range(400)]
    assert 0.22 < np.mean(worn) < 0.38
    assert not any(RobotLook("x", 0.0).worn(seed) for seed in range(50))
    assert {RobotLook("x").worn(seed) for seed in range(50)} == {"x"}


def test_a_collection_records_its_look_and_goes_on_with_no_other(clothes, tmp_path):
    scenes, explore = SceneRange(tmp_path, 1, SEED, workers=1), ExploreConfig(frames=2, look=RobotLook(str(clothes)))
    collect(scenes, explore)
    settings = json.loads((tmp_path / "dataset.json").read_text())["settings"]
    assert settings["explore"]["look"] == {"meshes": str(clothes), "meshes_share": 1.0}
    assert open_dataset(tmp_path)[0].source.endswith(f"meshes {clothes}")
    with pytest.raises(ValueError, match=r"explore\.look"):
        collect(scenes, ExploreConfig(frames=2))


def test_the_kitchen_wears_its_look_and_other_environments_have_none(clothes):
    look = RobotLook(str(clothes))
    assert task_suite("kitchen", look=look).draw.keywords == {"look": look}
    with KitchenEnv(look=look) as environment:
        environment.reset(seed=SEED)
        assert environment.simulation.layout.meshes == str(clothes)
    with pytest.raises(ValueError, match="--meshes is for kitchen"):
        task_suite("adroit", look=look)


def test_meshes_of_a_robot_that_moves_otherwise_or_shows_nothing_are_refused(clothes, tmp_path):
    (tmp_path / "robot.toml").write_text(clothes.read_text())
    (tmp_path / "tiny.obj").write_text(OBJ)
    (tmp_path / "robot.xml").write_text(mjcf(aside=0.005))
    with pytest.raises(ValueError, match=r"joint 'j(9|10)' turns about a line \d\.\d mm"):
        check_look(RobotLook(str(tmp_path / "robot.toml")))
    bare = mjcf().replace(LINK, '<geom type="mesh" mesh="tiny"/>').replace("tiny.obj", "gone.dae")
    (tmp_path / "robot.xml").write_text(bare)
    with pytest.raises(ValueError, match=r"nothing to look at on joint 'j0' and 22 others: gone\.dae"):
        check_look(RobotLook(str(tmp_path / "robot.toml")))
    names = json.dumps([f"j{number}" for number in range(7, 23)])
    fewer = clothes.read_text().replace(names.replace('", "', '", "'), '["j7"]')
    (tmp_path / "robot.toml").write_text(fewer)
    with pytest.raises(ValueError, match="has 8 joints; the robot that wears its meshes has 23"):
        check_look(RobotLook(str(tmp_path / "robot.toml")))
