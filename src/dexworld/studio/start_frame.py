"""Where an imagination starts: a scene of the kitchen by its seed, a frame of an episode, or a picture of one's own."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from dexworld.data.datasets import open_dataset
from dexworld.data.readers import open_source
from dexworld.data.resize import Fit, resized_episode
from dexworld.data.source import Source
from dexworld.evaluation.atomic import INDEX_KNUCKLE, LITTLE_KNUCKLE, best_frame
from dexworld.hands import LEFT, RIGHT, WRIST
from dexworld.options import check_index
from dexworld.robots.robot_meshes import PLAIN, RobotLook
from dexworld.sim.kitchen.kitchen_env import KitchenEnv
from dexworld.studio.hand_control import BodyPose, FreeHand, HandBody, RobotHand
from dexworld.track import ArrayFrames, Track

SETTLE_SECONDS = 0.3  # objects come to rest before the first picture
STEPS_PER_SECOND = 5.0  # of recordings


@dataclass(frozen=True)
class Start:
    """Which start frame. It can be compared, hashed and sent.

    seed: of the scene. folder, episode, frame: of a dataset; frame None takes the first that shows most of the hand.
    pixels: of a picture (height, width, 3), uint8, seen as the kitchen's camera sees the scene of `seed`.
    """

    seed: int = 900_000
    folder: str = ""
    episode: int = 0
    frame: int | None = None
    hand: Literal["left", "right"] = "right"
    pixels: bytes = field(default=b"", repr=False)
    size: tuple[int, int] = (0, 0)

    @property
    def simulated(self) -> bool:
        """Whether a simulator can say what really happens."""
        return not self.folder and not self.pixels


@dataclass(frozen=True)
class StartFrame:
    """A start frame, brought to the model's size.

    episode: the track that `frame` is one of. body: what moves. up: the world's upward direction, (3,).
    """

    episode: Track
    frame: int
    body: HandBody
    up: np.ndarray
    pose: BodyPose
    objects: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))

    @property
    def stride(self) -> int:
        """Recorded frames between two steps."""
        return max(1, round(self.episode.fps / STEPS_PER_SECOND))


def open_any(folder: str | Path) -> Source:
    """The episodes in a folder: what our commands wrote, or any layout that a reader knows."""
    try:
        return open_dataset(folder)
    except (ValueError, FileNotFoundError):
        return open_source(folder)


def open_start(start: Start, image_size: tuple[int, int], look: RobotLook = PLAIN) -> StartFrame:
    """The start frame. look: of the simulated robot.

    Raises ValueError that says what is missing: an episode, a frame, or the hand in it.
    """
    if start.folder:
        return _recorded(start, image_size)
    environment = KitchenEnv(look=look)
    try:
        found = _simulated(environment, start, image_size)
    finally:
        environment.close()
    return found


def settled(environment: KitchenEnv, seed: int) -> None:
    """The scene of a seed with everything at rest."""
    environment.reset(seed=seed)
    simulation = environment.simulation
    assert simulation is not None
    simulation.move(simulation.joint_targets, SETTLE_SECONDS)


def _simulated(environment: KitchenEnv, start: Start, image_size: tuple[int, int]) -> StartFrame:
    settled(environment, start.seed)
    simulation, seen = environment.simulation, environment.observe()
    assert simulation is not None
    keypoints, valid = simulation.keypoints_world()
    columns = {"keypoints_world": keypoints[None], "keypoints_valid": valid[None]}
    source = f"the kitchen, scene {start.seed}"
    camera = seen.world_from_camera[None]
    episode = Track(camera, seen.intrinsics, columns, 5.0, ArrayFrames(seen.image[None]), source, seed=start.seed)
    body: HandBody = RobotHand(environment.robot, seen.joint_targets, seen.world_from_base)
    pose, up = BodyPose(keypoints, seen.joint_targets), np.array([0.0, 0.0, 1.0])
    objects = simulation.object_positions()
    if start.pixels:
        picture = np.frombuffer(start.pixels, np.uint8).reshape(*start.size, 3)
        fitted = Fit.cover(start.size, episode.frames.size).images(torch.from_numpy(picture.copy())[None]).numpy()
        episode = Track(camera, seen.intrinsics, columns, 5.0, ArrayFrames(fitted), "your picture")
        body, pose, objects = FreeHand(keypoints), BodyPose(keypoints), np.zeros((0, 3))
    return StartFrame(resized_episode(episode, image_size), 0, body, up, pose, objects)


def _recorded(start: Start, image_size: tuple[int, int]) -> StartFrame:
    source = open_any(start.folder)
    check_index("episode", start.episode, len(source), start.folder)
    episode = resized_episode(source[start.episode], image_size)
    frame = best_frame(episode, start.hand) if start.frame is None else start.frame
    check_index("frame", frame, len(episode), episode.source)
    keypoints = np.where(episode.keypoints_valid[frame][:, None], episode.keypoints_world[frame], 0.0).astype(float)
    rows = LEFT if start.hand == "left" else RIGHT
    if not episode.keypoints_valid[frame][rows][[WRIST, INDEX_KNUCKLE, LITTLE_KNUCKLE]].all():
        lack = f"frame {frame} has no {start.hand} wrist and knuckles to move"
        raise ValueError(f"{episode.source}: {lack}; choose another frame or hand")
    return StartFrame(
        episode, frame, FreeHand(keypoints, start.hand), upward(episode.world_from_camera[frame]), BodyPose(keypoints)
    )


def upward(world_from_camera: np.ndarray) -> np.ndarray:
    """The axis of the world, (3,), that is nearest to a camera's top: datasets don't say which way is up."""
    top = -world_from_camera[:3, 1]
    axis = np.zeros(3)
    axis[np.abs(top).argmax()] = np.sign(top[np.abs(top).argmax()])
    return axis
