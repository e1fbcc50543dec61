"""Triplet clips become episodes that a DexWM can be trained on, and nothing is left out in silence."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from triplet_fixtures import make_clip

from dexworld.training.train_config import TrainConfig
from dexworld.training.train_world_model import RunConfig, train
from dexworld.video.clips.as_episodes import clip_episode, episode_name, triplets_as_episodes
from dexworld.video.clips.clip import TripletClip
from dexworld.video.clips.triplet_files import write_triplet
from dexworld.video.clips.triplets import finish_triplets

FRAMES, HEIGHT, WIDTH = 17, 96, 144


def clip(name: str, seed: int, track: bool = True) -> TripletClip:
    """A right hand passes, and a bar appears from frame 8 on."""
    made = make_clip(name, seed, FRAMES, height=HEIGHT, width=WIDTH, **({} if track else {"track": None}))
    interaction = made.interaction.copy()
    interaction[8:, 84:94] = 250
    return replace(made, interaction=interaction)


def write_clips(root: Path, count: int, without: int = 0) -> None:
    seeds = {f"{index:08d}": index for index in range(count + without)}
    for name, seed in seeds.items():
        write_triplet(root, clip(name, seed, track=seed < count))
    finish_triplets(root, {"generator": "test"}, seeds)


def test_an_episode_starts_in_the_untouched_scene_and_goes_on_with_the_hands():
    source = clip("a", 3)
    episode = clip_episode(source)
    frames = episode.frames.read(list(range(FRAMES)))
    assert np.array_equal(frames[0], source.static[0])
    assert np.array_equal(frames[1:], source.interaction[1:])
    assert (episode.seed, episode.task, episode.fps) == (3, "A hand moves.", 8.0)
    assert episode.keypoints_valid[0].sum() == 21  # where the hand is, is known although the picture doesn't show it
    assert np.array_equal(episode.keypoints_world[:, 21:], source.track.keypoints_world[:, 21:])
    assert not episode.keypoints_world[:, :21].any()
    motion = episode.columns["object_motion"]  # where the scene changed; the hand does not count
    assert (motion[:8] == 0).all()
    assert motion[8:] == pytest.approx(10 / HEIGHT, abs=0.03)


def test_a_static_episode_has_the_camera_and_no_hand():
    source = clip("a", 3)
    episode = clip_episode(source, hands=False)
    assert np.array_equal(episode.frames.read(list(range(FRAMES))), source.static)
    assert not episode.keypoints_valid.any()
    assert not episode.columns["object_motion"].any()
    assert np.array_equal(episode.world_from_camera, source.track.world_from_camera)


def test_a_folder_becomes_a_dataset_and_what_is_left_out_is_counted(tmp_path):
    write_clips(tmp_path / "clips", 3, without=1)
    dataset = triplets_as_episodes(tmp_path / "clips", tmp_path / "episodes")
    assert dataset.ids == ("00000000", "00000000-static", "00000001", "00000002")
    assert dataset.lengths == (FRAMES,) * 4
    assert dataset.seeds == (0, 1, 2)
    again = triplets_as_episodes(tmp_path / "clips", tmp_path / "episodes")
    assert again.fingerprint == dataset.fingerprint
    assert again.counts["clips_without_hand_motions"] == 1
    write_clips(tmp_path / "none", 0, without=2)
    with pytest.raises(ValueError, match="no clip has hand motions"):
        triplets_as_episodes(tmp_path / "none", tmp_path / "other")


def test_episode_names_are_ids_and_stay_different():
    names = ["00000012", "group/scene/a", "group_scene_a", "a b", "a_b", "_a"]
    ids = [episode_name(name) for name in names]
    assert ids[0] == "00000012"
    assert ids[2] == "group_scene_a"
    assert len(set(ids)) == len(names)
    assert all(each[0].isalnum() and "/" not in each and " " not in each for each in ids)


def test_dexwm_trains_on_the_episodes_with_the_ordinary_command(tmp_path):
    from dexworld.models.dexwm import DexWM

    write_clips(tmp_path / "clips", 6)
    triplets_as_episodes(tmp_path / "clips", tmp_path / "episodes")
    windows = {"stride_weights": (0.0, 0.0, 0.0, 1.0), "validation_rollouts": ((4, 4),), "validation_windows": 4}
    run = {"preset": "clip", "validation_fraction": 0.3, "training": TrainConfig(steps=2, batch_size=2, **windows)}
    model = DexWM.from_pretrained(train(RunConfig((tmp_path / "episodes",), tmp_path / "run", **run)))
    assert model.config.image_size == (HEIGHT, WIDTH)
    assert model.provenance["training_seeds"] == [[0, 5]]
    assert "mse_ratio_stride4_step4" in model.provenance["figures"]
