"""Triplets out of the simulator, as many as there are seeds: the stand-in for the paper's TRUMANS renderings.

With `camera="fixed"` for TASTE-Rob: a camera that stands still, a static video that repeats the first frame, and hand
meshes rebuilt from keypoints, with frames in which the hands were not found.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dexworld.data.parallel import parallel_map
from dexworld.sim.hands.hand_clips import HandClip, HandClipConfig, record_hand_clip
from dexworld.sim.kitchen.kitchen_scene import seed_split
from dexworld.sim.render import Backend, choose_backend
from dexworld.track import Track
from dexworld.video.clips.clip import ClipShape, TripletClip
from dexworld.video.clips.hand_video import render_track, repeated_first_frame, skin_colour
from dexworld.video.clips.triplet_files import files_of, write_triplet
from dexworld.video.clips.triplets import TripletFolder, finish_triplets, start_triplets

DROPPED = 0.05  # share of the frames in which a hand detector finds nothing (camera="fixed")


@dataclass(frozen=True)
class SyntheticConfig:
    """Simulated triplets, one scene each, seeds `seed` to `seed + clips - 1`.

    Training seeds are below 900,000, validation seeds 900,000 to 999,999, evaluation seeds from 1,000,000. Raises
    ValueError for a range that crosses them.
    """

    output: Path
    """Triplet folder to write or to complete."""
    clips: int = 500
    """Clips to hold."""
    seed: int = 0
    """First scene."""
    camera: Literal["moving", "fixed"] = "moving"
    """`moving`: a head camera and exact passes. `fixed`: as real video of a standing camera gives it."""
    shape: ClipShape = field(default_factory=ClipShape)
    workers: int = 0
    """Processes; 0 is one per core."""
    backend: Backend = "auto"
    """Renderer; `auto` takes the first that works."""

    def __post_init__(self) -> None:
        if self.clips < 1 or self.seed < 0:
            raise ValueError(f"clips must be >= 1 and seed >= 0, got {self.clips} and {self.seed}")
        last = self.seed + self.clips - 1
        if seed_split(self.seed) != seed_split(last):
            raise ValueError(
                f"seeds {self.seed} to {last} cross from {seed_split(self.seed)} to {seed_split(last)} scenes; "
                "write the splits into folders of their own"
            )

    def recording(self) -> HandClipConfig:
        """How the simulator records these clips."""
        return HandClipConfig(**asdict(self.shape), moving_camera=self.camera == "moving")


def record_triplets(
    config: SyntheticConfig, progress: Callable[[Iterable[str]], Iterable[str]] = iter
) -> TripletFolder:
    """Record the clips that are not in `config.output` yet, in parallel; start it again after a kill and it goes on.

    progress: wraps the names of finished clips; where it ends early, the folder holds the clips that are finished.
    Raises ValueError when the folder holds clips of other settings or of another split's scenes.
    """
    backend: Any = choose_backend(config.backend)
    settings: dict[str, Any] = {"generator": "dexworld.video.synthetic", "camera": config.camera}
    settings["recording"] = asdict(config.recording()) | {"skills": list(config.recording().skills)}
    settings |= {"backend": backend, "mujoco": version("mujoco")}
    seeds = {clip_name(seed): seed for seed in range(config.seed, config.seed + config.clips)}
    start_triplets(config.output, settings, seeds)

    def there(name: str) -> bool:
        return files_of(config.output, name).interaction.exists()

    missing = [seed for name, seed in seeds.items() if not there(name)]
    job = partial(_record_and_write, config=replace(config, backend=backend))
    for _ in progress(parallel_map(job, missing, config.workers, ordered=False)):
        pass
    return finish_triplets(config.output, settings, {name: seed for name, seed in seeds.items() if there(name)})


def clip_name(seed: int) -> str:
    """The name of a seed's clip in a triplet folder."""
    return f"{seed:08d}"


def triplet_of(clip: HandClip, name: str | None = None) -> TripletClip:
    """A simulated clip as a triplet."""
    points, poses, intrinsics = (
        np.asarray(each, dtype=np.float32) for each in (clip.keypoints_world, clip.world_from_camera, clip.intrinsics)
    )
    track = Track(poses, intrinsics, {"keypoints_world": points, "keypoints_valid": clip.keypoints_valid})
    videos = clip.interaction, clip.static, clip.hands
    skin = skin_colour(clip.hands[0], clip.interaction[0])
    return TripletClip(name or clip_name(clip.seed), *videos, clip.prompt, clip.fps, track, clip.seed, skin)


def as_fixed_camera(clip: TripletClip) -> TripletClip:
    """The clip as real video of a standing camera would give it, drawn from the clip's seed."""
    assert clip.track is not None
    assert clip.seed is not None
    lost = np.random.default_rng([clip.seed, 21]).random(len(clip.track)) < DROPPED
    track = clip.track.with_columns(keypoints_valid=clip.track.keypoints_valid & ~lost[:, None])
    hands = render_track(track, *clip.interaction.shape[1:3])
    return replace(clip, static=repeated_first_frame(clip.interaction[None])[0], hands=hands, track=track)


def _record_and_write(seed: int, config: SyntheticConfig) -> str:
    clip = triplet_of(record_hand_clip(seed, config.recording(), config.backend))
    write_triplet(config.output, clip if config.camera == "moving" else as_fixed_camera(clip))
    return clip.name
