"""Every family of pretrained encoders from a checkpoint folder to a plan: encode, train, roll out, plan."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from dexworld import cli
from dexworld.data.datasets import open_dataset
from dexworld.data.recordings import EpisodeWriter
from dexworld.data.resize import resized
from dexworld.models.dexwm import DexWM
from dexworld.planning.cem import CEM
from dexworld.planning.mpc import MPCPolicy
from dexworld.planning.mpc_config import MPCConfig
from dexworld.planning.objectives import KeypointPixels, LatentDistance
from dexworld.robots.franka_allegro import FrankaAllegro
from dexworld.robots.observation import Observation
from dexworld.track import ArrayFrames, Track
from encoder_fixtures import DIM, FAMILIES, FIVE, SIZES, lite0_weights, save_lite0, save_tiny

HEIGHT, WIDTH, FRAMES = 224, 392, 8
REST = np.array([0.0, -0.6, 0.0, -2.3, 0.0, 1.8, 0.8] + [0.1, 0.4, 0.4, 0.4] * 3 + [0.8, 0.4, 0.4, 0.4])
INTRINSICS = np.array([[146.0, 0.0, 196.0], [0.0, 146.0, 112.0], [0.0, 0.0, 1.0]])
WORLD_FROM_CAMERA = np.array([[0.0, -0.6, 0.8, -0.3], [-1.0, 0.0, 0.0, 0.0], [0.0, -0.8, -0.6, 0.9], [0, 0, 0, 1.0]])


@dataclass
class Seen:
    """What the toy camera saw of a moving arm: joints (T, 23), images (T, H, W, 3), keypoints (T, 42, 3)."""

    joints: np.ndarray
    images: np.ndarray
    keypoints: np.ndarray
    valid: np.ndarray


def moving_arm(seed: int) -> Seen:
    """An arm that wanders, in front of blocks of random colours; each visible keypoint is a white square."""
    random = np.random.default_rng(seed)
    joints = REST + np.cumsum(random.normal(0, 0.05, (FRAMES, 23)), axis=0)
    keypoints = FrankaAllegro().forward(torch.tensor(joints)).keypoints.numpy()
    valid = np.isfinite(keypoints).all(-1) & (np.abs(keypoints).sum(-1) > 0)
    blocks = random.integers(0, 200, (7, 14, 3), dtype=np.uint8).repeat(32, axis=0).repeat(28, axis=1)
    images = np.tile(blocks, (FRAMES, 1, 1, 1))
    camera_from_world = np.linalg.inv(WORLD_FROM_CAMERA)
    for image, points in zip(images, keypoints, strict=True):
        in_camera = points @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]
        for u, v in (in_camera[:, :2] / in_camera[:, 2:] @ INTRINSICS[:2, :2] + INTRINSICS[:2, 2]).astype(int):
            image[max(v - 4, 0) : max(v + 4, 0), max(u - 4, 0) : max(u + 4, 0)] = 255
    return Seen(joints, images, keypoints, valid)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("arm")
    writer = EpisodeWriter(folder, {"made by": "tests"})
    for seed in range(2):
        seen = moving_arm(seed)
        episode = Track(
            frames=ArrayFrames(seen.images),
            fps=5.0,
            world_from_camera=np.tile(WORLD_FROM_CAMERA, (FRAMES, 1, 1)),
            intrinsics=INTRINSICS,
            source=f"arm {seed}",
            seed=seed,
            columns={"keypoints_world": seen.keypoints, "keypoints_valid": seen.valid},
        )
        writer.write(f"arm-{seed}", episode)
    writer.finish()
    return folder


def test_a_cnn_is_fitted_trained_on_and_kept_in_the_checkpoint(data: Path, tmp_path: Path, monkeypatch) -> None:
    save_lite0(tmp_path / "packages", lite0_weights())
    monkeypatch.syspath_prepend(tmp_path / "packages")
    words = ["train", "--data", data, "--output", tmp_path / "run", "--preset", "debug", "--encoder", "lite0-block10"]
    words += ["--steps", 1, "--batch-size", 2, "--warmup-steps", 0, "--validation-fraction", 0, "--device", "cpu"]
    cli.main([str(word) for word in words])
    model = DexWM.from_pretrained(tmp_path / "run" / "model")
    assert (model.config.image_size, model.config.encoder.dim) == (SIZES[16], 448)
    images = resized(open_dataset(data), SIZES[16])[1].frames.read([0, 4])
    latents = model.encode(torch.from_numpy(images))
    assert latents.shape == (2, 84, 448)
    assert 0.5 < float(latents.std()) < 2.0


def observation(seen: Seen, frame: int) -> Observation:
    joints = seen.joints[frame]
    return Observation(seen.images[frame], joints, WORLD_FROM_CAMERA, INTRINSICS, np.eye(4), joints)


@pytest.mark.parametrize("kind", FIVE)
def test_an_encoder_goes_from_its_folder_to_a_plan(kind: str, data: Path, tmp_path: Path, monkeypatch) -> None:
    size = SIZES[FAMILIES[kind][1]]
    source = save_tiny(kind, tmp_path / "encoder")
    words = ["train", "--data", data, "--output", tmp_path / "run", "--preset", "debug"]
    words += ["--encoder", f"./{source.name}"]
    monkeypatch.chdir(source.parent)
    words += ["--steps", 2, "--teacher-forced", 0.5, "--unroll-steps", 1, "--batch-size", 2, "--warmup-steps", 0]
    words += ["--validation-fraction", 0, "--ema", 0, "--device", "cpu", "--encoder-precision", "bfloat16"]
    cli.main([str(word) for word in words])

    monkeypatch.chdir("/")  # where the relative path leads nowhere
    model = DexWM.from_pretrained(tmp_path / "run" / "model").eval()
    assert model.config.image_size == size
    assert model.config.encoder.source == str(source)
    assert model.predictor.project_in.in_features == DIM  # its width is not the predictor's
    # Both layers behind the zeros of a new model have moved.
    assert float(model.predictor.project_out.weight.detach().abs().max()) > 0

    episode = resized(open_dataset(data), size)[1]
    images = torch.from_numpy(episode.frames.read(list(range(FRAMES))))
    latents = model.encode(images)
    assert latents.shape == (FRAMES, model.config.grid[0] * model.config.grid[1], DIM)

    config = MPCConfig(horizon=2, image_size=size)
    objective = LatentDistance() + 0.001 * KeypointPixels()
    policy = MPCPolicy(model, FrankaAllegro(), objective, CEM(samples=4, elites=2, iterations=2), config)
    seen = moving_arm(3)
    policy.reset(seen.images[-1])
    for frame in range(2):
        assert np.isfinite(policy.act(observation(seen, frame))).all()
        assert policy.statistics[-1].model_candidates >= 8
        assert policy.statistics[-1].terms["latents"] > 0
    assert policy.goal.image_size == size
    assert policy.imagined.latents is not None
    assert policy.imagined.latents.shape == (1, 1, *latents.shape[1:])
    assert torch.isfinite(policy.imagined.latents).all()
    source.rename(tmp_path / "moved")
    with pytest.raises(ValueError, match=rf"{source}', taken as a folder: it is not there. Put it back"):
        DexWM.from_pretrained(tmp_path / "run" / "model")
