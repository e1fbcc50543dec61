"""The simulator as a Gymnasium environment: one step is one step of the world model, a second of robot motion."""

from typing import Any

import gymnasium
import numpy as np

from dexworld.hands import NUM_KEYPOINTS, ROBOT_JOINTS
from dexworld.robots.franka_allegro import JOINTS
from dexworld.sim.scene import IMAGE_SIZE, TRAINING_SEEDS, random_layout
from dexworld.sim.simulation import SimState, Simulation
from dexworld.sim.tasks import HORIZON, Rejection, TaskEpisode, distance, draw_episode, hold, satisfied, step

LIMIT_SLACK = 1e-4  # radians; rounding of float32 policies


class KitchenEnv(gymnasium.Env):
    """Franka arm with Allegro hand at a kitchen counter.

    Observation: the fields of `dexworld.robots.observation.Observation`, and the true keypoints (`keypoints_world`
    (42, 3) metres, `keypoints_valid` (42,)). Action: absolute joint targets (23,) radians, interpolated over a second.
    Reward: 1.0 when the task's criterion holds at the end of the step (0.0 without a task). An episode is truncated
    after three steps; `info["distance"]` says how far the task is from done, metres.

    Without a task the scene just stands there to be explored, and nothing truncates.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 1}  # noqa: RUF012  Gymnasium's own declaration

    def __init__(self, backend: str = "auto", tips: str = "true"):
        self._backend, self._tips = backend, tips
        self.simulation: Simulation | None = None
        self.episode: TaskEpisode | None = None
        self.render_mode = "rgb_array"
        box = gymnasium.spaces.Box
        low, high = np.array([joint.limits for joint in JOINTS]).T
        self.action_space = box(low, high, dtype=np.float64)
        joints = box(-np.pi * 1.5, np.pi * 1.5, (ROBOT_JOINTS,), np.float64)  # measured ones overshoot a little
        pose = box(-np.inf, np.inf, (4, 4), np.float64)
        self.observation_space = gymnasium.spaces.Dict(
            {
                "image": box(0, 255, (*IMAGE_SIZE, 3), np.uint8),
                "joint_positions": joints,
                "joint_targets": joints,
                "keypoints_world": box(-np.inf, np.inf, (NUM_KEYPOINTS, 3), np.float64),
                "keypoints_valid": gymnasium.spaces.MultiBinary(NUM_KEYPOINTS),
                "world_from_camera": pose,
                "world_from_base": pose,
                "intrinsics": box(-np.inf, np.inf, (3, 3), np.float64),
            }
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Build the scene of `seed`.

        options: `task` (reach, grasp, place, push) draws a start and a goal for it; the info then holds `goal_image`.
        `episode` takes a `TaskEpisode` instead, `start` a `SimState` of this scene to begin from, and `goal` one to
        derive the goal picture from. Raises ValueError if the scene has no episode of the task, with the reason.
        """
        super().reset(seed=seed)
        options = dict(options or {})
        episode = options.pop("episode", None)
        task, start, goal = options.pop("task", None), options.pop("start", None), options.pop("goal", None)
        if options:
            raise ValueError(f"reset options {sorted(options)} are unknown; known: task, start, goal, episode")
        if task is not None and episode is not None:
            raise ValueError("reset takes a task to draw an episode of, or an episode, not both")
        if episode is not None:
            seed = episode.seed
        elif seed is None:
            seed = int(self.np_random.integers(TRAINING_SEEDS.start, TRAINING_SEEDS.stop))
        if task is not None:
            episode = draw_episode(task, seed, self._backend)
            if isinstance(episode, Rejection):
                raise ValueError(f"scene {seed} has no {task} episode: {episode.reason}; try the next seed")
        simulation = self._load(seed)
        self.episode, self._taken = episode, 0
        info: dict[str, Any] = {"seed": seed}
        if goal is not None:
            simulation.set_state(goal)
            info["goal_image"] = simulation.image()
        elif episode is not None:
            info["goal_image"] = episode.goal_image
        if start is None and episode is not None:
            start = episode.start
        if start is not None:
            simulation.set_state(start)
        return simulation.observation(), info

    def step(self, action: np.ndarray):
        """Move to joint targets (23,) radians. Raises ValueError on NaN, on a wrong shape, or outside the limits."""
        simulation = self._running()
        targets = check_targets(action, simulation.joint_limits)
        step(simulation, targets)
        self._taken += 1
        info: dict[str, Any] = {"steps": self._taken}
        reward = 0.0
        if self.episode is not None:
            info["distance"] = distance(self.episode.task, simulation, self.episode)
            reward = float(satisfied(self.episode.task, simulation, self.episode))
        truncated = self.episode is not None and self._taken >= HORIZON
        return simulation.observation(), reward, False, truncated, info

    def succeeded(self) -> bool:
        """Hold still for a second: whether the task's criterion holds at each of ten ticks (the paper's success)."""
        if self.episode is None:
            raise ValueError("there is no task to succeed in; reset with options={'task': ...}")
        return hold(self._running(), self.episode)

    def get_state(self) -> SimState:
        """The complete state, commanded targets included."""
        return self._running().get_state()

    def set_state(self, state: SimState) -> dict[str, np.ndarray]:
        """Go to a state of this scene; returns its observation."""
        self._running().set_state(state)
        return self._running().observation()

    def render(self) -> np.ndarray:
        """The egocentric picture (224, 392, 3) uint8."""
        return self._running().image()

    def depth(self) -> np.ndarray:
        """Depth (224, 392) float32 metres along the optical axis; inf where there is nothing."""
        simulation = self._running()
        return simulation.renderer.depth(simulation.data, "ego")

    def segmentation(self) -> np.ndarray:
        """Geom ids (224, 392) int32; -1 where there is nothing."""
        simulation = self._running()
        return simulation.renderer.segmentation(simulation.data, "ego")

    def close(self) -> None:
        """Free the renderer."""
        if self.simulation is not None:
            self.simulation.close()
            self.simulation = None

    def _load(self, seed: int) -> Simulation:
        if self.simulation is None or self.simulation.layout.seed != seed:
            self.close()
            self.simulation = Simulation(random_layout(seed), self._backend, self._tips)
        else:
            self.simulation.reset()
        return self.simulation

    def _running(self) -> Simulation:
        if self.simulation is None:
            raise ValueError("the environment has no scene yet: call reset first")
        return self.simulation


def check_targets(targets: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Joint targets (23,) that are finite and within limits (23, 2); ValueError names the joint otherwise."""
    targets = np.asarray(targets, float)
    if targets.shape != (ROBOT_JOINTS,):
        raise ValueError(f"joint targets have shape {targets.shape}, expected ({ROBOT_JOINTS},): arm, then fingers")
    if not np.isfinite(targets).all():
        raise ValueError(f"joint target {int(np.argmin(np.isfinite(targets)))} is NaN or Inf; nothing was moved")
    outside = (targets < limits[:, 0] - LIMIT_SLACK) | (targets > limits[:, 1] + LIMIT_SLACK)
    if outside.any():
        joint = int(np.argmax(outside))
        low, high = limits[joint]
        raise ValueError(
            f"joint {joint} is asked to go to {targets[joint]:.3f} rad, outside [{low:.3f}, {high:.3f}]; "
            "clip targets to `simulation.joint_limits` first"
        )
    return np.clip(targets, limits[:, 0], limits[:, 1])
