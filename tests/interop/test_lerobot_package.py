"""LeRobot opens our stores, and what LeRobot writes is read exactly. The rules stand in tests/data without LeRobot."""

import importlib.util

import lerobot_fixtures
import numpy as np
import pytest
import torch
from store_fixtures import make_episode, prepare

from dexworld.data.readers.lerobot import LeRobotOptions, open_lerobot
from dexworld.data.store.store_settings import PrepareSettings

CAMERA = "observation.images.main"
LENGTHS = (9, 7, 8)


def pixels_of(item: dict, key: str) -> np.ndarray:
    """(H, W, 3) uint8 of a LeRobot item, which holds (3, H, W) floats."""
    return (item[key] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


@pytest.fixture
def open_theirs(foreign, monkeypatch):
    """`open_theirs(folder)` is the dataset as LeRobot reads it, without a network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    package = foreign("lerobot.datasets.lerobot_dataset")
    backend = "torchcodec" if importlib.util.find_spec("torchcodec") else "pyav"
    return lambda folder: package.LeRobotDataset("dexworld/test", root=folder, video_backend=backend)


@pytest.mark.parametrize("codec", ["h264", "jpeg"])
def test_lerobot_opens_a_store_with_no_pixel_different(tmp_path, codec, open_theirs):
    items = [(f"e{n}", lambda n=n, length=length: make_episode(n, length)) for n, length in enumerate(LENGTHS)]
    settings = PrepareSettings(height=64, width=96, pack_episodes=2, fps=10.0, codec=codec)
    ours = prepare(tmp_path, [items[:2], items[2:]], settings)
    theirs = open_theirs(tmp_path)
    assert (len(theirs), theirs.num_episodes, theirs.fps) == (sum(LENGTHS), len(LENGTHS), 10)
    rows = iter(range(len(theirs)))
    for index, episode in enumerate(ours):
        frames = episode.frames.read(range(len(episode)))
        for frame, row in zip(frames, rows, strict=False):
            item = theirs[row]
            assert (int(item["episode_index"]), item["task"]) == (index, episode.task)
            np.testing.assert_array_equal(pixels_of(item, CAMERA), frame)


@pytest.mark.parametrize("kind", ["image", "video"])
def test_what_lerobot_writes_is_read_exactly(tmp_path, kind, open_theirs, foreign):
    package = foreign("lerobot.datasets.lerobot_dataset").LeRobotDataset
    size, names = (64, 96), ["height", "width", "channels"]
    features = {
        "observation.images.top": {"dtype": kind, "shape": (*size, 3), "names": names},
        "observation.state": {"dtype": "float32", "shape": (6,), "names": [f"joint{number}" for number in range(6)]},
        "action": {"dtype": "float32", "shape": (6,), "names": None},
    }
    folder, generator = tmp_path / "theirs", np.random.default_rng(4)
    written = package.create("dexworld/test", 30, features, root=folder, use_videos=kind == "video", vcodec="h264")
    states = [generator.normal(size=(length, 6)).astype(np.float32) for length in LENGTHS]
    for number, state in enumerate(states):
        for time, row in enumerate(state):
            picture = lerobot_fixtures.numbered_frame(100 * number + time, size)
            frame = {"observation.images.top": picture, "observation.state": row, "action": -row}
            written.add_frame(frame | {"task": f"task {number}"})
        written.save_episode()
    written.finalize()
    theirs, ours = open_theirs(folder), open_lerobot(folder, LeRobotOptions(joint_positions="observation.state"))
    assert (len(ours), ours.quarantined) == (len(LENGTHS), ())
    row = 0
    for number, state in enumerate(states):
        episode = ours[number]
        assert (episode.fps, episode.task) == (30.0, f"task {number}")
        np.testing.assert_array_equal(episode.columns["joint_positions"], state)
        np.testing.assert_array_equal(episode.columns["action"], -state)
        for time, frame in enumerate(episode.frames.read(range(len(state)))):
            truth = lerobot_fixtures.numbered_frame(100 * number + time, size)
            truth = pixels_of(theirs[row], "observation.images.top") if kind == "video" else truth
            np.testing.assert_array_equal(frame, truth)
            assert lerobot_fixtures.number_of(frame) == 100 * number + time
            row += 1
