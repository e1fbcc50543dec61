"""Measure batched forward kinematics to the keypoints, beside MuJoCo and, if it is installed, pytorch_kinematics.

Takes the Franka with Allegro hand, descriptions that name their model, and shipped ones whose model is installed
(docs/robots.md):

    python benchmarks/kinematics.py --robot allegro-right examples/my_robot/g1_right.toml
"""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import torch
from torch import Tensor

from common import cpu_seconds, parser, write_and_print
from dexworld.robots.described_robot import DescribedRobot, chosen_robot
from dexworld.robots.description import SIDES
from dexworld.robots.franka_allegro import FrankaAllegro
from dexworld.robots.robot import Robot
from dexworld.sim.kitchen.allegro_body import add_robot

OWN = "franka-allegro"


def measure(robot: Robot, batches: list[int], repeats: int) -> dict[str, float]:
    """Poses a CPU-second in single precision, by batch, without and with the way back to the joints' gradients."""
    found = {}
    for batch in batches:
        joints = random_joints(robot, batch).float()

        def there_and_back(joints: Tensor = joints) -> None:
            robot.forward(joints.clone().requires_grad_()).keypoints.sum().backward()

        with torch.no_grad():
            found[f"poses_per_cpu_s_{batch}"] = batch / median(lambda joints=joints: robot.forward(joints), repeats)
        found[f"gradients_per_cpu_s_{batch}"] = batch / median(there_and_back, repeats)
    return found


def measure_mujoco(model: Any, robot: Robot, repeats: int) -> float:
    """Poses a CPU-second of MuJoCo, pose after pose, from joint positions to the places of bodies and sites."""
    data, joints = mujoco.MjData(model), random_joints(robot, 256).numpy()
    addresses = [model.joint(name).qposadr[0] for name in robot.joints]

    def poses() -> None:
        for row in joints:
            data.qpos[addresses] = row
            mujoco.mj_kinematics(model, data)

    return len(joints) / median(poses, repeats)


def measure_pytorch_kinematics(path: Path, robot: Robot, batches: list[int], repeats: int) -> dict[str, float]:
    """Poses a CPU-second of pytorch_kinematics, all links of the URDF."""
    import pytorch_kinematics

    chain = pytorch_kinematics.build_chain_from_urdf(path.read_bytes())
    names, found = chain.get_joint_parameter_names(), {}
    for batch in batches:
        joints = torch.zeros(batch, len(names))
        joints[:, [names.index(name) for name in robot.joints]] = random_joints(robot, batch).float()
        with torch.no_grad():
            spent = median(lambda joints=joints: chain.forward_kinematics(joints), repeats)
        found[f"pytorch_kinematics_poses_per_cpu_s_{batch}"] = batch / spent
    return found


def furthest_from_mujoco(model: Any, robot: DescribedRobot, poses: int = 1000) -> float:
    """The largest distance between a keypoint of ours and MuJoCo's, metres, over random poses in double precision."""
    data, joints = mujoco.MjData(model), random_joints(robot, poses)
    ours, base, worst = robot.forward(joints).keypoints.numpy(), data.body(robot.description.base), 0.0
    held = {model.joint(name).qposadr[0]: value for name, value in robot.description.held.items()}
    driven = [
        (model.joint(name).qposadr[0], drive) for name, drive in zip(robot.tree.names, robot.tree.drives, strict=True)
    ]
    sites = {model.site(index).name for index in range(model.nsite)}
    for row, positions in enumerate(joints.numpy()):
        for address, value in held.items():
            data.qpos[address] = value
        for address, drive in driven:
            data.qpos[address] = np.polynomial.polynomial.polyval(positions[drive.source], drive.polynomial)
        mujoco.mj_kinematics(model, data)
        for side, hand in robot.description.hands.items():
            for number, place in hand.keypoints.items():
                frame = data.site(place.at) if place.at in sites else data.body(place.at)
                world = frame.xpos + frame.xmat.reshape(3, 3) @ place.offset
                there = base.xmat.reshape(3, 3).T @ (world - base.xpos)
                worst = max(worst, float(np.linalg.norm(ours[row, SIDES[side].start + number] - there)))
    return worst


def random_joints(robot: Robot, count: int) -> Tensor:
    """Joint positions (count, J) within the limits."""
    low, high = robot.limits.unbind(-1)
    return low + (high - low) * torch.rand(count, len(low), generator=torch.Generator().manual_seed(0)).double()


def median(work: Callable[[], object], repeats: int) -> float:
    """Median CPU time of a call after a first one."""
    work()
    return statistics.median(cpu_seconds(work) for _ in range(repeats))


def mujoco_model(robot: Robot) -> Any:
    """The same robot in MuJoCo, without meshes."""
    spec = mujoco.MjSpec()
    if not isinstance(robot, DescribedRobot):
        add_robot(spec)
        return spec.compile()
    spec = mujoco.MjSpec.from_file(str(robot.model.path))
    for geom in [each for each in spec.geoms if each.type == mujoco.mjtGeom.mjGEOM_MESH]:
        spec.delete(geom)
    for mesh in list(spec.meshes):
        spec.delete(mesh)
    spec.compiler.fusestatic = False
    spec.compiler.balanceinertia, spec.compiler.boundmass, spec.compiler.boundinertia = True, 1e-3, 1e-6
    return spec.compile()


def main() -> None:
    arguments = parser(__doc__, "outputs/bench/kinematics")
    arguments.add_argument("--robot", nargs="+", default=[OWN], help="the typed-in one, or descriptions")
    arguments.add_argument("--batches", type=int, nargs="+", default=[1, 64, 1536, 12288], help="poses at a time")
    arguments.add_argument("--repeats", type=int, default=15, help="timed calls; the median counts")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    for name in options.robot:
        figures = measured(FrankaAllegro() if name == OWN else chosen_robot(name), options.batches, options.repeats)
        results |= (
            figures if len(options.robot) == 1 else {f"{Path(name).stem}_{key}": each for key, each in figures.items()}
        )
    write_and_print(options.output, {"robot": " ".join(options.robot), **results})


def measured(robot: Robot, batches: list[int], repeats: int) -> dict[str, Any]:
    """All figures of one robot."""
    results: dict[str, Any] = {"joints": len(robot.joints), **measure(robot, batches, repeats)}
    model = mujoco_model(robot)
    results["mujoco_poses_per_cpu_s"] = measure_mujoco(model, robot, repeats)
    if isinstance(robot, DescribedRobot):
        results["furthest_from_mujoco_m"] = furthest_from_mujoco(model, robot)
    if isinstance(robot, DescribedRobot) and robot.model.path.suffix == ".urdf":
        try:
            results |= measure_pytorch_kinematics(robot.model.path, robot, batches, repeats)
        except ImportError as error:
            results["pytorch_kinematics"] = f"not measured: {error}"
    return results


if __name__ == "__main__":
    main()
