"""What is measured on the data before training: the pca encoder and the scale of actions."""

import hashlib
import json
import logging
from collections.abc import Iterator

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dexworld.actions import hand_motion
from dexworld.data.files import written_atomically
from dexworld.data.source import Dataset
from dexworld.hands import NUM_KEYPOINTS
from dexworld.models.config import DexWMConfig
from dexworld.models.encoders import Encoder, PCAEncoder, build_encoder
from dexworld.training.window_task import WindowSource

logger = logging.getLogger(__name__)
FIT_WINDOWS = 512  # windows that the action scale is measured on
SMALLEST_SCALE = 0.01  # metres or radians; a camera that never moves has no scale of its own


def fitted_encoder(
    config: DexWMConfig, datasets: list[Dataset], frames: int, seed: int, device: torch.device
) -> dict[str, Tensor]:
    """State of a pca encoder fitted on about `frames` frames of all datasets.

    It is kept beside the first dataset's latents and read from there when the same fit is asked for again. Raises
    ValueError when that file is damaged.
    """
    settings = [config.encoder.identity(), config.image_size, frames, seed]
    content = json.dumps([*settings, *(dataset.fingerprint for dataset in datasets)])
    key = hashlib.sha256(content.encode()).hexdigest()
    path = datasets[0].folder / "latents" / f"encoder-{key[:16]}.safetensors"
    if path.exists():
        try:
            return load_file(path)
        except (safetensors.SafetensorError, OSError) as error:
            raise ValueError(f"{path} is damaged ({error}); delete it to fit the encoder anew") from error
    encoder = build_encoder(config.encoder, config.image_size)
    assert isinstance(encoder, PCAEncoder)
    encoder.to(device).fit(images.to(device) for images in _sampled_frames(datasets, frames, seed))
    logger.info("fitted the pca encoder: %.1f %% of the variance is kept", 100 * float(encoder.explained_variance))
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: value.cpu().contiguous() for name, value in encoder.state_dict().items()}
    with written_atomically(path) as temporary:
        save_file(state, temporary)
    return state


def _sampled_frames(datasets: list[Dataset], count: int, seed: int) -> Iterator[Tensor]:
    """Batches (N, H, W, 3) uint8 of about `count` frames in all, at most eight from an episode drawn at random."""
    generator = np.random.default_rng([seed, 1])
    episodes = [(dataset, index) for dataset in datasets for index in range(len(dataset))]
    per_episode = max(1, min(8, count // len(episodes)))
    chosen = generator.permutation(len(episodes))[: max(1, count // per_episode)]
    for place in chosen:
        dataset, index = episodes[place]
        frames = dataset[index].frames
        picked = generator.choice(len(frames), size=min(per_episode, len(frames)), replace=False)
        yield torch.from_numpy(frames.read(sorted(picked.tolist())))


def encoder_fingerprint(encoder: Encoder) -> str:
    """Identifies an encoder by its configuration and weights; 64 hexadecimal digits."""
    digest = hashlib.sha256(json.dumps([encoder.config.identity(), encoder.image_size]).encode())
    for name, value in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def fit_action_scale(source: WindowSource, config: DexWMConfig) -> tuple[float, float, float]:
    """Root mean square of keypoint displacements (metres), camera translations (metres) and rotations (radians)."""
    window = source.batch(0, FIT_WINDOWS)
    motion = hand_motion(
        window.track.keypoints_world,
        window.track.keypoints_valid,
        window.track.world_from_camera,
        window.track.intrinsics,
        config.action_convention,
    )
    moving = window.slots[1:] > window.repeats[:, None]  # (B, T)
    both_valid = window.track.keypoints_valid[:, 1:] & window.track.keypoints_valid[:, :-1] & moving[..., None]
    parts = (
        motion.deltas[:, :, :NUM_KEYPOINTS][both_valid],
        motion.deltas[:, :, NUM_KEYPOINTS][moving],
        motion.deltas[:, :, NUM_KEYPOINTS + 1][moving],
    )
    scales = [float(part.square().mean().sqrt()) if part.numel() else 0.0 for part in parts]
    keypoints, translation, rotation = (float(f"{max(scale, SMALLEST_SCALE):.4g}") for scale in scales)
    return keypoints, translation, rotation
