"""Collecting: resumable to the byte, one split a folder, and nothing that was held in the data."""

import numpy as np
import pytest
from sim_recordings import bytes_of

from dexworld.data.datasets import open_dataset
from dexworld.sim import collect_scenes as collecting
from dexworld.sim.collect_scenes import MAX_ATTEMPTS, SceneRange, collect, episode_id
from dexworld.sim.kitchen.explore import ExploreConfig, holds_object, record_exploration
from dexworld.sim.kitchen.kitchen_scene import seed_split

SMALL = ExploreConfig(frames=4)
SEED = 900_000
REJECTED = "rejected_because_an_object_was_held"


@pytest.fixture(scope="module")
def recorded():
    return {seed: record_exploration(seed, config=SMALL) for seed in range(SEED, SEED + 3)}


@pytest.fixture
def replayed(monkeypatch, recorded):
    """Recording takes seconds: three episodes recorded once stand in for it. Returns what was asked for."""
    asked = []

    def record(seed, attempt, explore, backend):
        asked.append((seed, attempt))
        episode = recorded[seed]
        return episode.with_columns(attempt=np.full(len(episode), attempt))

    monkeypatch.setattr(collecting, "record_exploration", record)
    return asked


def scenes(folder, episodes=3) -> SceneRange:
    return SceneRange(folder, episodes, SEED, 1)


def test_a_collection_goes_on_where_it_was_killed_and_ends_with_the_same_bytes(tmp_path):
    collect(scenes(tmp_path, 2), SMALL)
    before = bytes_of(tmp_path / "episodes")
    lost = tmp_path / "episodes" / f"{episode_id(SEED + 1)}.npz"
    lost.unlink()  # labels are written last: without them the episode doesn't count
    dataset = collect(scenes(tmp_path, 2), SMALL)
    assert len(dataset) == 2
    assert bytes_of(tmp_path / "episodes") == before
    assert not any(holds_object(dataset[index]) for index in range(2))


def test_only_missing_episodes_are_recorded(tmp_path, replayed):
    seen = []
    collect(scenes(tmp_path, 2), SMALL)
    collect(scenes(tmp_path, 3), SMALL, lambda seeds: (seen.append(seed) or seed for seed in seeds))
    assert seen == [SEED + 2]
    assert replayed == [(SEED, 0), (SEED + 1, 0), (SEED + 2, 0)]


def test_what_was_held_is_drawn_again_and_counted(tmp_path, replayed, monkeypatch):
    monkeypatch.setattr(
        collecting, "holds_object", lambda episode: episode.seed == SEED + 1 and int(episode.columns["attempt"][0]) < 2
    )
    dataset = collect(scenes(tmp_path), SMALL)
    assert replayed == [(SEED, 0), (SEED + 1, 0), (SEED + 1, 1), (SEED + 1, 2), (SEED + 2, 0)]
    assert dataset.counts == {"episodes": 3, "frames": 12, "quarantined": 0, REJECTED: 2}
    assert open_dataset(tmp_path).counts == dataset.counts
    assert (dataset[1].columns["attempt"] == 2).all()


def test_a_scene_that_always_ends_in_a_grasp_is_an_error_and_not_an_empty_episode(tmp_path, replayed, monkeypatch):
    monkeypatch.setattr(collecting, "holds_object", lambda episode: True)
    with pytest.raises(RuntimeError, match=f"scene {SEED}: an object was held in all {MAX_ATTEMPTS} attempts"):
        collect(scenes(tmp_path), SMALL)


def test_a_folder_of_other_settings_is_refused(tmp_path, replayed):
    collect(scenes(tmp_path), SMALL)
    with pytest.raises(ValueError, match=r"begun with other settings: explore.frames was 4, now 5"):
        collect(scenes(tmp_path), ExploreConfig(frames=5))


@pytest.mark.parametrize(
    ("seed", "split"),
    [(899_999, "training"), (900_000, "validation"), (999_999, "validation"), (1_000_000, "evaluation")],
)
def test_seeds_belong_to_one_split(seed, split):
    assert seed_split(seed) == split
