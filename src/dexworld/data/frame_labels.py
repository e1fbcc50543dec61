"""The labels of every frame of a dataset as dense arrays, for samplers that keep them in memory."""

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from dexworld.data.episode import Episode
from dexworld.data.source import Dataset
from dexworld.hands import NUM_KEYPOINTS


@dataclass(frozen=True)
class FrameLabels:
    """Labels of N frames of E episodes, as dense arrays.

    keypoints_world: (N, 42, 3) float32 metres, zero where not valid. keypoints_valid: (N, 42) bool.
    world_from_camera: (N, 4, 4) float32. intrinsics: (E, 3, 3) float32, pixels of the stored frame size.
    starts: (E + 1,) int64; episode e owns frames starts[e] to starts[e + 1] (exclusive).
    object_motion: (N,) float32 metres that objects moved since the frame before; zeros when it was not recorded.
    fps: (E,) float64.
    keypoints_shown: (N, 42) bool, see `shown_keypoints`; the valid ones when not given.
    """

    keypoints_world: np.ndarray
    keypoints_valid: np.ndarray
    world_from_camera: np.ndarray
    intrinsics: np.ndarray
    starts: np.ndarray
    object_motion: np.ndarray
    fps: np.ndarray
    keypoints_shown: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.keypoints_shown is None:
            object.__setattr__(self, "keypoints_shown", self.keypoints_valid)
        frames, episodes = int(self.starts[-1]), len(self.starts) - 1
        expected = {
            "keypoints_world": (frames, NUM_KEYPOINTS, 3),
            "keypoints_valid": (frames, NUM_KEYPOINTS),
            "world_from_camera": (frames, 4, 4),
            "intrinsics": (episodes, 3, 3),
            "object_motion": (frames,),
            "fps": (episodes,),
            "keypoints_shown": (frames, NUM_KEYPOINTS),
        }
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"frame labels: {name} has shape {getattr(self, name).shape}, expected {shape}")

    @cached_property
    def episode_of_frame(self) -> np.ndarray:
        """(N,) index of the episode that each frame belongs to."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    @classmethod
    def from_dataset(cls, dataset: Dataset) -> "FrameLabels":
        """Read the labels of every episode, without decoding a frame."""
        columns: dict[str, list[np.ndarray]] = {field.name: [] for field in fields(cls) if field.name != "starts"}
        for index in range(len(dataset)):
            episode = dataset[index]
            valid = episode.keypoints_valid
            columns["keypoints_world"].append(np.where(valid[..., None], episode.keypoints_world, 0).astype(np.float32))
            columns["keypoints_valid"].append(valid)
            columns["keypoints_shown"].append(shown_keypoints(episode))
            columns["world_from_camera"].append(episode.world_from_camera.astype(np.float32))
            columns["intrinsics"].append(episode.intrinsics.astype(np.float32)[None])
            motion = episode.extras.get("object_motion", np.zeros(len(episode)))
            columns["object_motion"].append(np.asarray(motion, dtype=np.float32))
            columns["fps"].append(np.array([episode.fps]))
        return cls(
            starts=np.concatenate([[0], np.cumsum(dataset.lengths)]).astype(np.int64),
            **{name: np.concatenate(parts) for name, parts in columns.items()},
        )


def shown_keypoints(episode: Episode) -> np.ndarray:
    """(T, 42) bool: keypoints that a picture can show, so that keypoint losses and scores count them.

    Valid ones, but those of no confidence where confidences are recorded: a gripper's dummy hand moves as its actions
    say, and is in no picture (DexWM gives DROID no keypoint loss).
    """
    confidence = episode.extras.get("keypoint_confidence")
    if confidence is None:
        return episode.keypoints_valid
    return episode.keypoints_valid & (np.nan_to_num(np.asarray(confidence)) > 0)
