"""The loader: the frames and labels a window needs and no others, the same whoever decodes them, nothing broken."""

import gc
import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from dexworld.data.latent_cache import latent_cache
from dexworld.data.loader import FrameLoader
from dexworld.data.mixture import MixConfig
from dexworld.data.recordings import EpisodeWriter
from dexworld.data.resize import resized
from dexworld.data.sampling import PaperSampling, StrideSampling
from dexworld.data.source import CorruptEpisodeError
from dexworld.data.windows import WindowSampler
from dexworld.track import ArrayFrames

PAPER = PaperSampling(frames=4, history=3, segments=3)
STRIDE = StrideSampling(frames=5, history=3, moving_object_weight=2.0)


@pytest.fixture
def datasets(tmp_path, write_dataset):
    return [write_dataset(tmp_path / "one", [20, 12, 30], 5), write_dataset(tmp_path / "two", [25, 16])]


def assert_same(left, right):
    assert not [name for name, value in left.tensors.items() if not torch.equal(value, right.tensors[name])]


def frame_numbers(batch, loader):
    """(B, F) numbers within the clips."""
    return batch.rows - torch.from_numpy(loader.sampler.clips.starts)[batch.clips][:, None]


@pytest.mark.parametrize("sampling", [PAPER, STRIDE], ids=["paper", "stride"])
def test_frames_labels_and_cameras_of_a_window_belong_together(datasets, sampling):
    loader = FrameLoader(datasets, sampling, 32, seed=1)
    batch = loader.batch(3)
    assert batch.frames.shape == (32, sampling.frames, 32, 32, 3)
    assert batch.frames.dtype == torch.uint8
    numbers = frame_numbers(batch, loader).float()
    torch.testing.assert_close(batch.frames.float().mean(dim=(2, 3, 4)), 5 * numbers, atol=2.0, rtol=0)
    torch.testing.assert_close(batch.track.keypoints_world[:, :, 5, 1], numbers)
    torch.testing.assert_close(batch.track.world_from_camera[:, :, 0, 3], numbers)
    torch.testing.assert_close(batch.track.intrinsics[:, 0, 0], batch.track.keypoints_world[:, 0, 5, 0] + 1)
    assert not batch.track.keypoints_valid[:, :, 0].any()
    assert (batch.track.keypoints_world[:, :, 0] == 0).all()  # NaN in the file, but not valid


def test_workers_resuming_and_ranks_change_nothing(datasets):
    mix = MixConfig((1.0, 2.0), block=30)
    here = FrameLoader(datasets, PAPER, 8, 5, mix=mix)
    expected = [here.batch(step) for step in range(5)]
    workers = FrameLoader(datasets, PAPER, 8, 5, mix=mix, workers=2)
    for batch, other in zip(workers.batches(stop=5), expected, strict=True):
        assert_same(batch, other)
        assert batch.frames.is_shared()
    for batch, other in zip(workers.batches(start=2, stop=4), expected[2:4], strict=True):  # the same processes again
        assert_same(batch, other)
    endless = workers.batches(start=3)
    assert_same(next(endless), expected[3])
    assert_same(next(endless), expected[4])
    workers.close()
    for world in (2, 4):
        ranks = [FrameLoader(datasets, PAPER, 8, 5, mix=mix, rank=rank, world_size=world) for rank in range(world)]
        numbers = torch.stack([rank.batch(3).numbers for rank in ranks], dim=1).ravel()
        assert torch.equal(numbers, expected[3].numbers)
        frames = torch.stack([rank.batch(3).frames for rank in ranks], dim=1).flatten(0, 1)
        assert torch.equal(frames, expected[3].frames)
    with pytest.raises(ValueError, match="shared"):
        FrameLoader(datasets, PAPER, 5, 0, world_size=2)


def test_each_frame_of_a_window_is_decoded_once_and_no_other_is(datasets):
    read = []

    class Watched(ArrayFrames):
        def read(self, indices):
            read.append(list(indices))
            return super().read(indices)

    class Spy:
        def __init__(self, dataset):
            self.__dict__ = {name: getattr(dataset, name) for name in ("folder", "ids", "lengths")}
            self.dataset = dataset

        def __len__(self):
            return len(self.dataset)

        def __getitem__(self, index):
            episode = self.dataset[index]
            return replace(episode, frames=Watched(episode.frames.read(list(range(len(episode))))))

    loader = FrameLoader([Spy(datasets[0])], replace(STRIDE, short_history=1.0, moving_object_weight=0.0), 6, 0)
    read.clear()
    batch = loader.batch(0)
    assert batch.repeats.min() >= 1
    assert read == [sorted(set(row)) for row in frame_numbers(batch, loader).tolist()]
    read.clear()
    plain = FrameLoader([Spy(datasets[0])], PAPER, 6, 0, decode=False).batch(0)
    assert not read
    assert plain.frames.shape == (6, 4, 0, 0, 3)
    assert plain.track.keypoints_valid.any()


def test_datasets_of_two_sizes_need_a_common_one(tmp_path, write_dataset, numbered_episode):
    plain = write_dataset(tmp_path / "plain", [10, 10])
    writer = EpisodeWriter(tmp_path / "wide", {})
    episode = numbered_episode(0, 12)
    writer.write("0", replace(episode, frames=ArrayFrames(np.full((12, 32, 64, 3), 7, np.uint8))))
    both = [plain, writer.finish()]
    with pytest.raises(ValueError, match="of sizes"):
        FrameLoader(both, PAPER, 4, 0)
    loader = FrameLoader([resized(each, (32, 32)) for each in both], PAPER, 4, 0)
    assert loader.batch(0).frames.shape == (4, 4, 32, 32, 3)


def damage(folder, name):
    path = folder / "episodes" / name
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize("workers", [0, 2])
def test_an_episode_damaged_after_opening_is_named_counted_and_replaced_by_rule(datasets, workers, caplog):
    whole = FrameLoader(datasets, PAPER, 10, 3).batch(1)
    damage(datasets[0].folder, "0002.mp4")
    loader = FrameLoader(datasets, PAPER, 10, 3, workers=workers)
    [batch] = list(loader.batches(start=1, stop=2))
    bad = whole.clips == 2
    assert bad.any()
    assert len(batch.problems) >= int(bad.sum())
    assert {problem.where for problem in batch.problems} == {f"{datasets[0].folder}, episode 0002"}
    assert loader.replaced == len(batch.problems)
    assert list(loader.broken) == [f"{datasets[0].folder}, episode 0002"]
    assert caplog.text.count("0002 can't be read and is replaced") == 1
    assert torch.equal(batch.frames[~bad], whole.frames[~bad])
    assert set(batch.clips[bad].tolist()) <= {0, 1}  # clips of the same dataset
    numbers = frame_numbers(batch, loader).float()
    torch.testing.assert_close(batch.frames.float().mean(dim=(2, 3, 4)), 5 * numbers, atol=2.0, rtol=0)
    assert_same(batch, FrameLoader(datasets, PAPER, 10, 3).batch(1))
    loader.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_strict_loading_raises_and_names_the_episode(datasets, workers):
    damage(datasets[0].folder, "0002.npz")
    loader = FrameLoader(datasets, PAPER, 15, 3, workers=workers, strict=True)
    with pytest.raises(CorruptEpisodeError, match="episode 0002"):
        list(loader.batches(stop=2))
    loader.close()


def test_a_dataset_in_which_nothing_can_be_read_raises_instead_of_searching_for_ever(datasets):
    loader = FrameLoader(datasets[1:], PAPER, 4, 3)
    for name in ("0000.mp4", "0001.mp4"):
        damage(datasets[1].folder, name)
    with pytest.raises(CorruptEpisodeError, match="10 clips in a row"):
        loader.batch(0)
    with pytest.raises(CorruptEpisodeError, match="no episode"):
        FrameLoader(datasets[1:], PAPER, 4, 3)


def test_an_episode_that_changed_its_length_or_rate_is_not_loaded(datasets, numbered_episode):
    loader = FrameLoader(datasets[1:], PAPER, 6, 0)
    writer = EpisodeWriter(datasets[1].folder, datasets[1].settings)
    writer.write("0000", numbered_episode(0, 9))
    writer.write("0001", replace(numbered_episode(1, 16), fps=10.0))
    with pytest.raises(CorruptEpisodeError, match=r"(9 frames, expected 25|10.0 frames per second, expected 5.0)"):
        loader.batch(0)


def test_workers_never_collect_what_the_main_process_has_left_behind(datasets, tmp_path):
    """A decoder with threads that a forked worker frees would wait for ever for threads it does not have."""

    class Leftover:
        def __init__(self):
            self.cycle = self

        def __del__(self):
            (tmp_path / f"freed by {os.getpid()}").touch()

    gc.disable()
    try:
        Leftover()
        loader = FrameLoader(datasets, PAPER, 6, 0, workers=1)
        next(loader.batches())
        loader.close()
    finally:
        gc.enable()
    assert [path.name for path in tmp_path.glob("freed by *")] == [f"freed by {os.getpid()}"]


@pytest.mark.parametrize("latents", ["online", "cached"])
def test_a_hand_of_no_confidence_moves_but_is_shown_in_no_picture(
    latents, tmp_path, brightness_encoder, numbered_episode
):
    episode = numbered_episode(0, 12)
    confidence = np.ones((12, 42), np.float32)
    confidence[:, 21:] = 0
    marked = episode.with_columns(keypoint_confidence=confidence)
    writer = EpisodeWriter(tmp_path / "marked", {"generator": "test"})
    writer.write("0", marked)
    dataset = writer.finish()
    sampling = StrideSampling(frames=3, history=2)
    if latents == "online":
        window = FrameLoader([dataset], sampling, 2, seed=0).batch(0)
    else:
        window = WindowSampler([latent_cache(dataset, brightness_encoder, "brightness")], sampling, 0).batch(0, 2)
    assert window.track.keypoints_valid[..., 1:].all()
    assert window.track.keypoints_shown[..., 1:21].all()
    assert not window.track.keypoints_shown[..., 21:].any()
    assert not window.track.keypoints_shown[..., 0].any()  # not annotated at all
