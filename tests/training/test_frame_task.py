"""Training from frames: the same windows and latents as cached ones, at any stored size, resumed bit for bit."""

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))
from process_fixtures import advance

from dexworld.data.datasets import open_dataset
from dexworld.data.loader import FrameLoader
from dexworld.data.resize import Fit
from dexworld.data.sampling import StrideSampling
from dexworld.data.store.assemble import assemble
from dexworld.data.store.packs import write_pack
from dexworld.data.store.store_settings import PrepareSettings
from dexworld.models.dexwm import DexWM
from dexworld.track import ArrayFrames
from dexworld.training.sources import FrameSource, TrainingData
from dexworld.training.train_config import SamplingConfig
from dexworld.training.train_world_model import RunConfig, train
from dexworld.training.trainer import Trainer
from dexworld.training.window_task import WindowTask

STRIDE = StrideSampling(frames=5, history=3, stride_weights=(1.0, 1.0), short_history=0.5)


def larger(episode, factor, fps=5.0):
    """The same episode filmed with `factor` times the pixels, wider than the model's square, at another rate."""
    times = np.repeat(np.arange(len(episode)), round(fps / episode.fps))
    frames = episode.frames.read(times.tolist()).repeat(factor, axis=1).repeat(factor, axis=2)
    frames = np.pad(frames, ((0, 0), (0, 0), (8, 8), (0, 0)))
    intrinsics = np.diag([factor, factor, 1.0]) @ episode.intrinsics
    intrinsics[0, 2] += 8
    return replace(
        episode,
        frames=ArrayFrames(frames),
        fps=fps,
        intrinsics=intrinsics,
        world_from_camera=episode.world_from_camera[times],
        columns={name: value[times] for name, value in episode.columns.items()},
    )


@pytest.fixture(scope="module")
def stores(tmp_path_factory, disc_data):
    """Recorded episodes; a prepared store of larger frames at 15 frames per second."""
    folder = tmp_path_factory.mktemp("prepared") / "store"
    dataset = open_dataset(disc_data)
    settings = PrepareSettings(height=112, width=128, codec="h264-444", pack_episodes=4).resolved(
        larger(dataset[0], 2, 15.0)
    )
    records = []
    for pack in range(3):
        items = [(dataset.ids[i], lambda i=i: larger(dataset[i], 2, 15.0)) for i in range(4 * pack, 4 * pack + 4)]
        records.append(write_pack(folder, pack, items, settings))
    assemble(folder, records, {"made by": "tests"})
    return disc_data, folder


@pytest.fixture
def model(make_model):
    return make_model()


def test_frames_give_the_windows_and_latents_that_a_cache_gives(disc_data, model, make_training):
    dataset, episodes = open_dataset(disc_data), [np.arange(3, 12)]
    data = TrainingData([dataset], model.encoder, make_training(seed=4), torch.device("cpu"), "fitted")
    cached = data.source(STRIDE, episodes)
    loader = FrameLoader([dataset], STRIDE, 6, 4, episodes=episodes)
    online = FrameSource(loader, model.encode, model.config.image_size)
    for step in (0, 1, 5):
        left, right = cached.batch(step, 6), online.batch(step, 6)
        torch.testing.assert_close(left.latents, right.latents, atol=2e-3, rtol=2e-3)  # the cache keeps float16
        for name in left.tensors.keys() - {"latents"}:
            assert torch.equal(left.tensors[name], right.tensors[name]), name
    row = int(right.rows[0, 2])
    assert cached.describe(row).split(", ")[-1] == online.describe(row).split(", ")[-1]
    assert str(dataset.folder) in online.describe(row)


def opened(way, folder, model, training):
    fingerprint = "fitted" if way == "cached" else None
    return TrainingData([open_dataset(folder)], model.encoder, training, torch.device("cpu"), fingerprint)


@pytest.mark.parametrize("way", ["cached", "online"])
def test_runs_of_all_seeds_are_measured_on_the_same_windows(disc_data, model, make_training, way):
    def rows(seed, shown):
        data = opened(way, disc_data, model, make_training(seed=seed))
        return data.source(STRIDE, [np.arange(12)], shown=shown).batch(0, 6).rows.tolist()

    assert rows(1, shown=True) == rows(2, shown=True)
    assert rows(1, shown=False) != rows(2, shown=False)


def test_a_repeated_frame_is_encoded_once(disc_data, model):
    encoded = []

    def encode(images):
        encoded.append(len(images))
        return model.encode(images)

    strategy = replace(STRIDE, short_history=1.0)
    window = FrameSource(FrameLoader([open_dataset(disc_data)], strategy, 8, 0), encode, (56, 56)).batch(0, 8)
    assert encoded == [sum(len(set(row)) for row in window.rows.tolist())]
    assert encoded[0] < window.rows.numel()
    for latents, repeats in zip(window.latents, window.repeats.tolist(), strict=True):
        assert all(torch.equal(latents[0], latents[slot]) for slot in range(repeats + 1))


@pytest.mark.parametrize("way", ["cached", "online"])
def test_a_store_of_another_size_and_rate_shows_the_model_the_same_scene(stores, model, make_training, way):
    def source(folder, rate):
        data = opened(way, folder, model, make_training(seed=2))
        return data.source(replace(STRIDE, rate_hz=rate), [np.arange(12)])

    plain, prepared = (source(folder, 5.0).batch(0, 64) for folder in stores)
    large = model.condition(prepared.track)
    assert prepared.latents.shape[2:] == plain.latents.shape[2:]
    # Frames were stored two times as large with a margin of eight pixels, and are cut to the same square again.
    fit = Fit.cover((112, 128), (56, 56))
    for window in (plain, prepared):
        torch.testing.assert_close(window.track.intrinsics[:, 0, 0], torch.full((64,), 100.0))
        torch.testing.assert_close(window.track.intrinsics[:, 0, 2], torch.full((64,), 28.0))
    assert fit.corner == (0, 4)
    # The disc is where its keypoint is: the latents of its patch differ from those of the empty table.
    bright = prepared.latents.norm(dim=-1).argmax(dim=-1)
    pixels = large.pixels[:, :, 6, :2]  # the right wrist
    patch = (pixels // 14).long().clamp(0, 3)
    rows, columns = bright // 4, bright % 4
    near = ((rows - patch[..., 1]).abs() <= 1) & ((columns - patch[..., 0]).abs() <= 1)
    assert near.float().mean() > 0.9


def test_augmentation_changes_colours_once_per_clip_and_repeats_exactly(disc_data, model):
    def windows(augment, seed=0):
        loader = FrameLoader([open_dataset(disc_data)], STRIDE, 16, 0)
        seen = []

        def encode(images):
            seen.append(images.clone())
            return model.encode(images)

        source = FrameSource(loader, encode, (56, 56), augment=augment, seed=seed)
        source.batch(2, 16)
        return seen[0].float()

    plain, changed, again = windows(False), windows(True), windows(True)
    assert torch.equal(changed, again)
    assert not torch.equal(changed, windows(True, seed=1))
    difference = (plain - changed).abs().mean(dim=(1, 2, 3))
    assert 0.2 < (difference > 0.5).float().mean() < 0.95


@pytest.fixture
def make_trainer(make_model, make_training, disc_data, tmp_path):
    def make(folder, workers):
        model, device = make_model(), torch.device("cpu")
        config = make_training(steps=6, batch_size=4, checkpoint_every=100, validate_every=100)
        options = {"augment": True, "workers": workers}
        data = TrainingData([open_dataset(disc_data)], model.encoder, config, device, **options)
        windows = partial(data.source, episodes=[np.arange(12)])
        task = WindowTask(model, config, windows, SamplingConfig(windows="paper", reach_seconds=2.0))
        return Trainer(model, config, task, tmp_path / folder)

    return make


def test_stopping_and_resuming_with_workers_changes_no_bit(make_trainer):
    whole = make_trainer("whole", workers=0)
    whole.run()
    for stop in (2, 5, 6):
        part = make_trainer("part", workers=1)
        assert part.resume() == (stop > 2)
        advance(part, stop)
        for source in part.task.sources.values():
            source.close()
    expected, found = (dict(trainer.model.named_parameters()) for trainer in (whole, part))
    assert not [name for name in expected if not torch.equal(expected[name], found[name])]


@pytest.mark.parametrize(
    ("latents", "kind", "mix"), [("online", "paper", (3.0, 1.0)), ("cached", "official", ()), ("online", "stride", ())]
)
def test_a_run_over_recorded_and_prepared_data_leaves_a_model(
    stores, tmp_path, model_config, make_training, latents, kind, mix
):
    sampling = SamplingConfig(windows=kind, reach_seconds=2.0, mix=mix, rate_hz=5.0)
    training = make_training(steps=4, validate_every=100)
    options = {"latents": latents, "augment": latents == "online", "workers": 0, "validation_fraction": 0.2}
    config = RunConfig(stores, tmp_path / "run", device="cpu", sampling=sampling, training=training, **options)
    folder = train(config, model_config)
    provenance = DexWM.from_pretrained(folder).provenance
    assert [each["episodes"] for each in provenance["datasets"]] == [12, 12]
    assert provenance["loading"]["latents"] == latents
    assert provenance["loading"]["sampling"]["windows"] == kind
    assert provenance["figures"]["pck20_true_latents"] >= 0
    assert all(torch.isfinite(value).all() for value in load_file(folder / "model.safetensors").values())
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["finished"]


def test_runs_that_make_no_sense_are_refused(tmp_path):
    for changes, message in (
        ({"augment": True}, "online"),
        ({"workers": -1}, "workers"),
        ({"latents": "nowhere"}, "latents"),
        ({"validation_fraction": 1.0}, "fraction"),
        ({"encoder_frames": 0}, "encoder_frames"),
        ({"sampling": SamplingConfig(mix=(1.0, 1.0))}, "2 shares for 1"),
    ):
        with pytest.raises(ValueError, match=message):
            RunConfig((tmp_path,), tmp_path, **changes)
    for changes, message in (({"windows": "all"}, "windows"), ({"rate_hz": 0.0}, "rate_hz"), ({"mix": (0.0,)}, "mix")):
        with pytest.raises(ValueError, match=message):
            SamplingConfig(**changes)


def test_data_of_different_rates_without_a_common_step_is_told(stores, model, make_training, caplog):
    datasets = [open_dataset(folder) for folder in stores]
    data = TrainingData(datasets, model.encoder, make_training(), torch.device("cpu"))
    data.source(STRIDE, [np.arange(12)] * 2)
    assert "5, 15 frames per second" in caplog.text
