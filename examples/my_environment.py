"""Add an environment: a table on which the planar arm of `my_robot.py` reaches for a pose.

Nothing in dexworld is edited. An environment is a Gymnasium environment with `robot`, `observe`, `distance`, `success`
and `film` (`dexworld.robots.environment.Environment`). With `get_state`, `set_state`, `move` and `true_cost` the search
in the true simulator plays too.

    python examples/my_environment.py
"""

from dataclasses import asdict

import gymnasium
import numpy as np
import torch
from my_robot import INTRINSICS, SIZE, WORLD_FROM_CAMERA, hand_pixels, planar_arm

from dexworld.evaluation.runner import play
from dexworld.planning.cem import CEM
from dexworld.planning.policies import PolicySetup, make_policy
from dexworld.robots.observation import Observation

REACHED = 0.05  # metres
EPISODES, MOVES = 5, 3


class Table(gymnasium.Env):
    """The arm goes where it is told at once. A picture shows the hand's keypoints as white dots."""

    def __init__(self) -> None:
        self.robot, self.film = planar_arm(), ()
        low, high = self.robot.limits.numpy().T
        self.action_space = gymnasium.spaces.Box(low, high, dtype=np.float64)
        self.observation_space = gymnasium.spaces.Dict({"image": gymnasium.spaces.Box(0, 255, (*SIZE, 3), np.uint8)})

    def reset(self, *, seed=None, options=None):
        """Draw where the arm starts and where it should end."""
        super().reset(seed=seed)
        low, high = 0.5 * self.robot.limits.numpy().T
        self.joints, self.goal = self.np_random.uniform(low, high, (2, len(low)))
        self.moves = 0
        return asdict(self.observe()), {"goal_image": self.picture(self.goal)}

    def step(self, action):
        """Go to joint targets (5,)."""
        self.move(action)
        self.moves += 1
        return asdict(self.observe()), float(self.success()), False, self.moves >= MOVES, {}

    def move(self, action):
        self.joints = self.robot.check_targets(action)

    def picture(self, joints):
        """The picture of a pose."""
        image = np.zeros((*SIZE, 3), np.uint8)
        pixels = hand_pixels(self.robot, joints)
        for u, v in np.clip(pixels[np.isfinite(pixels).all(-1)], 0, np.array(SIZE) - 1).astype(int):
            image[v, u] = 255
        return image

    def observe(self):
        picture = self.picture(self.joints)
        return Observation(picture, self.joints, WORLD_FROM_CAMERA, INTRINSICS, np.eye(4), self.joints)

    def distance(self):
        here, there = self.robot.forward(torch.tensor(np.stack([self.joints, self.goal]))).wrist
        return float((here - there).norm())

    def true_cost(self):
        return self.distance()

    def success(self):
        return self.distance() < REACHED

    def get_state(self):
        return self.joints

    def set_state(self, state):
        self.joints = state


def main() -> dict[str, float]:
    """The share of episodes that each policy solves."""
    environment, search = Table(), CEM(samples=32, elites=5, iterations=6)
    rates = {}
    for name in ("do_nothing", "random", "true_simulator"):
        policy = make_policy(name, PolicySetup("reach", environment, search=search))
        rates[name] = float(np.mean([play(policy, environment, seed).success for seed in range(EPISODES)]))
    return rates


if __name__ == "__main__":
    for name, rate in main().items():
        print(f"{name:16} {100 * rate:3.0f} %")
