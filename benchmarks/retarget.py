"""How near a robot's fingertips come to a person's, and how many frames a second that takes on one core.

Human clips in EgoDex's layout are simulated and read by its reader. Robots that dexworld ships a description of are
measured where their package is found (or `DEXWORLD_MODELS` names its folder); the built-in Allegro always is.

    python benchmarks/retarget.py
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from common import parser, write_and_print
from dexworld.data.readers import open_source
from dexworld.robots.described_robot import named_robot, robot_names
from dexworld.robots.franka_allegro import FrankaAllegro
from dexworld.robots.retarget import retarget
from dexworld.sim.collect_scenes import SceneRange, collect_human
from dexworld.sim.hands.human_video import HumanVideoConfig

SEED = 918_000


def main() -> None:
    """Measure every robot on the same clips."""
    arguments = parser(__doc__, "outputs/bench/retarget")
    arguments.add_argument("--clips", type=int, default=4)
    arguments.add_argument("--seconds", type=float, default=6.0)
    arguments.add_argument("--robot", nargs="+", help="shipped descriptions; by default all and the built-in one")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    robots = {} if options.robot else {"franka-allegro": FrankaAllegro()}
    for name in options.robot or robot_names():
        try:
            robots[name] = named_robot(name)
        except FileNotFoundError:
            continue
    with tempfile.TemporaryDirectory() as folder:
        video = HumanVideoConfig(seconds=options.seconds, height=64, width=112)
        collect_human(SceneRange(Path(folder), options.clips, SEED, workers=1), video)
        source = open_source(Path(folder))
        tracks = [source[number] for number in range(len(source.ids))]
    figures = {}
    for name, robot in robots.items():
        errors, frames, began = [], 0, time.process_time()
        for track in tracks:
            try:
                done = retarget(robot, track.keypoints_world, track.keypoints_valid)
            except ValueError:  # the clip doesn't show the hand of this side
                continue
            frames += len(done.tip_error)
            errors.append(done.tip_error[~done.tip_error.isnan()].numpy())
        if errors:
            figures[f"{name}_tip_error_cm"] = 100 * float(np.median(np.concatenate(errors)))
            figures[f"{name}_tip_error_cm_90"] = 100 * float(np.quantile(np.concatenate(errors), 0.9))
            figures[f"{name}_frames_per_cpu_s"] = frames / (time.process_time() - began)
    write_and_print(options.output, {"clips": len(tracks), "frames": sum(map(len, tracks)), **figures})


if __name__ == "__main__":
    main()
