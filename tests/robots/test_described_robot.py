"""Robots from files: equal to MuJoCo, differentiable, and of use to planning. Models of packages where installed."""

import numpy as np
import pytest
import torch

from dexworld.hands import RIGHT
from dexworld.robots.described_robot import (
    DescribedRobot,
    named_robot,
    read_robot,
    robot_names,
    shipped_description,
    shipped_model,
)
from dexworld.robots.description import parse_description
from dexworld.robots.franka_allegro import FrankaAllegro
from dexworld.robots.model_file import read_model
from dexworld.robots.robot import Robot
from robot_fixtures import HAND_TOML, TWO_HANDS_TOML, hand_mjcf, mujoco_keypoints, two_hands_urdf

pytest.importorskip("mujoco")


def random_joints(robot, count):
    generator = torch.Generator().manual_seed(915_000)
    low, high = robot.limits.unbind(-1)
    return low + (high - low) * torch.rand(count, len(low), generator=generator, dtype=torch.float64)


def write(folder, model=None, description=HAND_TOML, name="hand.xml"):
    (folder / name).write_text(hand_mjcf() if model is None else model)
    (folder / "hand.toml").write_text(description)
    return folder / name, folder / "hand.toml"


@pytest.fixture
def hand(tmp_path):
    return read_robot(*write(tmp_path))


@pytest.fixture
def two_hands(tmp_path):
    return read_robot(*write(tmp_path, two_hands_urdf(), TWO_HANDS_TOML, "two.urdf"))


def installed(name):
    """A shipped robot, or skip with the package that is missing."""
    try:
        shipped_model(shipped_description(name))
    except FileNotFoundError as error:
        pytest.skip(str(error))
    return named_robot(name)


def equal_to_mujoco(robot, count):
    joints = random_joints(robot, count)
    expected = mujoco_keypoints(robot.model.path, robot.description, robot.joints, joints.numpy())
    pose = robot.forward(joints)
    assert np.abs(pose.keypoints.numpy() - expected).max() < 1e-6
    turned = pose.hand_rotation @ pose.hand_rotation.transpose(-1, -2)
    torch.testing.assert_close(turned, torch.eye(3, dtype=torch.float64).expand_as(turned))


def derivatives_are_exact(robot):
    joints = random_joints(robot, 4).view(2, 2, -1)
    (points, exact), (same, near) = robot.jacobian(joints), Robot.jacobian(robot, joints)
    assert exact.shape == (2, 2, 3, 42, len(robot.joints))
    torch.testing.assert_close(points, same)
    torch.testing.assert_close(exact, near, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", robot_names())
def test_a_shipped_robot_is_where_mujoco_says_in_a_thousand_poses(name):
    robot = installed(name)
    equal_to_mujoco(robot, 1000)
    derivatives_are_exact(robot)


def test_derivatives_of_slides_and_followers_and_of_two_hands_are_those_of_differences(hand, two_hands):
    for robot in (hand, two_hands, FrankaAllegro()):
        derivatives_are_exact(robot)


def test_slides_anchors_references_couplings_and_nested_offsets_are_as_in_mujoco(hand):
    equal_to_mujoco(hand, 1000)
    assert hand.joints == ("along", "turn", "thumb_bend", "index_bend", "middle_bend", "ring_bend")
    assert hand.forward(random_joints(hand, 2)).valid.sum() == 19  # the third places of ring and little finger are not


def test_joints_may_follow_by_a_constant_a_quartic_and_through_another_one(tmp_path):
    rows = (
        "index_end index_bend 0.3 0 0 0 0",
        "middle_end index_bend 0.1 0.2 0.1 0.1 0.05",
        "ring_end middle_end 0 1 0 0 0",
    )
    couplings = (row.split(" ", 2) for row in rows)
    text = "".join(f'<joint joint1="{a}" joint2="{b}" polycoef="{numbers}"/>' for a, b, numbers in couplings)
    robot = read_robot(*write(tmp_path, hand_mjcf(text)))
    equal_to_mujoco(robot, 100)
    derivatives_are_exact(robot)


def test_two_hands_of_a_urdf_mimic_and_stand_on_their_arms_as_in_mujoco(two_hands):
    equal_to_mujoco(two_hands, 1000)
    pose = two_hands.forward(random_joints(two_hands, 3))
    torch.testing.assert_close(pose.wrist, pose.keypoints[:, RIGHT.start])
    assert pose.valid[: RIGHT.start].sum() == pose.valid[RIGHT].sum() == 7
    assert two_hands.model.missing == ("package://none/gone.stl is missing",)


def test_gradients_are_those_of_finite_differences(hand):
    joints = random_joints(hand, 2).requires_grad_()

    def outputs(value):
        pose = hand.forward(value)
        return pose.keypoints[:, RIGHT], pose.hand_rotation, pose.links, hand.outline(pose)[0]

    assert torch.autograd.gradcheck(outputs, (joints,))


def test_a_described_robot_does_what_planning_asks_of_a_robot(hand):
    joints = random_joints(hand, 6)
    pose = hand.forward(joints)
    nested = hand.forward(joints.view(2, 3, -1))
    assert torch.equal(nested.keypoints.flatten(0, 1), pose.keypoints)
    assert (hand.forward(joints.float()).keypoints - pose.keypoints).abs().max() < 5e-6
    centres, radii = hand.outline(nested)
    assert centres.shape == (2, 3, len(radii), 3)
    eye = torch.eye(4, dtype=torch.float64)
    assert torch.equal(hand.track(joints, eye, eye, eye[:3, :3]).keypoints_world, pose.keypoints)
    assert pose.links.shape == (6, 2, 3)
    with pytest.raises(ValueError, match="of ring_bend; clip targets"):
        hand.check_targets(hand.limits[:, 1].numpy() + np.eye(6)[-1])


def test_the_outline_covers_the_tips_and_leaves_out_what_the_robot_doesnt_move(hand):
    pose = hand.forward(random_joints(hand, 20))
    centres, radii = hand.outline(pose)
    tips = pose.keypoints[:, [RIGHT.start + row for row in (8, 12, 16)]]
    assert ((tips[:, :, None] - centres[:, None]).norm(dim=-1) <= radii + 1e-9).any(-1).all()
    assert centres[..., 2].min() > -0.5  # the table is 1 m below


def test_the_palms_axes_come_from_the_keypoints_or_from_a_named_body(tmp_path):
    model, named = read_model(write(tmp_path)[0]), HAND_TOML.replace('wrist = "palm"', 'wrist = "palm"\npalm = "palm"')
    own, derived = (DescribedRobot(model, parse_description(text, "hand.toml")) for text in (named, HAND_TOML))
    joints = random_joints(own, 10)
    between = own.forward(joints).hand_rotation.transpose(-1, -2) @ derived.forward(joints).hand_rotation
    torch.testing.assert_close(between, between[:1].expand_as(between))
    aside = np.arctan2(0.01, 0.08)  # of the middle of the three knuckles, seen from the wrist
    cos, sin = np.cos(aside), np.sin(aside)
    expected = torch.tensor([[1.0, 0.0, 0.0], [0.0, cos, sin], [0.0, -sin, cos]], dtype=torch.float64)
    assert (between[0] - expected).abs().max() < 1e-3  # the anchors lie 2 mm off, at rest no joint is bent


def test_limits_couplings_and_spheres_of_the_description_win(tmp_path):
    more = """
[limits]
along = [0.0, 0.1]
[coupled]
index_end = { of = "index_bend", polynomial = [0.2, 0.5] }
[held]
ring_bend = 0.4
[[spheres]]
at = "palm"
offset = [0.0, 0.0, 0.05]
radius = 0.06
"""
    changed = HAND_TOML.replace(', "ring_bend"', "") + more
    robot = read_robot(*write(tmp_path, description=changed))
    assert robot.limits[0].tolist() == [0.0, 0.1]
    assert robot.outline(robot.forward(random_joints(robot, 2)))[0].shape == (2, 1, 3)
    assert robot.drives["index_end"].polynomial == (0.2, 0.5)


@pytest.mark.parametrize(
    ("asset", "content", "missing"),
    [
        ('<mesh name="gone" file="gone.stl"/>', None, "gone.stl is missing"),
        ('<mesh file="gone.stl"/>', None, "gone.stl is missing"),
        ('<mesh name="gone" file="gone.glb"/>', b"glTF", "gone.glb is not read: MuJoCo takes .stl, .obj and .msh"),
        ('<mesh name="gone" file="gone.obj"/>', b"no mesh", "files are not read: "),
    ],
)
def test_a_mesh_that_is_missing_or_broken_doesnt_stop_the_kinematics(tmp_path, asset, content, missing):
    if content is not None:
        (tmp_path / asset.split('"')[-2]).write_bytes(content)
    body = '<body name="thumb2" pos="0 0 0.04">'
    model = hand_mjcf().replace("<worldbody>", f"<asset>{asset}</asset><worldbody>")
    robot = read_robot(*write(tmp_path, model.replace(body, body + '<geom type="mesh" mesh="gone"/>')))
    assert len(robot.model.missing) == 1
    assert robot.model.missing[0].startswith(missing)
    whole = read_robot(*write(tmp_path))
    joints = random_joints(robot, 5)
    assert torch.equal(robot.forward(joints).keypoints, whole.forward(joints).keypoints)


def test_robot_from_file_takes_paths(tmp_path):
    robot = Robot.from_file(*map(str, write(tmp_path)))
    assert isinstance(robot, Robot)
    assert robot.arm == slice(0, 2)
    with pytest.raises(ValueError, match="did you mean allegro-right"):
        Robot.named("allegro-rihgt")


def test_the_allegro_hand_from_its_file_is_the_one_typed_in():
    robot, reference = installed("allegro-right"), FrankaAllegro()
    joints = random_joints(reference, 100)
    whole = reference.forward(joints)
    alone = robot.forward(joints[:, reference.fingers]).keypoints[:, RIGHT]
    flange = torch.tensor([0.0, 0.0, 0.095], dtype=torch.float64)
    moved = (alone + flange) @ whole.hand_rotation.transpose(-1, -2) + whole.wrist[:, None]
    assert (moved - whole.keypoints[:, RIGHT]).abs().max() < 1e-6


def test_bones_stand_in_for_links_without_a_shape(two_hands):
    pose = two_hands.forward(random_joints(two_hands, 10))
    centres, radii = two_hands.outline(pose)
    bones = [(0, 5), (5, 6), (0, 17), (17, 18)]  # of wrist, index and little finger, rows of each hand
    for start in (0, RIGHT.start):
        for a, b in bones:
            middle = (pose.keypoints[:, start + a] + pose.keypoints[:, start + b]) / 2
            assert ((middle[:, None] - centres).norm(dim=-1) < 1e-9).any(-1).all()
    assert (radii == 0.01).all()


@pytest.mark.parametrize(
    ("geom", "corners"),
    [
        ('type="sphere" size="0.02"', 1),
        ('type="capsule" size="0.01 0.05" euler="0.3 0.2 0"', 1),
        ('type="cylinder" size="0.02 0.03" euler="0.3 0.2 0"', 1),
        ('type="box" size="0.01 0.05 0.04" euler="0.3 0.2 0"', 1),
        ('type="ellipsoid" size="0.02 0.03 0.05"', 1),
        ('type="mesh" mesh="block"', 0.8),
    ],
)
def test_spheres_lie_in_and_around_a_shape(tmp_path, geom, corners):
    """They hold the middles of its faces, scaled by `corners`, and reach at most half its width beyond."""
    vertices = " ".join(f"{x} {y} {z}" for x in (-0.01, 0.01) for y in (-0.06, 0.06) for z in (-0.02, 0.02))
    path = tmp_path / "shape.xml"
    path.write_text(
        f'<mujoco><compiler angle="radian"/><asset><mesh name="block" vertex="{vertices}"/></asset><worldbody>'
        f'<body name="link" pos="0 0 1"><joint range="0 1"/><geom {geom}/></body></worldbody></mujoco>'
    )
    (shape,) = read_model(path).shapes
    half = np.ptp(shape.vertices, axis=0) / 2 if shape.kind == "mesh" else shape.size.copy()
    if shape.kind != "mesh":
        half = {
            "sphere": half[[0, 0, 0]],
            "capsule": half[[0, 0, 1]] + [0, 0, half[0]],
            "cylinder": half[[0, 0, 1]],
        }.get(shape.kind, half)
    place = shape.body_from_shape
    faces = np.concatenate([np.diag(half), -np.diag(half)]) * 0.999 * corners @ place[:3, :3].T + place[:3, 3]
    centres, radii = map(np.array, zip(*shape.spheres(), strict=True))
    inside = np.linalg.norm(faces[:, None] - centres, axis=-1) <= radii
    assert inside.any(-1).all()
    own = (centres - place[:3, 3]) @ place[:3, :3]
    assert (np.abs(own) + radii[:, None] <= half + np.sort(half)[1]).all()
