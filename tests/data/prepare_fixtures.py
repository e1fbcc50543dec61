"""Tiny sources to prepare, damaged ones among them, and what a finished store consists of."""

import hashlib
import zlib
from pathlib import Path

import numpy as np

from dexworld.data.prepare.job import PrepareConfig
from dexworld.data.recordings import EpisodeWriter
from dexworld.data.store.store_settings import PrepareSettings
from dexworld.track import ArrayFrames, Track

# Pictures of 32 x 48, two episodes to a pack: a whole preparation takes a tenth of a second.
SETTINGS = PrepareSettings(height=32, pack_episodes=2)


def make_episode(number: int, length: int = 9) -> Track:
    """A pattern that moves to the right, hands in front of a camera that moves with it."""
    generator = np.random.default_rng(number)
    grey, colour = generator.integers(30, 200, (4, 6, 1)), generator.integers(0, 30, (4, 6, 3))
    pattern = (grey + colour).astype(np.uint8).repeat(16, axis=0).repeat(16, axis=1)
    frames = np.stack([np.roll(pattern, 2 * time, axis=1) for time in range(length)])
    keypoints = generator.normal(loc=(0.0, 0.0, 2.0), scale=0.3, size=(length, 42, 3))
    valid = generator.random((length, 42)) > 0.2
    keypoints[~valid] = np.nan
    cameras = np.tile(np.eye(4), (length, 1, 1))
    cameras[:, 0, 3] = 0.01 * np.arange(length)
    return Track(
        frames=ArrayFrames(frames),
        fps=10.0,
        world_from_camera=cameras,
        intrinsics=np.array([[60.0, 0, 48], [0, 60, 32], [0, 0, 1]]),
        source=f"test episode {number}",
        task="move",
        seed=number,
        columns={
            "keypoints_world": keypoints,
            "keypoints_valid": valid,
            "object_motion": generator.random(length).astype(np.float32),
        },
    )


def write_source(folder: Path, episodes: int = 7, length: int = 9) -> Path:
    """A dataset of `episodes` episodes, ids e00, e01 ..., each a frame longer than the one before."""
    writer = EpisodeWriter(folder, {"made by": "tests"})
    for number in range(episodes):
        writer.write(f"e{number:02d}", make_episode(number, length + number))
    writer.finish()
    return folder


def damage_frames(source: Path, name: str) -> None:
    """Overwrite an episode's pictures and make its checksums fit, so that only decoding them tells."""
    video, labels = source / "episodes" / f"{name}.mp4", source / "episodes" / f"{name}.npz"
    content = bytearray(video.read_bytes())
    start = content.index(b"mdat") + 4
    end = start - 8 + int.from_bytes(content[start - 8 : start - 4], "big")
    content[start:end] = b"\xff" * (end - start)
    video.write_bytes(content)
    with np.load(labels, allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in archive.files}
    arrays["video_crc32"] = np.int64(zlib.crc32(bytes(content)))
    np.savez_compressed(labels, **arrays)


def config_of(source: Path, destination: Path, **options) -> PrepareConfig:
    """The preparation of a tiny source, in this process."""
    return PrepareConfig(source, destination, **{"settings": SETTINGS, "workers": 1} | options)


def content_of(store: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, hidden ones included."""
    return {
        path.relative_to(store).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(store.rglob("*"))
        if path.is_file()
    }
