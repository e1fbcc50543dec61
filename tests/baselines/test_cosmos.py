"""Cosmos' video pipelines behind the seam of world models: what they are told, and what refuses what."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")
from cosmos_fixtures import MODULES, Permissive, tiny_pipeline

from dexworld import cli
from dexworld.baselines import cosmos_pipeline
from dexworld.baselines.cosmos_pipeline import PUBLISHED, video_cost
from dexworld.baselines.world_models.cosmos import Cosmos, VideoOptions
from dexworld.data.recordings import EpisodeWriter
from dexworld.models.checkpoint import CheckpointError
from dexworld.models.config import PRESETS
from dexworld.models.dexwm import DexWM
from dexworld.models.world_model import WorldModel, load_world_model
from square_fixtures import square_episode, square_frames

FIRST = 914_000  # validation scene
SMALL = VideoOptions(steps=2, video_size=(16, 32), frames=9, fps=10)
TASKS = ("take the red cup", "put it down")


@pytest.fixture(autouse=True)
def checker(monkeypatch):
    for module in MODULES.values():
        monkeypatch.setattr(module, "CosmosSafetyChecker", Permissive)


@pytest.fixture(scope="module", params=MODULES)
def folder(request, tmp_path_factory):
    return tiny_pipeline(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def predict2(tmp_path_factory):
    return tiny_pipeline("predict2", tmp_path_factory.mktemp("pipeline"))


def episodes():
    """Three of two seconds at 10 Hz, the last with the first one's sentence."""
    corners = np.clip(30 + np.cumsum(np.random.default_rng(0).integers(-4, 5, (3, 45, 2)), axis=1), 2, 80)
    made = [square_episode(FIRST + index, each, square_frames(each)) for index, each in enumerate(corners)]
    return [replace(each, task=task, fps=10.0) for each, task in zip(made, (*TASKS, TASKS[0]), strict=True)]


@pytest.fixture(scope="module")
def other():
    """The model that Cosmos is compared with."""
    torch.manual_seed(0)
    config = PRESETS["debug"]
    size = episodes()[0].frames.size
    encoder = replace(config.encoder, patch=8, downsample=1)
    model = DexWM(replace(config, image_size=size, encoder=encoder)).eval()
    model.encoder.fit([torch.from_numpy(each.frames.read([0, 5])) for each in episodes()])
    model.provenance = {"training_seeds": [0, 9]}
    return model


def rolled_out(model: Cosmos, episode, steps: int = 3, fps: float = 5.0, task: str | None = None):
    track = replace(episode.at(slice(0, steps + 1)), fps=fps, task=episode.task if task is None else task).tensors()
    track = track.with_columns(task_utf8=torch.from_numpy(np.array(track.task_utf8)))
    latents = model.encode(torch.from_numpy(episode.frames.read([0])))
    motion = model.condition(track)
    return model.rollout(model.start(latents, motion.slice(0, 0)), motion.expand(1))[0]


def test_frames_and_a_sentence_become_latents_of_the_other_model_by_both_pipelines(folder, other):
    model, episode = Cosmos.beside(other, folder, SMALL), episodes()[0]
    assert isinstance(model, WorldModel)
    images = torch.from_numpy(episode.frames.read([0, 1]))
    assert torch.equal(model.encode(images), other.encode(images))
    assert torch.equal(model.encode(images[0]), other.encode(images[0]))
    latents = rolled_out(model, episode)
    assert latents.shape == (3, *other.encode(images).shape[1:])
    assert torch.isfinite(latents).all()
    assert torch.equal(latents, rolled_out(model, episode)), "a seed and a picture give the same video"
    assert not torch.equal(latents, rolled_out(model, episode, task=TASKS[1]))
    assert not torch.equal(latents, rolled_out(Cosmos.beside(other, folder, replace(SMALL, seed=1)), episode))
    assert len(model.video_seconds) == 3
    assert model.cost()["videos"] == 3


def test_steps_take_the_frames_nearest_in_time_and_long_roll_outs_go_on(predict2, other, monkeypatch):
    model, episode = Cosmos.beside(other, predict2, SMALL), episodes()[0]
    began = []

    def counted(picture, text, generator):
        """A video whose brightness counts its frames: 10, 11, ... and on from where the last one ended."""
        first = np.asarray(picture).mean().round() if began else 10
        began.append(first)
        return np.ones((9, 16, 32, 3), np.float32) * ((first + np.arange(9)) / 255)[:, None, None, None]

    monkeypatch.setattr(model, "_video", counted)
    monkeypatch.setattr(model.encoder, "encode", lambda images: images.float().mean((-3, -2, -1))[:, None, None])
    picture = torch.from_numpy(episode.frames.read([0])[0])
    for rate, steps, frames in ((5.0, 3, [12, 14, 16]), (3.0, 3, [13, 17, 20]), (10.0, 10, [*range(11, 21)])):
        began.clear()
        motion = model.condition(replace(episode.at(slice(0, steps + 1)), fps=rate).tensors())
        assert model.rollout(picture, motion.expand(2)).flatten(1).tolist() == [frames, frames]
        assert len(began) == (2 if frames[-1] > 18 else 1)


def test_a_roll_out_starts_from_a_picture_that_was_encoded_and_needs_a_rate(predict2, other):
    model, episode = Cosmos.beside(other, predict2, SMALL), episodes()[0]
    motion = model.condition(episode.at([0, 1]).tensors())
    latents = model.encode(torch.from_numpy(episode.frames.read([*range(40)] * 7)))
    assert torch.equal(model.start(latents[:3], motion), torch.from_numpy(episode.frames.read([2])[0]))
    with pytest.raises(ValueError, match="these latents are of none of the"):
        model.start(latents[:1] + 1, motion)
    with pytest.raises(ValueError, match="has no frame rate"):
        model.condition(replace(episode.at([0, 1]).tensors(), fps=0.0))
    with pytest.raises(ValueError, match="dexworld doesn't train it"):
        model.predict(latents[None], motion)


def test_a_sentence_that_the_safety_checker_refuses_is_an_error(predict2, other, monkeypatch):
    monkeypatch.setattr(Permissive, "refused", "cup")
    with pytest.raises(ValueError, match="unsafe text"):
        rolled_out(Cosmos.beside(other, predict2, SMALL), episodes()[0])


def test_the_open_loop_command_measures_a_checkpoint_and_goes_on_after_a_stop(predict2, other, tmp_path):
    other.save_pretrained(tmp_path / "other")
    writer = EpisodeWriter(tmp_path / "data", {"made by": "tests"})
    for episode in episodes():
        writer.write(f"{episode.seed:08d}", episode)
    writer.finish()
    small = ["--steps", "2", "--video-size", "16", "32", "--frames", "13", "--fps", "10"]
    made = ["cosmos", "--pipeline", str(predict2), "--checkpoint", str(tmp_path / "other"), *small]
    cli.main([*made, "--output", str(tmp_path / "model")])
    loaded = load_world_model(tmp_path / "model")
    assert loaded.config.video == VideoOptions(2, 7.0, (16, 32), 13, 10)
    assert loaded.provenance["training_seeds"] == [0, 9]
    words = f"evaluate open-loop --checkpoint {tmp_path / 'model'} --data {tmp_path / 'data'} --seed {FIRST}"
    words += " --split validation --evaluator own --episodes 3 --rate-hz 2 --output "
    figures = []
    for output in ("once", "twice"):
        cli.main([*words.split(), str(tmp_path / output)])
        figures.append(json.loads((tmp_path / output / "results.json").read_text(encoding="utf-8")))
        if output == "once":  # as after a stop
            (tmp_path / "twice").mkdir()
            lines = (tmp_path / "once" / "episodes.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
            (tmp_path / "twice" / "episodes.jsonl").write_text("".join(lines[:-1]), encoding="utf-8")
    costs = [each.pop("cost") for each in figures]
    assert figures[0] | {"run": None} == figures[1] | {"run": None}
    assert figures[0]["mae_4s"] > 0
    assert costs[1]["videos"] < costs[0]["videos"] <= 3 * 2 * 4  # four parts of 12 new frames make four seconds
    assert costs[0]["seconds_each"] > 0
    words = f"imagine --checkpoint {tmp_path / 'model'} --data {tmp_path / 'data'} --steps 2"
    cli.main([*words.split(), "--output", str(tmp_path / "imagined")])
    moved = json.loads((tmp_path / "imagined" / "results.json").read_text(encoding="utf-8"))
    assert moved["up"]["latent_change"] == moved["down"]["latent_change"] > 0, "it is told no hand"


def test_what_is_no_video_pipeline_is_named(tmp_path, other, capsys):
    said = {}
    for name, index in {"none": None, "image": {"_class_name": "Cosmos2TextToImagePipeline"}}.items():
        (tmp_path / name).mkdir()
        if index:
            (tmp_path / name / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
        with pytest.raises(CheckpointError) as error:
            Cosmos.beside(other, tmp_path / name)
        said[name] = str(error.value)
    assert "none holds no model_index.json; give a folder that diffusers' `save_pretrained` wrote" in said["none"]
    assert "holds a Cosmos2TextToImagePipeline; a video of a frame is made by Cosmos2Video" in said["image"]
    with pytest.raises(SystemExit):
        cli.main(["cosmos", "--pipeline", str(tmp_path / "missing"), "--output", str(tmp_path / "out")])
    assert "missing holds no model_index.json" in capsys.readouterr().err


def test_packages_that_are_missing_are_named_before_anything_large_is_read(predict2, other, monkeypatch):
    model, episode = Cosmos.beside(other, predict2, SMALL), episodes()[0]

    def refuse():
        raise ImportError("`cosmos_guardrail` is not installed")

    monkeypatch.setattr(MODULES["predict2"], "CosmosSafetyChecker", refuse)
    with pytest.raises(ImportError, match="cosmos_guardrail"):
        rolled_out(model, episode)
    settings = cosmos_pipeline.part_settings(predict2, "transformer") | {"concat_padding_mask": True}
    monkeypatch.setattr(cosmos_pipeline, "part_settings", lambda folder, part: settings)
    monkeypatch.setattr(cosmos_pipeline.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install torchvision"):
        rolled_out(model, episode)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ImportError, match=r"pip install 'dexworld\[video\]'"):
        rolled_out(model, episode)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"steps": 0}, "steps, fps and guidance are 1 or more"),
        ({"guidance": 0.5}, "steps, fps and guidance are 1 or more"),
        ({"video_size": (720, 1280)}, None),
        ({"video_size": (700, 1280)}, "must be multiples of 16"),
        ({"frames": 92}, "give 5, 9, 13"),
    ],
)
def test_options_that_make_no_sense_are_refused(wrong, says):
    if says is None:
        VideoOptions(**wrong)
    else:
        with pytest.raises(ValueError, match=says):
            VideoOptions(**wrong)


def test_a_dry_run_counts_what_the_published_transformers_have(capsys, tmp_path):
    small = {"video_size": (32, 64), "frames": 5, "steps": 1, "guided": False}
    assert set(PUBLISHED) == {"2b", "14b"}
    costs = {size: video_cost(size, **small) for size in PUBLISHED}
    # The model cards say 2B and 14B; T5-11B's encoder has 4.76 B and its table of words.
    assert costs["2b"].parameters["transformer"] == pytest.approx(1.956e9, rel=1e-3)
    assert costs["14b"].parameters["transformer"] == pytest.approx(14.27e9, rel=1e-3)
    assert costs["2b"].parameters["text_encoder"] == pytest.approx(4.86e9, rel=1e-3)
    tokens, width, text = 2 * 2 * 4, 2048, 512
    block = 2 * tokens * width**2 * (4 + 2 + 8) + 4 * text * 1024 * width + 4 * tokens * (tokens + text) * width
    assert costs["2b"].flops["denoise"] == pytest.approx(28 * block, rel=0.05)  # AdaLN and the ends beside
    guided = video_cost("2b", **small | {"steps": 3, "guided": True})
    assert guided.flops["denoise"] == 6 * costs["2b"].flops["denoise"]


def test_a_dry_run_of_a_folder_counts_its_own_parts_and_writes_nothing(folder, capsys, tmp_path):
    words = ["cosmos", "--pipeline", str(folder), "--output", str(tmp_path / "out"), "--dry-run", "True"]
    cli.main([*words, "--video-size", "16", "32", "--frames", "5", "--steps", "2"])
    said = capsys.readouterr().out
    assert said.startswith(f"{folder}\n  parameters        transformer 0.00 B")
    assert "5 frames of 16 x 32 pixels at 16 a second, in 2 steps with guidance" in said
    assert "35% of 989 TFLOP/s" in said
    assert not (tmp_path / "out").exists()
