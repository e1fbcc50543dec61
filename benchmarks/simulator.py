"""CPU cost of the simulator: kinematics, physics, pictures, and collecting exploratory episodes.

    python benchmarks/simulator.py --output outputs/bench/simulator

All figures are CPU time (this process and its children, all threads), which other load on the machine hardly changes.
`cpu_s_per_500_episodes` is measured on `--episodes` whole episodes, video encoding included, and scaled.
"""

import functools
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from common import parser, write_and_print
from dexworld.robots.franka_allegro import FrankaAllegro
from dexworld.sim.collect_scenes import SceneRange, collect
from dexworld.sim.kitchen.explore import ExploreConfig
from dexworld.sim.kitchen.kitchen_scene import EGO_CAMERA, random_layout
from dexworld.sim.kitchen.kitchen_simulation import FRAMES_PER_SECOND, Simulation
from dexworld.sim.render import choose_backend

POSES = 512 * 3  # candidates x steps of one planning iteration at the paper's budget
FIRST_SEED = 990_000  # validation scenes


def cpu_seconds() -> float:
    """CPU time used so far by this process and the children that have ended."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def cost(work: Callable[[], object], repeats: int) -> float:
    """CPU seconds of one call of `work`, after one call that isn't counted."""
    work()
    start = cpu_seconds()
    for _ in range(repeats):
        work()
    return (cpu_seconds() - start) / repeats


def measure_kinematics() -> dict[str, float]:
    """Batched forward kinematics of `POSES` joint configurations."""
    robot = FrankaAllegro()
    share = torch.rand(POSES, len(robot.limits), generator=torch.Generator().manual_seed(0))
    low, high = robot.limits.float().T
    poses = low + share * (high - low)
    return {"fk_us_per_pose": 1e6 * cost(lambda: robot.forward(poses), repeats=20) / POSES}


def measure_scenes(backend: str, frames: int, scenes: int) -> dict[str, float]:
    """Building, physics and pictures, averaged over `scenes` scenes with the arm in motion."""
    spent: dict[str, list[float]] = {name: [] for name in ("physics", "render", "segmentation")}
    build = []
    for seed in range(FIRST_SEED, FIRST_SEED + scenes):
        layout = random_layout(seed)
        build.append(cost(lambda layout=layout: Simulation(layout, backend).close(), repeats=1))
        with Simulation(layout, backend) as simulation:
            rng = np.random.default_rng(seed)

            def move(simulation=simulation, rng=rng):
                targets = simulation.joint_targets
                targets = targets + rng.normal(0, 0.05, len(targets))
                simulation.move(np.clip(targets, *simulation.joint_limits.T), 1 / FRAMES_PER_SECOND)

            draw = simulation.renderer
            works = [move, simulation.image, functools.partial(draw.segmentation, simulation.data, EGO_CAMERA)]
            for times, work in zip(spent.values(), works, strict=True):
                times.append(cost(work, frames))
    figures = {f"{name}_cpu_ms_per_frame": 1e3 * float(np.mean(times)) for name, times in spent.items()}
    return {"build_cpu_ms_per_scene": 1e3 * float(np.mean(build))} | figures


def measure_collection(backend: str, episodes: int, frames: int) -> dict[str, float]:
    """Whole episodes into a temporary folder, rejected attempts and video encoding included."""
    explore = ExploreConfig(frames=frames)
    with tempfile.TemporaryDirectory() as folder:
        scenes = SceneRange(Path(folder) / "data", episodes, FIRST_SEED, 1, backend)
        wall, start = time.perf_counter(), cpu_seconds()
        collect(scenes, explore)
        used, wall = cpu_seconds() - start, time.perf_counter() - wall
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    return {
        "cpu_s_per_500_episodes": 500 * used / episodes,
        "cpu_s_per_episode": used / episodes,
        "wall_s_per_episode": wall / episodes,
        "mb_per_500_episodes": 500 * size / episodes / 1e6,
        "episodes_measured": episodes,
        "frames_per_episode": frames,
    }


def main() -> None:
    """Measure and write results.json."""
    options = parser(__doc__, "outputs/bench/simulator")
    options.add_argument("--episodes", type=int, default=20, help="episodes to collect and scale from")
    options.add_argument("--frames", type=int, default=40, help="frames of an episode")
    options.add_argument("--scenes", type=int, default=4, help="scenes to average physics and rendering over")
    options.add_argument("--backend", default="auto", help="auto, egl, osmesa or ray")
    arguments = options.parse_args()
    if arguments.episodes < 1 or arguments.scenes < 1 or arguments.frames < 3:
        options.error("--episodes and --scenes must be at least 1, --frames at least 3")
    torch.set_num_threads(1)
    backend = choose_backend(arguments.backend)
    results = {
        **measure_kinematics(),
        **measure_scenes(backend, min(arguments.frames, 20), arguments.scenes),
        **measure_collection(backend, arguments.episodes, arguments.frames),
        "backend": backend,
        "cores": os.cpu_count(),
    }
    write_and_print(arguments.output, results)


if __name__ == "__main__":
    main()
