"""A whole imagined path: as a film, and as episodes that every reader opens."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path as Folder
from typing import Any

import numpy as np
from PIL import Image

from dexworld.data.recordings import EpisodeWriter
from dexworld.sim.kitchen.kitchen_env import KitchenEnv
from dexworld.studio.imagination import Begun, ImaginedFrame
from dexworld.studio.start_frame import STEPS_PER_SECOND, Start
from dexworld.track import ArrayFrames, Track


@dataclass(frozen=True, eq=False)
class ImaginedPath:
    """The frames of a path from its start on, two at least.

    true: pictures (H, W, 3) of what really happened. others: frames of the second model. Both are empty unless all of
    them are known. joints: what the simulator was told, of each step; empty where there is no simulator.
    """

    start: Start
    begun: Begun
    frames: list[ImaginedFrame]
    true: list[np.ndarray]
    others: list[ImaginedFrame]
    joints: tuple[bytes, ...]

    def film(self) -> np.ndarray:
        """Pictures (T, H, W', 3): imagined, by the second model, true, beside each other."""
        height, width = self.frames[0].picture.shape[:2]
        rows = [[each.picture for each in self.frames], [each.picture for each in self.others], self.true]
        sized = [[np.asarray(Image.fromarray(each).resize((width, height))) for each in row] for row in rows if row]
        return np.stack([np.concatenate(pictures, axis=1) for pictures in zip(*sized, strict=True)])

    def track(self, frames: list[ImaginedFrame], pictures: list[np.ndarray], made_by: str) -> Track:
        """The hands as they were told, with pictures (H, W, 3) of what came of it, seen as those of `frames`."""
        joints = [each.joints for each in frames]
        columns = {
            "keypoints_world": np.array([each.keypoints for each in frames], np.float32),
            "keypoints_valid": np.tile(self.begun.keypoints_valid, (len(frames), 1)),
            "joint_targets": None if any(each is None for each in joints) else np.array(joints, np.float32),
        }
        cameras, images = np.stack([each.world_from_camera for each in frames]), ArrayFrames(np.stack(pictures))
        fps = STEPS_PER_SECOND if self.start.folder else float(KitchenEnv.metadata["render_fps"])
        source, seed = f"{self.begun.source}, {made_by}", self.start.seed if self.start.simulated else None
        return Track(cameras, frames[0].intrinsics, columns, fps, images, source, seed=seed)


class PathWriter:
    """Writes paths as episodes, in a folder for each model and one for the truth.

    models: checkpoints, one or two. labels: short names of them.
    """

    def __init__(self, folder: Folder, models: tuple[str, ...]) -> None:
        self.folder, self.models, self._lock = folder, models, threading.Lock()
        names = tuple(Folder(each).name for each in models)
        same = len(set(names)) < len(names)
        self.labels = tuple(f"{name} {number}" for number, name in enumerate(names, 1)) if same else names

    def write(self, path: ImaginedPath, truly: Callable[[tuple[bytes, ...]], Track]) -> list[Folder]:
        """The folders written to. truly: asks the simulator for the true episode.

        Raises ValueError where a folder holds episodes of another model.
        """
        tracks = {}
        for model, label, frames in zip(self.models, self.labels, (path.frames, path.others), strict=False):
            if frames:
                pictures = [each.picture for each in frames]
                name = f"imagined-{label.replace(' ', '-')}"
                tracks[name] = model, path.track(frames, pictures, f"imagined by {model}")
        if path.joints:
            tracks["true"] = "", truly(path.joints)
        elif path.true:
            tracks["true"] = "", path.track(path.frames, path.true, "as recorded")
        with self._lock:
            return [self._append(self.folder / name, *each) for name, each in tracks.items()]

    def _append(self, folder: Folder, model: str, track: Track) -> Folder:
        settings: dict[str, Any] = {"generator": "dexworld.studio", **({"checkpoint": model} if model else {})}
        writer, number = EpisodeWriter(folder, settings), 1
        while writer.has(f"{number:04d}"):
            number += 1
        writer.write(f"{number:04d}", track)
        writer.finish()
        return folder
