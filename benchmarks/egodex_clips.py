"""Clips in EgoDex's layout to measure readers with: 1080p at 30 frames per second, 1/f texture in motion, both hands.

Decoding cost depends on size, rate and codec settings, hardly on what is shown: H.264 at 6 Mbit/s with key frames 250
frames apart and two B-frames, as head-mounted recorders write it. Texture, discs and noise are made from a seed.
"""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import h5py
import numpy as np

from dexworld.data.readers.egodex import JOINT_NAMES
from dexworld.hands import NUM_KEYPOINTS

FOCAL = 736.6339 / 1920  # of the image's width, as EgoDex states it for 1920 pixels
NOISE_COPIES = 4  # the texture under this many draws of sensor noise, shown in turn
DISCS = 6


@dataclass(frozen=True)
class ClipShape:
    """What is written. textured: 1/f texture with noise; otherwise smooth shading without."""

    seconds: float = 20.0
    height: int = 1080
    width: int = 1920
    fps: int = 30
    bit_rate: int = 6_000_000
    textured: bool = True

    @property
    def frames(self) -> int:
        """Frames of a clip."""
        return round(self.seconds * self.fps)


def write_clips(folder: Path, clips: int, shape: ClipShape = ClipShape(), seed: int = 0) -> None:
    """Write `clips` clips as `folder/part1/benchmark/N.{mp4,hdf5}`."""
    target = folder / "part1" / "benchmark"
    target.mkdir(parents=True, exist_ok=True)
    for number in range(clips):
        generator = np.random.default_rng([seed, number])
        _write_video(target / f"{number}.mp4", generator, shape)
        _write_labels(target / f"{number}.hdf5", generator, shape)


def texture(generator: np.random.Generator, height: int, width: int, smoothness: float) -> np.ndarray:
    """(height, width, 3) uint8 whose amplitude falls as 1 / frequency^smoothness."""
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    falloff = np.maximum(np.hypot(rows, columns), 1.0 / max(height, width)) ** -smoothness
    channels = []
    for _ in range(3):
        noise = np.fft.rfft2(generator.standard_normal((height, width), dtype=np.float32))
        values = np.fft.irfft2(noise * falloff, (height, width))
        channels.append(values / values.std())
    shared = channels[0]  # natural colours vary less than brightness
    picture = np.stack([0.8 * shared + 0.4 * channel for channel in channels], axis=-1)
    return np.clip(127 + 45 * picture, 0, 255).astype(np.uint8)


def _write_video(path: Path, generator: np.random.Generator, shape: ClipShape) -> None:
    margin = 64
    smoothness = 1.0 if shape.textured else 2.0
    ground = texture(generator, shape.height + 2 * margin, shape.width + 2 * margin, smoothness)
    grounds = [ground]
    if shape.textured:
        noisy = (ground + generator.normal(0, 2.5, ground.shape) for _ in range(NOISE_COPIES))
        grounds = [np.clip(each, 0, 255).astype(np.uint8) for each in noisy]
    radius = shape.height // 12
    discs = [texture(generator, 2 * radius, 2 * radius, smoothness) for _ in range(DISCS)]
    side = np.arange(2 * radius) - radius + 0.5
    inside = side**2 + side[:, None] ** 2 < radius**2
    phase, speed = generator.uniform(0, 2 * np.pi, (DISCS + 1, 2)), generator.uniform(0.3, 1.5, (DISCS + 1, 2))
    with av.open(str(path), "w") as container:
        options = {"preset": "veryfast", "g": "250", "bf": "2"}
        stream = container.add_stream("libx264", rate=Fraction(shape.fps), options=options)
        stream.width, stream.height = shape.width, shape.height
        stream.pix_fmt, stream.bit_rate = "yuv420p", shape.bit_rate
        stream.codec_context.thread_count = 1
        for frame in range(shape.frames):
            place = 0.5 + 0.45 * np.sin(phase + speed * frame / shape.fps)  # (DISCS + 1, 2) in [0.05, 0.95]
            top, left = (place[-1] * 2 * margin).astype(int)
            picture = grounds[frame % len(grounds)][top : top + shape.height, left : left + shape.width].copy()
            corners = (place[:-1] * [shape.height - 2 * radius, shape.width - 2 * radius]).astype(int)
            for disc, (row, column) in zip(discs, corners, strict=True):
                picture[row : row + 2 * radius, column : column + 2 * radius][inside] = disc[inside]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _write_labels(path: Path, generator: np.random.Generator, shape: ClipShape) -> None:
    """Poses of a camera that sways and of joints in front of it, one HDF5 array each, as in the dataset."""
    time = np.arange(shape.frames) / shape.fps
    camera = np.tile(np.eye(4, dtype=np.float32), (shape.frames, 1, 1))
    camera[:, 0, 3], camera[:, 1, 3] = 0.02 * np.sin(time), 1.4 + 0.01 * np.sin(0.7 * time)
    centre = np.array([0.0, 1.4, 0.45]) + generator.normal(0, 0.08, (len(JOINT_NAMES), 3)) * [1, 0.7, 0.5]
    with h5py.File(path, "w") as file:
        focal = FOCAL * shape.width
        intrinsics = [[focal, 0, shape.width / 2], [0, focal, shape.height / 2], [0, 0, 1]]
        file.create_dataset("camera/intrinsic", data=np.array(intrinsics, np.float32))
        file.create_dataset("transforms/camera", data=camera)
        for row, name in enumerate(JOINT_NAMES):
            pose = np.tile(np.eye(4, dtype=np.float32), (shape.frames, 1, 1))
            sway = 0.05 * np.sin(time[:, None] * [0.9, 1.1, 0.5] + (row < NUM_KEYPOINTS // 2))
            pose[:, :3, 3] = centre[row] + sway
            file.create_dataset(f"transforms/{name}", data=pose)
            file.create_dataset(f"confidences/{name}", data=np.ones(shape.frames, np.float32))
        file.attrs.update({"task": "benchmark", "llm_description": "hands in motion", "llm_description2": ""})
        file.attrs.update({"which_llm_description": "1", "environment": "synthetic", "object": "", "session_name": ""})
        file.attrs.update({"llm_verbs": ["move"], "llm_objects": ["disc"]})
