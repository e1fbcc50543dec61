"""`dexworld cache-latents`: what it computes is what training opens."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dexworld.cli.cache_latents import CacheLatents
from dexworld.data.datasets import open_dataset
from dexworld.data.latent_cache import cache_folder, latent_cache
from dexworld.data.latent_shards import shard_path
from dexworld.data.recordings import EpisodeWriter
from dexworld.data.resize import resized
from dexworld.models.dexwm import DexWM
from dexworld.models.latent_readers import encoder_fingerprint
from dexworld.models.world_model import preset
from dexworld.training import latents
from dexworld.training.latents import LatentsConfig, cache_latents
from dexworld.training.train_decoder import DecoderRunConfig, train_decoder
from dexworld.training.train_evaluator import EvaluatorRunConfig, train_evaluator
from dexworld.training.train_world_model import RunConfig, train
from square_fixtures import episode_of

LENGTHS = (3, 4)


@pytest.fixture
def folder(tmp_path):
    """Two episodes whose frames are six pixels wider than the model's."""
    writer = EpisodeWriter(tmp_path / "data", {"made by": "tests"})
    for number, length in enumerate(LENGTHS):
        generator = np.random.default_rng(number)
        coarse = generator.integers(0, 256, (length, 14, 25, 3), dtype=np.uint8)
        frames = coarse.repeat(16, axis=1).repeat(16, axis=2)[:, :, :398]
        keypoints, valid = np.zeros((length, 42, 3)), np.ones((length, 42), dtype=bool)
        writer.write(f"{number:04d}", episode_of(f"test episode {number}", frames, 200.0, keypoints, valid, number))
    return writer.finish().folder


def settings(folder, **changes) -> LatentsConfig:
    return LatentsConfig(data=(folder,), preset="debug", encoder_frames=6, device="cpu", **changes)


def test_training_opens_the_latents_that_were_computed_ahead(folder):
    told = []
    (row,) = cache_latents(settings(folder, verify=True), lambda *words: told.append(words))
    assert (row["frames"], row["complete"], row["damaged"]) == (7, True, [])
    assert told[-1] == (str(folder), 7, 7)

    config = preset("debug")
    view = resized(open_dataset(folder), config.image_size)
    model = DexWM(config)
    latents.fit_encoder(model.encoder, [view], 6, 0, "cpu")

    def must_not_run(images):
        raise AssertionError("encoded again")

    cache = latent_cache(view, must_not_run, encoder_fingerprint(model.encoder))
    assert cache.folder == row["folder"]
    assert cache.latents.shape == (7, 28, 16)
    assert cache.labels.intrinsics[0, 0, 2] == 196


@pytest.mark.parametrize("named", [False, True], ids=["user's", "named"])
@pytest.mark.parametrize("what", ["cache-latents", "train", "decoder", "evaluator"])
def test_latents_of_data_that_can_t_be_written_lie_in_a_cache_folder(
    disc_data, tmp_path, monkeypatch, model_config, make_training, caplog, what, named
):
    data, access = tmp_path / "data", os.access
    shutil.copytree(disc_data, data, ignore=shutil.ignore_patterns("latents"))
    before = sorted(data.rglob("*"))
    monkeypatch.setattr(os, "access", lambda path, mode: not Path(path).is_relative_to(data) and access(path, mode))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    caches, options = tmp_path / ("named" if named else "xdg/dexworld/latents"), {"device": "cpu", "data": (data,)}
    options |= {"cache": caches} if named else {}
    for _ in range(2):  # the second opens what the first wrote
        if what == "cache-latents":
            cache_latents(LatentsConfig(**options, preset="debug", encoder_frames=20), lambda *words: None)
        elif what == "train":
            train(RunConfig(**options, output=tmp_path / "run", training=make_training(steps=1)), model_config)
        else:
            kinds = {"decoder": (DecoderRunConfig, train_decoder), "evaluator": (EvaluatorRunConfig, train_evaluator)}
            config, run = kinds[what]
            own = replace(config().training, steps=1, batch_size=2)
            run(config(**options, output=tmp_path / what, size="debug", encoder_preset="debug", training=own))
    (own,) = caches.iterdir()
    assert own.name.startswith("data-")
    assert len([*own.glob("encoder-*")]) == len([*own.glob("*/cache.json")]) == 1
    assert sorted(data.rglob("*")) == before
    assert (f"{data} can't be written: its latents are kept in {own}" in caplog.text) != named
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ValueError, match="name a folder with `--cache`"):
        cache_folder(open_dataset(data), "another")


def test_a_checkpoint_brings_its_own_encoder(folder, tmp_path):
    config = preset("debug")
    model = DexWM(config)
    view = resized(open_dataset(folder), config.image_size)
    latents.fit_encoder(model.encoder, [view], 6, 3, "cpu")
    model.save_pretrained(tmp_path / "checkpoint")
    (row,) = cache_latents(settings(folder, checkpoint=str(tmp_path / "checkpoint")), lambda *_: None)
    assert row["folder"].name == encoder_fingerprint(model.encoder)[:32]


def damage(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_damaged_files_end_the_command_with_their_names(folder, tmp_path, capsys):
    (row,) = cache_latents(settings(folder), lambda *_: None)
    damage(shard_path(row["folder"], 0))
    damage(row["folder"] / "frame_labels.npy")
    with pytest.raises(SystemExit) as ended:
        CacheLatents(settings(folder, verify=True), tmp_path / "out").run()
    assert ended.value.code == 1
    assert "shards/00000.npy" in capsys.readouterr().err
    found = json.loads((tmp_path / "out" / "results.json").read_text())["datasets"][0]["damaged"]
    assert found == ["shards/00000.npy", "frame_labels.npy"]


@pytest.mark.parametrize("changes", [{"shard": "2/2"}, {"encoder_frames": 0}])
def test_settings_that_make_no_sense_are_refused(folder, changes):
    with pytest.raises(ValueError, match=r"shard|positive"):
        LatentsConfig(**({"data": (folder,)} | changes))
