"""Decoder and evaluator under a launcher: two processes end where one does, within rounding."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from process_fixtures import Run, state_of

from dexworld.models.config import KeypointHeadConfig
from dexworld.models.decoder import DecoderConfig
from dexworld.training.decoder_objective import DecoderTrainConfig
from dexworld.training.train_decoder import DecoderRunConfig, train_decoder
from dexworld.training.train_evaluator import EvaluatorRunConfig, EvaluatorTrainConfig, train_evaluator


def decoder_run(data, checkpoint, output):
    schedule = {"steps": 4, "warmup_steps": 1, "discriminator_start": 0.25, "adversarial_start": 0.5}
    sizes = {"batch_size": 4, "discriminator_channels": 8, "validation_pictures": 2}
    training = DecoderTrainConfig(log_every=1, **schedule, **sizes)
    config = DecoderRunConfig((data,), output, checkpoint=checkpoint, workers=0, device="cpu", training=training)
    train_decoder(config, DecoderConfig(dim=32, depth=1, heads=2, mlp_ratio=2))


def evaluator_run(data, checkpoint, output):
    training = EvaluatorTrainConfig(steps=3, batch_size=4, warmup_steps=1, log_every=1, validation_frames=2)
    config = EvaluatorRunConfig((data,), output, checkpoint=checkpoint, workers=0, device="cpu", training=training)
    train_evaluator(config, KeypointHeadConfig(dim=32, depth=1, heads=2, cell=4))


@pytest.mark.parametrize("work", [decoder_run, evaluator_run])
def test_two_processes_end_where_one_does(work, disc_data, tmp_path, world_model):
    for name, count in (("one", 0), ("two", 2)):
        Run(tmp_path / "errors", count, work, disc_data, str(world_model), tmp_path / name).succeed()
    curves = []
    for name in ("one", "two"):
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        curves.append([row["loss"] for row in map(json.loads, lines) if "loss" in row])
    assert len(curves[0]) == len(curves[1]) > 2
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-4)
    first, second = (state_of(next((tmp_path / name / "checkpoints").glob("step-*"))) for name in ("one", "two"))
    assert first.keys() == second.keys()
    for name, value in first.items():
        if name.startswith("weights/"):
            torch.testing.assert_close(second[name], value, rtol=1e-3, atol=5e-5, msg=name)
