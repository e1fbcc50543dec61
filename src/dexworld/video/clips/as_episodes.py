"""Triplet clips as episodes, so that `dexworld train` trains a DexWM on the same human-hand clips as the video model.

A DexWM that imagines a candidate starts from the untouched scene: frame 0 of every episode is therefore that of the
static video, and the hand enters in frame 1. Without it the model would have to start from a picture without hands that
it never saw in training.
"""

import hashlib
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np

from dexworld.data.recordings import EpisodeDataset, EpisodeWriter
from dexworld.track import ArrayFrames, Track
from dexworld.video.clips.clip import TripletClip
from dexworld.video.clips.hand_video import HAND_NOISE_LEVEL
from dexworld.video.clips.triplets import open_triplets

STATIC_EVERY = 4  # clips: of one among them the static video becomes an episode, too; it teaches the camera's motion
logger = logging.getLogger(__name__)


def triplets_as_episodes(root: Path | str, output: Path | str, progress: Any = iter) -> EpisodeDataset:
    """Write every clip of a triplet folder that has hand motions into the episode folder `output`, and open it.

    progress: wraps the iterator of clip indices. Clips without hand motions are left out and counted in the dataset's
    `counts`; episodes that are there stay. Raises ValueError when no clip has hand motions.
    """
    folder = open_triplets(Path(root))
    settings: dict[str, Any] = {"generator": "dexworld.video.as_episodes", "clips": folder.settings}
    settings |= {"clips_fingerprint": folder.fingerprint, "static_every": STATIC_EVERY}
    writer = EpisodeWriter(output, settings)
    without_motion = 0
    for index in progress(range(len(folder))):
        name = episode_name(folder.names[index])
        wanted = [name, f"{name}-static"][: 1 if index % STATIC_EVERY else 2]
        if all(writer.has(each) for each in wanted):
            continue
        clip = folder[index]
        if clip.track is None:
            without_motion += 1
            continue
        for each in wanted:
            writer.write(each, clip_episode(clip, hands=each == name))
    if without_motion:
        logger.warning("%s: %d clips have no hand motions and were left out", root, without_motion)
    dataset = writer.finish({"clips_without_hand_motions": without_motion})
    if not len(dataset):
        raise ValueError(f"{root}: no clip has hand motions (hand_motions/<name>.npz), so there is nothing to train on")
    return dataset


def clip_episode(clip: TripletClip, hands: bool = True) -> Track:
    """The interaction video with its hands and camera, frame 0 being the untouched scene without hands.

    hands: False takes the static video, in which no keypoint is valid. Raises ValueError when the clip has no track.
    """
    track = clip.track
    if track is None:
        raise ValueError(f"clip {clip.name} has no hand motions; an episode needs keypoints and camera poses")
    frames = np.concatenate([clip.static[:1], clip.interaction[1:]]) if hands else clip.static
    valid = track.keypoints_valid & hands
    return Track(
        frames=ArrayFrames(frames),
        fps=clip.fps,
        world_from_camera=np.asarray(track.world_from_camera, dtype=np.float32),
        intrinsics=np.asarray(track.intrinsics, dtype=np.float32),
        source=f"triplet clip {clip.name}",
        task=clip.prompt if hands else "",
        seed=clip.seed,
        columns={
            "keypoints_world": np.where(valid[..., None], track.keypoints_world, 0).astype(np.float32),
            "keypoints_valid": valid,
            "object_motion": changed_share(clip) if hands else np.zeros(len(frames), dtype=np.float32),
        },
    )


def changed_share(clip: TripletClip) -> np.ndarray:
    """(F,) share of the pixels outside the hands that differ from the static video by more than the video's noise.

    It stands in for the metres that objects moved: the trainer only asks whether it is above 0.001, to draw such frames
    more often.
    """
    differs = np.abs(clip.interaction.astype(np.int16) - clip.static).max(axis=-1) > 40
    differs &= clip.hands.max(axis=-1) <= HAND_NOISE_LEVEL
    return differs.mean(axis=(1, 2)).astype(np.float32)


def episode_name(clip_name: str) -> str:
    """An episode id of a clip name, which may hold folders and spaces; different names get different ids."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", clip_name)
    if plain == clip_name and plain[0].isalnum():
        return plain
    return f"clip{plain}-{hashlib.sha256(clip_name.encode()).hexdigest()[:8]}"
