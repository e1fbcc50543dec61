"""A scene is its seed: the same one always gives the same counter, objects, robot and pictures."""

import math
from collections import Counter
from dataclasses import replace
from itertools import combinations

import mujoco
import numpy as np
import pytest

from dexworld.evaluation import guard
from dexworld.robots.franka_allegro import JOINTS
from dexworld.sim.hands.hand_scene import random_hand_layout
from dexworld.sim.kitchen.kitchen_scene import (
    COUNTER_AREA,
    COUNTER_BOX,
    COUNTER_TOP,
    FIRST_EVALUATION_SEED,
    VALIDATION_SEEDS,
    WORK_AREA,
    build_scene,
    random_layout,
)
from dexworld.sim.kitchen.objects import KINDS, random_object


def inside(position: tuple[float, float], area: tuple[float, float, float, float]) -> bool:
    return area[0] <= position[0] <= area[1] and area[2] <= position[1] <= area[3]


def test_one_seed_gives_one_scene_to_the_bit_and_another_seed_another():
    layouts = [random_layout(seed) for seed in (5, 5, 6)]
    assert layouts[0] == layouts[1] != layouts[2]
    first, again, other = (build_scene(layout) for layout in layouts)
    for name in ("body_pos", "geom_size", "geom_rgba", "tex_data", "light_pos", "cam_quat", "body_mass"):
        assert np.array_equal(getattr(first, name), getattr(again, name)), name
    assert not np.array_equal(first.tex_data, other.tex_data)
    assert not np.array_equal(first.cam_quat, other.cam_quat)


def test_objects_are_placed_on_the_counter_and_the_first_one_within_the_hands_reach():
    layouts = [random_layout(seed) for seed in range(200)]
    for layout in layouts:
        assert all(inside(position, COUNTER_AREA) for position in layout.positions)
        assert inside(layout.positions[0], WORK_AREA)
    assert {len(layout.objects) for layout in layouts} == {1, 2, 3, 4, 5}
    assert {layout.furniture for layout in layouts} == {"plain", "sink", "stove", "shelf"}
    assert set(Counter(item.kind for layout in layouts for item in layout.objects)) == set(KINDS)


@pytest.mark.parametrize(("draw", "count", "gap"), [(random_layout, 200, 0.0), (random_hand_layout, 40, 0.06)])
def test_objects_do_not_overlap(draw, count, gap):
    for seed in range(900_000, 900_000 + count):
        layout = draw(seed)
        for (item, spot), (other, place) in combinations(zip(layout.objects, layout.positions, strict=True), 2):
            assert math.dist(spot, place) > item.radius + other.radius + gap


def test_objects_stand_still_on_the_counter(simulation):
    before = simulation.object_positions()
    simulation.move(simulation.joint_targets, 0.5)
    after = simulation.object_positions()
    heights = [COUNTER_TOP + item.half_height for item in simulation.layout.objects]
    assert np.abs(after[:, 2] - heights).max() < 0.003
    assert np.abs((after - before)[:, :2]).max() < 0.003


@pytest.mark.parametrize("furniture", ["plain", "sink", "stove", "shelf"])
def test_every_kind_of_scene_compiles_with_every_kind_of_object(furniture):
    rng = np.random.default_rng(0)
    count = len(KINDS)
    layout = replace(
        random_layout(1),
        objects=tuple(random_object(rng, (kind,)) for kind in KINDS),
        positions=tuple((0.7, -0.4 + 0.13 * index) for index in range(count)),
        yaws=(0.3,) * count,
        furniture=furniture,
    )
    model = build_scene(layout)
    assert all(model.body(f"object{index}").jntnum == 1 for index in range(count))
    data = mujoco.MjData(model)
    mujoco.mj_step(model, data, nstep=10)
    assert np.isfinite(data.qpos).all()


def test_the_robot_has_its_23_joints_and_motors_in_the_one_order_with_the_one_set_of_limits(simulation):
    model, names = simulation.model, [joint.name for joint in JOINTS]
    assert len(names) == model.nu == 23
    assert [model.actuator(index).name for index in range(model.nu)] == names
    assert [model.joint(model.actuator(index).trnid[0]).name for index in range(model.nu)] == names
    assert np.allclose(simulation.joint_limits, [joint.limits for joint in JOINTS])
    assert np.allclose(model.actuator_ctrlrange, simulation.joint_limits)
    assert np.allclose(model.actuator_forcerange[:, 1], [joint.torque for joint in JOINTS])


def test_the_guard_of_evaluations_knows_the_simulators_seed_ranges():
    assert VALIDATION_SEEDS.start == guard.VALIDATION_START
    assert guard.EVALUATION_START == VALIDATION_SEEDS.stop == FIRST_EVALUATION_SEED


@pytest.mark.parametrize("seed", [900_000, 900_001, 900_002])
def test_the_box_that_arms_stay_out_of_is_the_counter(seed):
    model = build_scene(random_layout(seed))
    counter = model.geom("counter")
    low, high = counter.pos - counter.size, counter.pos + counter.size
    assert np.allclose(COUNTER_BOX[0][:2], low[:2])
    assert high[2] == pytest.approx(COUNTER_BOX[1][2])
    assert (high <= np.array(COUNTER_BOX[1]) + 1e-9).all()
