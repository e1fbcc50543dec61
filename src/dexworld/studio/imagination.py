"""What runs in a worker process behind the view *Imagine*: the model's next frame, and the simulator's.

A request holds the whole path from the start, so that any process can answer it; what was computed before is kept.
"""

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dexworld.actions import MIN_DEPTH
from dexworld.evaluation.atomic import of_hands
from dexworld.models.latent_readers import AUTO, Drawing, drawing_of
from dexworld.models.world_model import load_world_model
from dexworld.report.imagine import DIMMED
from dexworld.robots.robot_meshes import PLAIN, RobotLook
from dexworld.sim.kitchen.explore import COLUMNS, recorded
from dexworld.sim.kitchen.kitchen_env import KitchenEnv
from dexworld.studio.hand_control import BodyPose, FreeHand, HandBody, HandControl
from dexworld.studio.start_frame import Start, StartFrame, open_start, settled
from dexworld.track import Track

KEPT = 512  # frames whose latents are kept
SCENES = 2  # simulated scenes that stay open


@dataclass(frozen=True)
class Recorded:
    """A step that follows the recording, to this many frames after the start."""

    frames: int


Step = HandControl | Recorded
Path = tuple[Step, ...]


@dataclass(frozen=True, eq=False)
class ImaginedFrame:
    """The frame that a path leads to.

    picture: (H, W, 3) uint8, as the model imagines it, with intrinsics (3, 3); decoded: False where its encoder has no
    way back, and the start picture stands in. keypoints: (42, 3) metres, world, as told. told_px: (12, 2) the tracked
    ones in the picture, and in_view: (12,). seen_px: (12, 2) where the model sees them, with confidence (12,); None
    without a keypoint head. heat: (h, w) 0 to 1, where it sees the hand; None unless asked for. change: (h, w), 0 to 1,
    how much its latents changed since the start. true: (H, W, 3), the recorded picture, where the path follows the
    recording. joints: (J,). seconds: of computing.
    """

    picture: np.ndarray
    intrinsics: np.ndarray
    decoded: bool
    keypoints: np.ndarray
    world_from_camera: np.ndarray
    told_px: np.ndarray
    in_view: np.ndarray
    seen_px: np.ndarray | None
    confidence: np.ndarray | None
    heat: np.ndarray | None
    change: np.ndarray
    true: np.ndarray | None
    joints: np.ndarray | None
    seconds: float


@dataclass(frozen=True, eq=False)
class Begun:
    """What is known of a start. image: as it is; drawn_by: who draws imagined pictures. objects: (n, 3) metres."""

    image: np.ndarray
    up: np.ndarray
    keypoints_valid: np.ndarray
    source: str
    drawn_by: str
    frames_left: int
    stride: int
    objects: np.ndarray


class _Node(NamedTuple):
    """latents: (P, D). body: what the next step moves. recorded: frames after the start that were followed."""

    latents: Tensor
    pose: BodyPose
    world_from_camera: np.ndarray
    body: HandBody
    recorded: int = 0


class Imaginer:
    """The model of a checkpoint, and the paths that it was led along. decoder: as of `drawing_of`. look: of the
    simulated robot."""

    def __init__(self, checkpoint: str, decoder: str = AUTO, look: RobotLook = PLAIN) -> None:
        self.model: Any = load_world_model(checkpoint)
        self.drawing: Drawing = drawing_of(self.model, decoder)
        self._kept: OrderedDict[tuple[Start, Path], _Node] = OrderedDict()
        self._opened = lru_cache(maxsize=8)(lambda start: open_start(start, self.model.config.image_size, look))

    def begin(self, start: Start) -> Begun:
        """Open a start. Raises ValueError where there is no such frame, or nothing to move in it."""
        opened = self._opened(start)
        episode, frame = opened.episode, opened.frame
        return Begun(
            image=episode.frames.read([frame])[0],
            up=opened.up,
            keypoints_valid=episode.keypoints_valid[frame],
            source=episode.source,
            drawn_by=self.drawing.by,
            frames_left=len(episode) - 1 - frame,
            stride=opened.stride,
            objects=opened.objects,
        )

    @torch.no_grad()
    def frame(self, start: Start, path: Path, heat: bool = False) -> ImaginedFrame:
        """The frame that a path leads to; the start as the model holds it for an empty one."""
        began, opened = time.perf_counter(), self._opened(start)
        node, first = self._node(opened, start, path), self._node(opened, start, ())
        track, pictured = self._track(opened, [node]), opened.episode.frames.read([opened.frame])[0]
        motion = of_hands(track)
        told = motion.pixels[0, :, :2].numpy()
        height, width = pictured.shape[:2]
        in_view = motion.visible[0].numpy() & ((told >= 0) & (told < (width, height))).all(-1)
        in_view &= motion.pixels[0, :, 2].numpy() > MIN_DEPTH
        decode = self.drawing.decode
        dimmed = (pictured * DIMMED).astype(np.uint8)
        seen = self.model.keypoints(node.latents[None]) if hasattr(self.model, "keypoints") else None
        change = (node.latents - first.latents).square().mean(-1).sqrt() / first.latents.std().clamp_min(1e-6)
        last = path[-1] if path else None
        recorded = isinstance(last, Recorded)
        return ImaginedFrame(
            picture=dimmed if decode is None else decode(node.latents[None])[0].numpy(),
            intrinsics=opened.episode.intrinsics,
            decoded=decode is not None,
            keypoints=node.pose.keypoints,
            world_from_camera=node.world_from_camera,
            told_px=told,
            in_view=in_view,
            seen_px=None if seen is None else seen[0][0].numpy(),
            confidence=None if seen is None else seen[1][0].numpy(),
            heat=self._heat(node.latents) if heat else None,
            change=_on_grid(change, (height, width)),
            true=opened.episode.frames.read([opened.frame + node.recorded])[0] if recorded else None,
            joints=node.pose.joints,
            seconds=time.perf_counter() - began,
        )

    def _node(self, opened: StartFrame, start: Start, path: Path) -> _Node:
        """The last frame of a path; those that are missing on the way are imagined first."""
        missing = len(path)
        while missing and (start, path[:missing]) not in self._kept:
            missing -= 1
        for length in range(missing, len(path) + 1):
            key = (start, path[:length])
            if key not in self._kept:
                self._kept[key] = self._next(opened, start, path[:length]) if length else self._first(opened)
            self._kept.move_to_end(key)
        node = self._kept[start, path]
        while len(self._kept) > max(KEPT, len(path) + 1):
            self._kept.popitem(last=False)
        return node

    def _first(self, opened: StartFrame) -> _Node:
        image = np.ascontiguousarray(opened.episode.frames.read([opened.frame]))
        camera = opened.episode.world_from_camera[opened.frame]
        latents = self.model.encode(torch.from_numpy(image)).float()[0]
        return _Node(latents, opened.pose, camera, opened.body)

    def _next(self, opened: StartFrame, start: Start, path: Path) -> _Node:
        before, step, episode = self._kept[start, path[:-1]], path[-1], opened.episode
        if isinstance(step, Recorded):
            row = opened.frame + step.frames
            if row >= len(episode):
                raise ValueError(f"{episode.source} ends at frame {len(episode) - 1}")
            valid = episode.keypoints_valid[row] & episode.keypoints_valid[opened.frame]
            keypoints = np.where(valid[:, None], episode.keypoints_world[row], before.pose.keypoints)
            new = _Node(before.latents, BodyPose(keypoints), episode.world_from_camera[row], before.body, step.frames)
            new = new._replace(body=FreeHand(keypoints, start.hand))
        else:
            new = before._replace(pose=before.body.pose(step, before.pose))
        context = max(0, len(path) - self.model.config.num_context)
        seen = [self._node(opened, start, path[:length]) for length in range(context, len(path))]
        observed = torch.stack([node.latents for node in seen])
        kept = self.model.start(observed, self.model.condition(self._track(opened, seen)))
        motion = self.model.condition(Track.stack([self._track(opened, [before, new])]))
        latents = self.model.rollout(kept, motion).float()[0, -1]
        if not torch.isfinite(latents).all():
            raise ValueError("the model imagined NaN or Inf; go back a step")
        return new._replace(latents=latents)

    def _track(self, opened: StartFrame, nodes: Sequence[_Node]) -> Track:
        """What happened over these frames, as tensors. Columns that a model reads besides the hands stand still."""
        episode = opened.episode.at([opened.frame] * len(nodes))
        cameras = np.stack([node.world_from_camera for node in nodes])
        keypoints = np.stack([node.pose.keypoints for node in nodes])
        told = Track(cameras, episode.intrinsics, {**episode.columns, "keypoints_world": keypoints})
        return told.tensors(torch.float32)

    def _heat(self, latents: Tensor) -> np.ndarray | None:
        if not hasattr(self.model, "keypoint_logits"):
            return None
        logits = self.model.keypoint_logits(latents[None])[0].float()
        maps = logits.flatten(1).softmax(-1).view(logits.shape)
        return (maps / maps.amax((1, 2), keepdim=True)).amax(0).numpy()


def _on_grid(values: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Values (P,) of patches as a picture of patches (h, w), clipped to 0 to 1."""
    rows = max(1, round((len(values) * size[0] / size[1]) ** 0.5))
    while len(values) % rows:
        rows -= 1
    return values.view(rows, -1).clamp(0.0, 1.0).numpy()


class TrueScene:
    """The simulator, led along the same paths: what really happens."""

    def __init__(self, look: RobotLook = PLAIN) -> None:
        self._look = look
        self._open: OrderedDict[int, tuple[KitchenEnv, dict[bytes, Any]]] = OrderedDict()

    def picture(self, seed: int, joints: tuple[bytes, ...]) -> np.ndarray:
        """The picture after one step to each of the joint targets (J,), float64 as bytes."""
        return self._led(seed, joints).render()

    def track(self, seed: int, joints: tuple[bytes, ...]) -> Track:
        """All that happened on the way there, with true hands and objects."""
        rows = []
        for length in range(len(joints) + 1):
            simulation = self._led(seed, joints[:length]).simulation
            assert simulation is not None
            rows.append(simulation.observation() | simulation.object_row())
        fps = float(KitchenEnv.metadata["render_fps"])
        return recorded(rows, f"the kitchen, scene {seed}, moved by hand", "", seed, fps, COLUMNS)

    def _led(self, seed: int, joints: tuple[bytes, ...]) -> KitchenEnv:
        environment, states = self._scene(seed)
        done = len(joints)
        while done and b"".join(joints[:done]) not in states:
            done -= 1
        environment.set_state(states[b"".join(joints[:done])])
        for number in range(done, len(joints)):
            environment.move(environment.robot.clamp(torch.from_numpy(_numbers(joints[number]))).numpy())
            states[b"".join(joints[: number + 1])] = environment.get_state()
        return environment

    def close(self) -> None:
        """Close the scenes, in the thread that drew them."""
        while self._open:
            self._open.popitem()[1][0].close()

    def _scene(self, seed: int) -> tuple[KitchenEnv, dict[bytes, Any]]:
        if seed not in self._open:
            environment = KitchenEnv(look=self._look)
            settled(environment, seed)
            self._open[seed] = environment, {b"": environment.get_state()}
            while len(self._open) > SCENES:
                self._open.popitem(last=False)[1][0].close()
        self._open.move_to_end(seed)
        environment, states = self._open[seed]
        while len(states) > KEPT:
            del states[next(each for each in states if each)]
        return environment, states


def _numbers(joints: bytes) -> np.ndarray:
    return np.frombuffer(joints, np.float64).copy()
