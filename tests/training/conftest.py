"""A world small enough to train in seconds: a bright disc, the hand, moves over a dark table."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dexworld.data.datasets import open_dataset
from dexworld.data.recordings import EpisodeWriter
from dexworld.models.config import DexWMConfig, EncoderConfig, KeypointHeadConfig, PredictorConfig
from dexworld.models.world_model import build_world_model
from dexworld.track import Track
from dexworld.training.train_config import TrainConfig
from dexworld.training.train_world_model import RunConfig
from kind_fixtures import config_of
from square_fixtures import episode_of

SIZE = 56  # pixels
FOCAL = 100.0
DEPTH = 1.0


def disc_episode(seed: int, length: int = 20) -> Track:
    """A disc of 8 px radius walks over a 56 x 56 image, up to 4 px a frame."""
    generator = np.random.default_rng(seed)
    path = np.clip(generator.uniform(12, 44, 2) + np.cumsum(generator.uniform(-4, 4, (length, 2)), axis=0), 8, 48)
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    inside = (columns - path[:, :1, None]) ** 2 + (rows - path[:, 1:, None]) ** 2 < 64
    colour = generator.integers(120, 255, 3)
    frames = np.where(inside[..., None], colour, 30).astype(np.uint8)
    keypoints = np.zeros((length, 42, 3))
    keypoints[:, 21:, :2] = ((path - SIZE / 2) / FOCAL * DEPTH)[:, None]
    keypoints[:, 21:, 2] = DEPTH
    valid = np.zeros((length, 42), dtype=bool)
    valid[:, 21:] = True
    body = {"body_world": generator.normal(keypoints[:, :18], 0.02), "body_valid": valid[:, 21:39]}
    episode = episode_of(f"disc {seed}", frames, FOCAL, keypoints, valid, seed, **body)
    return replace(episode, task=f"go {'left' if path[-1, 0] < path[0, 0] else 'right'}")


def small_model() -> DexWMConfig:
    return DexWMConfig(
        image_size=(SIZE, SIZE),
        encoder=EncoderConfig(dim=16, patch=7, downsample=2),
        predictor=PredictorConfig(dim=32, depth=2, heads=2, num_context=3),
        keypoint_head=KeypointHeadConfig(dim=32, depth=1, heads=2, cell=4),
    )


def small_training(**changes) -> TrainConfig:
    defaults = {"steps": 12, "batch_size": 4, "unroll_steps": 2, "warmup_steps": 2, "learning_rate": 3e-3}
    defaults |= {"stride_weights": (1.0, 1.0), "log_every": 4, "validate_every": 6, "checkpoint_every": 4}
    return TrainConfig(**(defaults | {"validation_windows": 8, "validation_rollouts": ((1, 3),)} | changes))


def small_run_config(data, output) -> RunConfig:
    return RunConfig((data,), output, device="cpu", training=small_training(steps=10, checkpoint_every=3))


@pytest.fixture
def small_run():
    return small_run_config


@pytest.fixture
def model_config():
    return small_model()


@pytest.fixture
def make_training():
    return small_training


@pytest.fixture(scope="session")
def disc_data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("discs")
    writer = EpisodeWriter(folder, {"made by": "tests"})
    for seed in range(12):
        writer.write(f"disc-{seed:03d}", disc_episode(seed))
    writer.finish()
    return folder


@pytest.fixture
def make_model(disc_data, model_config):
    """Makes a new world model, always the same, whose encoder is fitted on the discs."""

    def make(kind="dexwm"):
        torch.manual_seed(0)
        model, dataset = build_world_model(config_of(kind, model_config)), open_dataset(disc_data)
        model.encoder.fit([torch.from_numpy(dataset[i].frames.read([0, 9, 19])) for i in range(len(dataset))])
        return model

    return make


@pytest.fixture
def world_model(make_model, tmp_path):
    """The folder of such a model."""
    make_model().save_pretrained(tmp_path / "world-model", {"training_seeds": [[0, 11]]})
    return tmp_path / "world-model"
