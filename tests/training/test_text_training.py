"""A text head learns where discs are and what sentences ask of them, in a world that trains in seconds."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from dexworld.data.datasets import open_dataset
from dexworld.data.recordings import EpisodeWriter
from dexworld.data.windows import DEFAULT_COLUMNS
from dexworld.models.config import PointsConfig, TextConfig
from dexworld.models.dexwm import DexWM
from dexworld.track import ArrayFrames, Track
from dexworld.training.train_text import TextRunConfig, TextTrainConfig, captioned, scenes_of, train_text
from sentence_fixtures import HashedWords

SIZE, FOCAL = 56, 80.0
COLOURS = np.array([(0.9, 0.1, 0.1), (0.1, 0.2, 0.9), (0.1, 0.8, 0.2), (0.9, 0.8, 0.1)])
# One metre above the plane of the objects, looking along the world's x and half down.
CAMERA = np.array([[0, -(0.5**0.5), 0.5**0.5, 0], [-1, 0, 0, 0], [0, -(0.5**0.5), -(0.5**0.5), 1], [0, 0, 0, 1.0]])
TEXT = TextConfig(words=HashedWords.width, dim=32, depth=1, heads=2, channels=16, layers=1)


def two_discs(seed: int) -> Track:
    """Two balls of different colours, on both sides of the middle, in four pictures."""
    rng, frames, columns = np.random.default_rng(seed), np.full((4, SIZE, SIZE, 3), 40, np.uint8), {}
    colours = rng.permutation(COLOURS)[:2]
    positions = np.zeros((4, 2, 3))
    positions[..., 0] = 1.0 + rng.uniform(-0.15, 0.15, (4, 2))
    positions[..., 1] = rng.uniform(0.08, 0.3, (4, 2)) * [1, -1]
    seen = (positions - CAMERA[:3, 3]) @ CAMERA[:3, :3]
    pixels = FOCAL * seen[..., :2] / seen[..., 2:] + SIZE / 2
    rows, across = np.mgrid[:SIZE, :SIZE] + 0.5
    for frame, places in zip(frames, pixels, strict=True):
        for (u, v), colour in zip(places, colours, strict=True):
            frame[(across - u) ** 2 + (rows - v) ** 2 < 30] = 255 * colour
    columns |= {"keypoints_world": np.zeros((4, 42, 3)), "keypoints_valid": np.zeros((4, 42), bool)}
    columns |= {"object_kinds": np.full((4, 2), 2), "object_colours": np.tile(colours, (4, 1, 1))}
    columns |= {"object_positions": positions, "points_visible": np.ones((4, 2), bool)}
    intrinsics = np.array([[FOCAL, 0, SIZE / 2], [0, FOCAL, SIZE / 2], [0, 0, 1]])
    poses, source = np.tile(CAMERA, (4, 1, 1)), f"two discs {seed}"
    return Track(poses, intrinsics, columns, fps=1.0, frames=ArrayFrames(frames), source=source, seed=seed)


@pytest.fixture(scope="module")
def discs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two-discs")
    writer = EpisodeWriter(folder, {})
    for seed in range(30):
        writer.write(f"{seed:03d}", two_discs(seed))
    writer.finish()
    return folder


@pytest.fixture
def world_model(discs, model_config, tmp_path):
    """The folder of a model with a point head, whose encoder is fitted on the discs."""
    torch.manual_seed(0)
    points = PointsConfig(dim=32, depth=1, heads=2, channels=16, pieces=1, width=8, layers=1, ensemble=1)
    model, dataset = DexWM(replace(model_config, points=points)), open_dataset(discs)
    model.encoder.fit([torch.from_numpy(dataset[index].frames.read([0, 2])) for index in range(8)])
    model.save_pretrained(tmp_path / "model", {"training_seeds": [[100, 120]]})
    return tmp_path / "model"


def run_config(discs, world_model, output, **changes):
    training = {
        "steps": 40,
        "batch_size": 8,
        "sentences": 4,
        "log_every": 5,
        "learning_rate": 4e-3,
        "warmup_steps": 10,
        "ema": 0.9,
    }
    training |= {"validate_every": 40, "checkpoint_every": 40, "validation_pictures": 32, "word_noise": 0.0} | changes
    options = {"checkpoint": str(world_model), "text": TEXT, "device": "cpu", "validation_fraction": 0.2}
    return TextRunConfig(data=(discs,), output=output, training=TextTrainConfig(**training), **options)


def test_a_head_learns_from_sentences_and_leaves_the_rest_as_it_was(discs, world_model, tmp_path):
    folder = train_text(run_config(discs, world_model, tmp_path / "out"), HashedWords)
    figures = json.loads((folder.parent / "results.json").read_text())["validation"]
    assert figures["seen_chance"] == 0.5
    assert 0 <= figures["seen_right"] <= 1
    assert figures["words_end_px"] > 0
    curve = [json.loads(line) for line in (folder.parent / "metrics.jsonl").read_text().splitlines()]
    first, last = (next(row for row in rows if "loss" in row) for rows in (curve, curve[::-1]))
    assert last["loss"] < 0.8 * first["loss"]
    assert last["start"] < first["start"]
    before, after = DexWM.from_pretrained(world_model), DexWM.from_pretrained(folder)
    assert after.config.text == TEXT
    assert all(torch.equal(value, after.state_dict()[name]) for name, value in before.state_dict().items())
    assert after.provenance["training_seeds"] == [[0, 29], [100, 120]]
    again = train_text(run_config(discs, folder, tmp_path / "again", steps=2), HashedWords)  # goes on with that head
    assert DexWM.from_pretrained(again).config.text == TEXT


def test_sentences_of_a_batch_are_the_same_whenever_it_is_asked_for(discs):
    dataset = open_dataset(discs)
    tracks = [dataset[index] for index in range(3)]
    window = type("Window", (), {})()
    names = (*DEFAULT_COLUMNS[:2], "object_kinds", "object_colours", "object_positions", "points_visible")
    columns = {name: torch.from_numpy(np.stack([each.columns[name] for each in tracks])).float() for name in names}
    columns["keypoints_valid"], columns["points_visible"] = (columns[each].bool() for each in (names[1], names[5]))
    columns["object_kinds"] = columns["object_kinds"].long()
    poses = torch.from_numpy(np.stack([each.world_from_camera for each in tracks])).float()
    intrinsics = torch.from_numpy(np.stack([each.intrinsics for each in tracks])).float()
    window.track, window.numbers = Track(poses, intrinsics, columns), torch.tensor([5, 6, 7])
    window.latents = torch.zeros(3, 4, 6, 2)
    (first, said), (second, again) = (captioned(window, HashedWords(), 0, 4) for _ in range(2))
    assert said == again
    assert torch.equal(first.end, second.end)
    assert len({caption.sentence for _, caption in said}) > 6
    scenes = scenes_of(window)
    for place, (row, caption) in zip(first.start, said, strict=True):
        seen = (scenes[row].positions[caption.meaning.moved] - CAMERA[:3, 3]) @ CAMERA[:3, :3]
        np.testing.assert_allclose(place, FOCAL * seen[:2] / seen[2] + SIZE / 2, atol=1e-3)
    assert captioned(window, HashedWords(), 0, 4, "pairs")[0].start.shape[1:] == (2,)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"checkpoint": "no points"}, "dexworld train points"), ({"text": TextConfig(words=17)}, "set `--words 16`")],
)
def test_what_does_not_fit_is_refused(discs, world_model, model_config, tmp_path, change, message):
    if "checkpoint" in change:
        DexWM(model_config).save_pretrained(tmp_path / "plain", {"training_seeds": []})
        change = {"checkpoint": str(tmp_path / "plain")}
    config = replace(run_config(discs, world_model, tmp_path / "out"), **change)
    with pytest.raises(ValueError, match=message):
        train_text(config, HashedWords)
