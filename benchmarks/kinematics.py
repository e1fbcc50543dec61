"""Measure batched forward kinematics to the keypoints, beside MuJoCo and, if it is installed, pytorch_kinematics.

Takes the Franka with Allegro hand, or a shipped description whose model is installed (docs/robots.md):

    python benchmarks/kinematics.py --robot allegro-right
"""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mujoco
import torch
from torch import Tensor

from common import cpu_seconds, parser, write_and_print
from dexworld.robots.described_robot import DescribedRobot, named_robot
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
    spec.compiler.balanceinertia, spec.compiler.boundmass, spec.compiler.boundinertia = True, 1e-3, 1e-6
    return spec.compile()


def main() -> None:
    arguments = parser(__doc__, "outputs/bench/kinematics")
    arguments.add_argument("--robot", default=OWN, help="robot: the typed-in one, or a shipped description")
    arguments.add_argument("--batches", type=int, nargs="+", default=[1, 64, 1536, 12288], help="poses at a time")
    arguments.add_argument("--repeats", type=int, default=15, help="timed calls; the median counts")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    robot = FrankaAllegro() if options.robot == OWN else named_robot(options.robot)
    results: dict[str, Any] = {"robot": options.robot, "joints": len(robot.joints)}
    results |= measure(robot, options.batches, options.repeats)
    results["mujoco_poses_per_cpu_s"] = measure_mujoco(mujoco_model(robot), robot, options.repeats)
    if isinstance(robot, DescribedRobot) and robot.model.path.suffix == ".urdf":
        try:
            results |= measure_pytorch_kinematics(robot.model.path, robot, options.batches, options.repeats)
        except ImportError as error:
            results["pytorch_kinematics"] = f"not measured: {error}"
    write_and_print(options.output, results)


if __name__ == "__main__":
    main()
