"""The recipe of docs/training.md at debug size, through the command line: from video to a fine-tuned model.

Simulated human hands in EgoDex's layout and a simulated gripper in DROID's are inspected, prepared and trained on
together; the model is then fine-tuned on the robot hand.
"""

import json
from pathlib import Path

import pytest
import torch

from dexworld import cli
from dexworld.actions import hand_motion
from dexworld.data.datasets import open_dataset
from dexworld.models.dexwm import DexWM

ROOT = Path(__file__).resolve().parent.parent
HUMAN, GRIPPER, ALLEGRO = 100, 200, 300  # first scenes
SMALL = ["--height", "90", "--width", "160"]
DEBUG = ["--device", "cpu", "--batch-size", "4", "--warmup-steps", "1", "--learning-rate", "0.01", "--ema", "0"]


def dexworld(*words: object) -> None:
    cli.main([str(word) for word in words])


def figures(folder) -> dict:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Recordings `human`, `gripper` and `allegro`, and the stores `human-store` and `gripper-store`."""
    work = tmp_path_factory.mktemp("work")
    recorded = {
        "human": [HUMAN, "human", "--seconds", "1.5", "--act-seconds", "1", *SMALL],
        "gripper": [GRIPPER, "gripper", "--min-frames", "20", "--max-frames", "24", *SMALL],
        "allegro": [ALLEGRO, "allegro", "--frames", "6"],
    }
    for name, (seed, *options) in recorded.items():
        dexworld("collect", "--output", work / name, "--episodes", 2, "--seed", seed, "--workers", 1, *options)
    for name, height in {"human": 80, "gripper": 64}.items():  # other sizes than the model's, and than each other's
        dexworld("inspect", work / name, "--output", work / f"{name}-inspected", "--workers", 1)
        dexworld("prepare", work / name, work / f"{name}-store", "--height", height, "--workers", 1, "--verify", "True")
    return work


def pretrain(work, output, *options):
    dexworld(
        *("train", "--data", work / "human-store", work / "gripper-store", "--mix", "0.75", "0.25", "--output", output),
        *("--preset", "debug", "--windows", "paper", "--rate-hz", "5", "--validation-fraction", "0"),
        *("--steps", "5", "--teacher-forced", "0.6", "--unroll-steps", "2", *DEBUG, *options),
    )
    return output / "model"


@pytest.fixture(scope="module")
def pretrained(work):
    return pretrain(work, work / "pretrained")


@pytest.fixture(scope="module")
def finetuned(work, pretrained):
    dexworld(
        *("train", "--data", work / "allegro", "--initial", pretrained, "--output", work / "finetuned"),
        *("--validation-data", work / "allegro", "--validation-windows", "4", "--validation-rollouts", "1", "2"),
        *("--steps", "3", "--unroll-steps", "2", *DEBUG),
    )
    return DexWM.from_pretrained(work / "finetuned" / "model").eval()


def test_simulated_video_is_recognised_by_its_layout_and_loses_nothing_on_the_way_into_a_store(work):
    for name, kind, seed in (("human", "egodex", HUMAN), ("gripper", "droid", GRIPPER)):
        seen = figures(work / f"{name}-inspected")
        store = open_dataset(work / f"{name}-store")
        assert (seen["kind"], seen["broken"]["count"]) == (kind, 0)
        assert (len(store), store.quarantined, store.seeds) == (2, (), (seed, seed + 1))
        assert sum(store.lengths) == seen["frames"]
        assert store[0].keypoints_valid.any()
    sizes = {open_dataset(work / f"{name}-store")[0].frames.size for name in ("human", "gripper")}
    assert sizes == {(80, 142), (64, 114)}


def test_a_run_on_the_mix_trains_and_says_what_it_has_seen(pretrained):
    model = DexWM.from_pretrained(pretrained)
    assert all(torch.isfinite(each).all() for each in model.state_dict().values())
    assert model.provenance["training_seeds"] == [[HUMAN, HUMAN + 1], [GRIPPER, GRIPPER + 1]]
    assert [each["name"] for each in model.provenance["datasets"]] == ["human-store", "gripper-store"]
    assert model.provenance["loading"]["sampling"]["mix"] == [0.75, 0.25]
    assert model.provenance["loading"]["sampling"]["windows"] == "paper"


def test_training_from_frames_goes_on_after_a_stop_to_the_same_weights(work, pretrained):
    online = ["--latents", "online", "--workers", "0"]
    straight = pretrain(work, work / "straight", *online)
    stopped = pretrain(work, work / "stopped", *online, "--max-seconds", "0.000001")
    assert figures(stopped.parent)["finished"] is False
    assert 0 < figures(stopped.parent)["steps"] < 5
    gone_on = pretrain(work, work / "stopped", *online)
    assert figures(gone_on.parent)["finished"] is True
    weights = (straight / "model.safetensors").read_bytes()
    assert (gone_on / "model.safetensors").read_bytes() == weights
    # Cached latents are the same frames in half precision.
    exact, cached = (DexWM.from_pretrained(folder).state_dict() for folder in (straight, pretrained))
    assert all(torch.equal(exact[name], cached[name]) for name in exact if name.startswith("encoder."))


def test_a_fine_tuned_model_names_its_ancestors_data_beside_its_own(work, finetuned, pretrained):
    seen = finetuned.provenance
    expected = [[ALLEGRO, ALLEGRO + 1], [HUMAN, HUMAN + 1], [GRIPPER, GRIPPER + 1]]
    assert seen["training_seeds"] == expected
    assert [each["name"] for each in seen["datasets"]] == ["allegro"]
    assert [each["name"] for each in seen["initial_provenance"]["datasets"]] == ["human-store", "gripper-store"]
    assert str(work) not in json.dumps(seen)
    assert seen["figures"]["mse_ratio_stride1_step1"] > 0
    ancestor = DexWM.from_pretrained(pretrained)
    assert torch.equal(finetuned.encoder.basis, ancestor.encoder.basis)
    assert not torch.equal(finetuned.predictor.final.weight, ancestor.predictor.final.weight)


def test_a_fine_tuned_model_imagines_the_robot_hand(work, finetuned):
    episode = open_dataset(work / "allegro")[0]
    labels = (episode.keypoints_world, episode.keypoints_valid, episode.world_from_camera, episode.intrinsics)
    tensors = (torch.from_numpy(each)[None] for each in labels)
    motion = hand_motion(*(each.float() if each.is_floating_point() else each for each in tensors))
    images = torch.from_numpy(episode.frames.read([0]))
    with torch.no_grad():
        imagined = finetuned.unroll(finetuned.encode(images)[None], motion)
    rows, columns = finetuned.config.grid
    assert imagined.shape == (1, len(episode) - 1, rows * columns, finetuned.config.encoder.dim)
    assert torch.isfinite(imagined).all()
