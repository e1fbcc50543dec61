"""Labels of a cache: read on demand, in bounded memory, the same to the bit as those held in memory."""

import json
import pickle
import tracemalloc
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dexworld.data import frame_labels, windows
from dexworld.data.files import Shard, with_checksum
from dexworld.data.frame_labels import FRAME, FrameLabels, MappedLabels, label_rows, write_labels
from dexworld.data.latent_build import compute_latents
from dexworld.data.latent_cache import StaleCacheError, latent_cache, open_cache
from dexworld.data.mixture import Clips, MixConfig, StrideSampler
from dexworld.data.sampling import PaperSampling, StrideSampling
from dexworld.data.windows import WindowSampler

STRIDE = StrideSampling(frames=6, history=3)
PAPER = PaperSampling(frames=4, history=2, seconds=1.0, segments=1)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(frame_labels, "BLOCK", 8)


def in_memory(dataset) -> FrameLabels:
    """All labels as columns, put together without the code that is tested."""
    episodes = [dataset[index] for index in range(len(dataset))]
    valid = np.concatenate([each.keypoints_valid for each in episodes])
    points = np.concatenate([each.keypoints_world for each in episodes])
    return FrameLabels(
        keypoints_world=np.where(valid[..., None], points, 0).astype(np.float32),
        keypoints_valid=valid,
        world_from_camera=np.concatenate([each.world_from_camera for each in episodes]).astype(np.float32),
        intrinsics=np.stack([each.intrinsics for each in episodes]).astype(np.float32),
        starts=np.concatenate([[0], np.cumsum([len(each) for each in episodes])]),
        object_motion=np.concatenate(
            [each.columns.get("object_motion", np.zeros(len(each))) for each in episodes]
        ).astype(np.float32),
        fps=np.array([each.fps for each in episodes]),
    )


def make_earlier(cache, dataset) -> None:
    """Turn a cache into one of the version before, with all labels in one file."""
    labels = in_memory(dataset)
    np.savez(cache.folder / "labels.npz", **vars(labels))
    for name in ("frame_labels.npy", "episode_labels.npz"):
        (cache.folder / name).unlink()
    header = json.loads((cache.folder / "cache.json").read_text())
    header = {key: value for key, value in header.items() if key not in ("crc32", "labels_crc32")}
    (cache.folder / "cache.json").write_text(json.dumps(with_checksum(header | {"format_version": 3})))
    plan = json.loads((cache.folder / "plan.json").read_text())
    (cache.folder / "plan.json").write_text(json.dumps(plan | {"format_version": 3}))


def assert_same(left, right) -> None:
    for name in windows.Window.__dataclass_fields__:
        mine, other = getattr(left, name), getattr(right, name)
        assert mine.dtype == other.dtype, name
        assert torch.equal(mine, other), name


@pytest.mark.parametrize(
    ("sampling", "mix"),
    [
        (STRIDE, MixConfig()),
        (replace(STRIDE, moving_object_weight=3.0), MixConfig((1.0, 2.0))),
        (PAPER, MixConfig()),
    ],
    ids=["stride", "moving objects, mixed", "paper"],
)
def test_batches_are_those_of_labels_held_in_memory(tmp_path, small_blocks, write_dataset, make_cache, sampling, mix):
    lengths = {"one": ([30, 7, 21], 9), "two": ([25, 16], None)}
    mapped = [make_cache(each, name, moving) for name, (each, moving) in lengths.items()]
    datasets = [write_dataset(tmp_path / name, *each) for name, each in lengths.items()]
    held = [replace(cache, labels=in_memory(dataset)) for cache, dataset in zip(mapped, datasets, strict=True)]
    assert all(isinstance(cache.labels, MappedLabels) for cache in mapped)
    samplers = [WindowSampler(caches, sampling, 3, [np.array([0, 1])] * 2, mix=mix) for caches in (mapped, held)]
    for step in range(10):
        assert_same(*(sampler.batch(step, 16) for sampler in samplers))


def test_a_cache_of_the_version_before_is_read_as_it_is(tmp_path, write_dataset, brightness_encoder):
    dataset = write_dataset(tmp_path / "data", [12, 20], 5)
    cache = latent_cache(dataset, brightness_encoder, "b")
    expected = WindowSampler([cache], STRIDE, 0).batch(1, 8)
    make_earlier(cache, dataset)
    earlier = open_cache(dataset, "b")
    assert isinstance(earlier.labels, FrameLabels)
    assert not any(wrong for _, wrong in earlier.damaged())
    assert_same(WindowSampler([earlier], STRIDE, 0).batch(1, 8), expected)
    with pytest.raises(StaleCacheError, match=r"another version of dexworld; delete that folder"):
        compute_latents(dataset, brightness_encoder, "b", cache.folder)


def test_a_stopped_build_of_the_version_before_goes_on_and_ends_as_any_other(
    tmp_path, write_dataset, brightness_encoder
):
    dataset = write_dataset(tmp_path / "data", [12, 20])
    undisturbed, stopped = tmp_path / "undisturbed", tmp_path / "stopped"
    compute_latents(dataset, brightness_encoder, "b", undisturbed, frames_per_shard=8)
    compute_latents(dataset, brightness_encoder, "b", stopped, shard=Shard(0, 2), frames_per_shard=8)
    plan = json.loads((stopped / "plan.json").read_text())
    (stopped / "plan.json").write_text(json.dumps(plan | {"format_version": 3}))
    assert compute_latents(dataset, brightness_encoder, "b", stopped)
    for path in undisturbed.rglob("*.*"):
        assert path.read_bytes() == (stopped / path.relative_to(undisturbed)).read_bytes()


def test_records_are_what_the_episodes_say_across_the_edges_of_blocks(tmp_path, small_blocks, write_dataset):
    dataset = write_dataset(tmp_path / "data", [5, 8, 1, 17, 3], 2)
    labels = MappedLabels.opened(tmp_path, write_labels(dataset, tmp_path))
    rows = np.random.default_rng(0).permutation(34).reshape(2, 17)
    expected = np.concatenate([label_rows(dataset[index]) for index in range(5)])
    assert labels.take(rows).tobytes() == expected[rows].tobytes()
    assert labels.take(rows).shape == (2, 17)
    assert np.load(tmp_path / "frame_labels.npy", allow_pickle=False).tobytes() == expected.tobytes()
    np.testing.assert_array_equal(labels.moved(1e-3), expected["object_motion"] > 1e-3)
    assert labels.moved(1.0) is None
    copy = pickle.loads(pickle.dumps(labels))
    assert copy.take(rows).tobytes() == expected[rows].tobytes()
    with pytest.raises(IndexError, match="asked for of 34"):
        labels.take(np.array([34]))


def test_a_flipped_bit_is_found_by_whoever_looks_at_its_block(tmp_path, small_blocks, write_dataset):
    labels = MappedLabels.opened(tmp_path, write_labels(write_dataset(tmp_path / "data", [20]), tmp_path))
    path = tmp_path / "frame_labels.npy"
    content = bytearray(path.read_bytes())
    content[-5 * FRAME.itemsize] ^= 4  # in row 15, of the second of three blocks
    path.write_bytes(content)
    labels = MappedLabels(tmp_path, labels._arrays)
    labels.take(np.array([0, 7, 16]))
    with pytest.raises(ValueError, match=r"damaged between rows 8 and 15; delete episode_labels.npz and cache.json"):
        labels.take(np.array([3, 9]))
    assert list(labels.damaged()) == [("frame_labels.npy", True)]


@pytest.mark.parametrize("damage", ["cut", "gone", "other head", "other arrays"])
def test_what_opening_finds_is_mended_by_reading_only_the_labels_anew(
    tmp_path, write_dataset, brightness_encoder, damage
):
    dataset = write_dataset(tmp_path / "data", [5, 6])
    cache = latent_cache(dataset, brightness_encoder, "b")
    written = {path: path.read_bytes() for path in cache.folder.rglob("*.*")}
    path = cache.folder / ("episode_labels.npz" if damage == "other arrays" else "frame_labels.npy")
    path.unlink()
    if damage != "gone":
        content = written[path]
        path.write_bytes({"cut": content[:-1], "other head": b"x" + content[1:]}.get(damage, content + b"x"))
    with pytest.raises(StaleCacheError, match=r"delete episode_labels.npz and cache.json, and only the labels"):
        latent_cache(dataset, brightness_encoder, "b")
    for name in ("episode_labels.npz", "cache.json"):
        (cache.folder / name).unlink()

    def must_not_run(images):
        raise AssertionError("encoded again")

    latent_cache(dataset, must_not_run, "b")
    assert {path: path.read_bytes() for path in cache.folder.rglob("*.*")} == written


def test_memory_does_not_grow_with_frames_and_by_tens_of_bytes_with_episodes(tmp_path, numbered_episode):
    """The bound that the module states: 52 bytes an episode and 9 bytes per 1,024 frames."""
    episode = numbered_episode(0, 100)

    def kept_and_peak(episodes: int) -> tuple[int, int, MappedLabels]:
        class Same(SimpleNamespace):
            def __len__(self) -> int:
                return episodes

            def __getitem__(self, index):
                return episode

        folder = tmp_path / str(episodes)
        folder.mkdir()
        dataset = Same(lengths=(100,) * episodes, ids=("",) * episodes, folder=folder)
        tracemalloc.start()
        try:
            checksum = write_labels(dataset, folder)
            peak = tracemalloc.get_traced_memory()[1]
            before = tracemalloc.get_traced_memory()[0]
            labels = MappedLabels.opened(folder, checksum)
            for step in range(5):
                labels.take(np.random.default_rng(step).integers(0, 100 * episodes, (8, 9)))
            return tracemalloc.get_traced_memory()[0] - before, peak, labels
        finally:
            tracemalloc.stop()

    (few, low, _), (many, high, labels) = kept_and_peak(50), kept_and_peak(450)
    assert (tmp_path / "450" / "frame_labels.npy").stat().st_size > 29e6
    assert many - few < 400 * 100
    assert high < low + 400 * 500
    assert high < 5e6
    assert labels._checked.any()


def test_equal_weights_need_no_array_of_all_frames():
    generator = np.random.default_rng(0)
    for dataset_sizes in ([7], [4, 3]):
        lengths = [generator.integers(1, 50, size) for size in dataset_sizes]
        chosen = [np.arange(0, size, 2) for size in dataset_sizes]
        clips = Clips.of(lengths, [5.0] * len(lengths), chosen)
        ones = np.ones(int(clips.lengths.sum()))
        plain, weighted = StrideSampler(clips, STRIDE, 0), StrideSampler(clips, STRIDE, 0, weights=ones)
        total = (clips.lengths * clips.eligible).sum()
        edges = np.arange(total) / total
        chance = np.concatenate([generator.random(1000), edges, np.nextafter(edges[1:], 0), np.nextafter(edges, 1)])
        for mine, other in zip(plain._frame_at(chance), weighted._frame_at(chance), strict=True):
            np.testing.assert_array_equal(mine, other)
        assert len(plain._bounds) == len(clips.lengths) + 1
