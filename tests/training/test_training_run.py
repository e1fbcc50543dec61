"""A whole run: dataset folders in, a model folder with its provenance out."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from process_fixtures import RECORD

from dexworld.data.datasets import open_dataset
from dexworld.data.frame_labels import FrameLabels
from dexworld.data.latent_cache import LatentCache
from dexworld.data.recordings import EpisodeWriter
from dexworld.data.sampling import StrideSampling
from dexworld.data.windows import WindowSampler
from dexworld.models.conditioning import action_scale
from dexworld.models.dexwm import DexWM
from dexworld.models.reference import checkpoint_path
from dexworld.models.world_model import load_world_model
from dexworld.training.checkpoints import ResumeError
from dexworld.training.estimate import plan_run
from dexworld.training.fit import code_version
from dexworld.training.run_data import split_by_scene
from dexworld.training.train_evaluator import EvaluatorRunConfig, train_evaluator
from dexworld.training.train_world_model import RunConfig, initial_model, train
from kind_fixtures import KINDS, config_of
from square_fixtures import episode_of


@pytest.fixture
def data(disc_data, tmp_path):
    shutil.copytree(disc_data, tmp_path / "data", ignore=shutil.ignore_patterns("latents"))
    return tmp_path / "data"


@pytest.fixture
def make_run(data, tmp_path, make_training):
    def make(**changes):
        settings = {"data": (data,), "output": tmp_path / "run", "validation_fraction": 0.2, "device": "cpu"}
        return RunConfig(**(settings | {"training": make_training(steps=6)} | changes))

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_leaves_a_model_its_provenance_curve_and_results(make_run, model_config, tmp_path, kind):
    model_config = config_of(kind, model_config)
    folder = train(make_run(), model_config)
    model = load_world_model(folder)
    assert (model.kind, type(model.config)) == (kind, type(model_config))
    assert type(model_config).__name__ in (folder / "README.md").read_text() or kind == "dexwm"
    provenance = model.provenance
    assert provenance["training_seeds"] == [[0, 11]]
    assert provenance["datasets"][0]["episodes"] == 12
    assert provenance["datasets"][0]["quarantined"] == 0
    assert provenance["finished"] is True
    assert provenance["code"] == code_version()
    assert provenance["figures"].keys() >= {"mse_ratio_stride1_step1", "mse_ratio_stride1_step3", "pck20_true_latents"}
    assert str(tmp_path) not in json.dumps(provenance)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["validation"] == provenance["figures"]
    assert results["steps"] == 6
    curve = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {"loss", "latents", "learning_rate", "samples_per_second"} <= curve[0].keys()
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    assert (model.config.action_scale != model_config.action_scale) == (kind not in ("action-free", "text"))


def test_a_corrupt_episode_is_left_out_counted_and_told(data, make_run, model_config, caplog):
    path = data / "episodes" / "disc-003.npz"
    path.write_bytes(path.read_bytes()[:100])
    provenance = DexWM.from_pretrained(train(make_run(), model_config)).provenance
    assert provenance["datasets"][0]["episodes"] == 11
    assert provenance["datasets"][0]["quarantined"] == 1
    assert "disc-003" in caplog.text


def test_training_can_start_from_the_shipped_checkpoint_by_its_name(make_run):
    model = initial_model(make_run(initial="reference"), None, [], torch.device("cpu"))
    assert model.config == DexWM.from_pretrained(checkpoint_path("reference")).config


def test_a_model_trained_on_keeps_its_config_and_names_each_scene_once(make_run, model_config, tmp_path):
    folder = train(make_run(), model_config)
    further = DexWM.from_pretrained(train(make_run(initial=str(folder), output=tmp_path / "further")))
    assert further.config == DexWM.from_pretrained(folder).config
    assert further.provenance["initial"] == "model"
    assert further.provenance["training_seeds"] == [[0, 11]]


def test_a_folder_of_a_run_with_other_settings_is_refused_before_anything_is_encoded(make_run, model_config, tmp_path):
    train(make_run(), model_config)
    cache = {"cache": tmp_path / "other place"}
    with pytest.raises(ResumeError, match=r"loading\.latents is 'online', it was 'cached'"):
        train(make_run(latents="online"), model_config)
    with pytest.raises(ResumeError, match=r"validation_fraction is 0\.5, it was 0\.2"):
        train(make_run(validation_fraction=0.5, **cache), model_config)
    assert not (tmp_path / "other place").exists()


@pytest.mark.parametrize(
    ("valid", "hand", "camera", "said"),
    [(0, 1, 0, "no valid keypoint"), (1, 0, 0, "no keypoint that moves"), (0, 1, 1, None), (1, 1, 0, None)],
)
def test_data_in_which_nothing_acts_is_refused_before_anything_is_encoded(
    tmp_path, make_run, model_config, caplog, valid, hand, camera, said
):
    writer = EpisodeWriter(tmp_path / "still", {"made by": "tests"})
    for seed in range(4):
        shift = np.linspace(0, 0.1, 12)[:, None, None]
        keypoints = np.zeros((12, 42, 3)) + [0, 0, 1] + hand * shift
        pictures = np.random.default_rng(seed).integers(0, 255, (12, 56, 56, 3), dtype=np.uint8)
        episode = episode_of(f"{seed}", pictures, 100.0, keypoints, np.full((12, 42), bool(valid)), seed)
        poses = episode.world_from_camera.copy()
        poses[:, 0, 3] += camera * shift[:, 0, 0]
        writer.write(f"{seed}", replace(episode, world_from_camera=poses))
    run = make_run(data=(writer.finish().folder,), training=make_run().training)
    if said is None:
        assert train(run, model_config).exists()
        assert ("camera's motion is the only action" in caplog.text) == bool(camera)
        return
    with pytest.raises(ValueError, match=rf"still: 512 windows hold {said}, and the camera stands still"):
        train(run, model_config)
    assert not (tmp_path / "still" / "latents").exists()
    with pytest.raises(ValueError, match="all actions are zero"):
        plan_run(run)
    if not valid:
        options = {"data": run.data, "output": tmp_path / "evaluator", "encoder_preset": "debug", "device": "cpu"}
        with pytest.raises(ValueError, match="512 frames hold no valid keypoint"):
            train_evaluator(EvaluatorRunConfig(**options, encoder_frames=20))


def test_held_out_data_of_its_own_is_used_instead_of_a_fraction(make_run, model_config, disc_data):
    folder = train(make_run(validation_data=(disc_data,)), model_config)
    provenance = DexWM.from_pretrained(folder).provenance
    assert provenance["validation_episodes"] == 12
    assert provenance["datasets"][0]["training_episodes"] == 12


def test_scenes_are_held_out_whole_and_always_the_same(data):
    dataset = replace(open_dataset(data), episode_seeds=(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5))
    [training], [held_out] = split_by_scene([dataset], 0.5)
    assert sorted([*training, *held_out]) == list(range(12))
    assert len(held_out) in range(2, 11)
    assert {index // 2 for index in training}.isdisjoint(index // 2 for index in held_out)
    np.testing.assert_array_equal(split_by_scene([dataset], 0.5)[1][0], held_out)
    assert len(split_by_scene([dataset], 0.0)[1][0]) == 0


def test_the_action_scale_is_the_root_mean_square_of_what_moves(model_config):
    frames = 100
    records = np.zeros(frames, RECORD)
    records["keypoints_world"][:, 21:, 0] = 0.03 * np.arange(frames)[:, None]  # 3 cm along one of three axes
    records["keypoints_valid"][:, 21:] = True
    records["world_from_camera"] = np.eye(4)
    labels = FrameLabels(records, np.array([0, frames]), np.eye(3, dtype=np.float32)[None], np.array([5.0]))
    cache = LatentCache(None, np.zeros((frames, 16, 16), np.float16), labels)
    config = StrideSampling(frames=4, history=3, stride_weights=(1.0,), short_history=0.5)
    window = WindowSampler([cache], config, seed=0).batch(0, 512)
    moving = window.slots[1:] > window.repeats[:, None]
    scale = action_scale(DexWM(model_config).condition(window.track), window.track.keypoints_valid, moving)
    assert scale == pytest.approx((0.03 / np.sqrt(3), 0.01, 0.01), rel=1e-3)
