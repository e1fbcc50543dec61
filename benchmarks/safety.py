"""Random and adversarial commands through the safety filter: how many of its outputs are outside any limit.

Robots are filtered side by side, each as if it were alone. What the filter lets out is judged here anew, from commands
alone: positions, their differences, and kinematics of every command and of the way that a stop takes in the end.
"""

import logging
import time
from collections import Counter

import numpy as np
import torch

from common import parser, write_and_print
from dexworld.robots.franka_allegro import OPEN_FINGERS, FrankaAllegro
from dexworld.robots.safety import Clearance, JointLimits, SafetyFilter, joint_limits

READY = np.array([0.0, -0.6, 0.0, -2.3, 0.0, 1.9, 0.6, *OPEN_FINGERS])
TABLE = ((0.3, -1.0, -1.0), (1.5, 1.0, 0.0))
ROOM = ((-0.5, -0.6, -0.2), (0.75, 0.6, 1.2))
MARGIN = 0.01  # metres
EPISODE = 100  # commands of a robot before it begins anew
TOLERANCE = 1e-5  # metres; float32 kinematics


def wanted(rng: np.random.Generator, kind: int, now: np.ndarray, before: np.ndarray, bounds: JointLimits) -> np.ndarray:
    """What an adversary asks of robots at `now` (B, J): anywhere, the ends of the range, jitter, on as before, a stop
    and a start in turn, the way down to the table, or noise of any size with NaN and Inf.
    """
    if kind == 0:
        return rng.uniform(2 * bounds.low, 2 * bounds.high, now.shape)
    if kind == 1:
        return np.where(rng.random(now.shape) < 0.5, bounds.low, bounds.high)
    if kind == 2:
        return rng.normal(now, 0.02)
    if kind == 3:
        return now + (now - before) * rng.uniform(0.5, 3.0, (len(now), 1))
    if kind == 4:
        return np.where(rng.random((len(now), 1)) < 0.5, now, READY)
    if kind == 5:
        down = np.repeat(READY[None], len(now), 0)
        down[:, 1], down[:, 3] = 1.5, -1.0
        return down + rng.normal(0, 0.3, now.shape)
    noise = now + np.exp(rng.uniform(-9, 300, now.shape)) * rng.choice([-1.0, 1.0], now.shape)
    return np.where(rng.random(now.shape) < 0.005, rng.choice([np.nan, np.inf, -np.inf], now.shape), noise)


def violations(found: np.ndarray, bounds: JointLimits, clearance: Clearance, seconds: float) -> Counter:
    """Commands of (T, B, J), the first one at rest, that are outside a limit."""
    velocities = np.diff(found, axis=0, prepend=found[:1]) / seconds
    accelerations = np.diff(velocities, axis=0, prepend=velocities[:1]) / seconds
    outside = {
        "position": (found < bounds.low) | (found > bounds.high),
        "velocity": ~(np.abs(velocities) <= bounds.velocity),
        "acceleration": ~(np.abs(accelerations) <= bounds.acceleration),
        "touching": np.stack([clearance.depths(each) for each in found]) > TOLERANCE,
    }
    return Counter({name: int(where.any(-1).sum()) for name, where in outside.items()})


def main() -> None:
    """Measure and write results.json."""
    arguments = parser(__doc__, "outputs/bench/safety")
    arguments.add_argument("--commands", type=int, default=1_000_000)
    arguments.add_argument("--robots", type=int, default=100, help="robots side by side")
    arguments.add_argument("--seed", type=int, default=916_000)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("dexworld_client").setLevel(logging.ERROR)  # interventions are counted
    rng, robot = np.random.default_rng(options.seed), FrankaAllegro()
    bounds, clearance = joint_limits(robot), Clearance(robot, np.eye(4), (TABLE,), ROOM, MARGIN)
    outside, interventions, done, moved, seconds = Counter[str](), Counter[str](), 0, 0.0, 0.0
    while done < options.commands:
        filtered = SafetyFilter(bounds, np.repeat(READY[None], options.robots, 0), clearance)
        found, asked = [filtered.positions], 0
        while asked < EPISODE and done < options.commands:
            kind, length = int(rng.integers(7)), int(rng.integers(1, 30))
            for _ in range(min(length, EPISODE - asked)):
                target = wanted(rng, kind, found[-1], found[max(0, len(found) - 2)], bounds)
                began = time.process_time()
                found.append(filtered.step(target, found[-1] if rng.random() < 0.2 else None))
                seconds += time.process_time() - began
                asked, done = asked + 1, done + options.robots
        while not filtered.at_rest:
            found.append(filtered.stop("lost"))
        outside.update(violations(np.stack(found), bounds, clearance, filtered.seconds))
        interventions += filtered.counts
        moved = max(moved, float(np.abs(np.diff(found, axis=0)).max() / filtered.seconds))
    one = SafetyFilter(bounds, READY, clearance)
    began = time.process_time()
    for _ in range(200):
        one.step(rng.uniform(bounds.low, bounds.high))
    figures = {"commands": done, "outside": sum(outside.values()), "cpu_us_per_command": seconds / done * 1e6}
    figures["cpu_ms_per_command_of_one_robot"] = (time.process_time() - began) / 200 * 1e3
    figures |= {"fastest_rad_per_s": moved, "interventions": dict(interventions), "outside_by_limit": dict(outside)}
    write_and_print(options.output, figures)


if __name__ == "__main__":
    main()
