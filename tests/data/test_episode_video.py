"""Video: frames come back in the order asked for, each the right one."""

import pickle

import numpy as np
import pytest

from dexworld.data.video import VideoError, write_video
from dexworld.data.video_frames import VideoFrames
from dexworld.track import Frames

LENGTH, HEIGHT, WIDTH = 41, 48, 64


def numbered_frames(length: int = LENGTH) -> np.ndarray:
    """Frames whose brightness says which they are (six grey levels apart, far above the codec's error)."""
    levels = np.arange(length, dtype=np.uint8) * 6
    return np.broadcast_to(levels[:, None, None, None], (length, HEIGHT, WIDTH, 3)).copy()


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "numbered.mp4"
    write_video(path, numbered_frames(), fps=5.0)
    return path


def frame_numbers(frames: np.ndarray) -> list[int]:
    return np.round(frames.mean(axis=(1, 2, 3)) / 6).astype(int).tolist()


@pytest.mark.parametrize(
    "indices", [[0], [LENGTH - 1], [40, 0, 7, 7, 33], list(range(LENGTH)), [5, 6], [11, 12, 13, 30], []]
)
def test_frames_come_back_in_the_order_asked_for(video, indices):
    assert frame_numbers(VideoFrames(video).read(indices)) == indices


@pytest.mark.parametrize("fps", [5.0, 10 / 3, 29.97, 0.5])
def test_random_access_finds_the_same_frames_as_decoding_them_all(tmp_path, fps):
    path = tmp_path / "video.mp4"
    write_video(path, numbered_frames(), fps)
    frames = VideoFrames(path)
    everything = frames.read(list(range(LENGTH)))
    assert frames.fps == pytest.approx(fps, rel=1e-3)
    assert frame_numbers(everything) == list(range(LENGTH))
    generator = np.random.default_rng(0)
    for _ in range(20):
        indices = generator.integers(0, LENGTH, size=4)
        np.testing.assert_array_equal(frames.read(indices.tolist()), everything[indices])


def test_colours_survive_within_a_few_levels(tmp_path):
    column = np.linspace(0, 255, WIDTH)
    image = np.stack(
        [np.tile(column, (HEIGHT, 1)), np.tile(column[::-1], (HEIGHT, 1)), np.full((HEIGHT, WIDTH), 90)], -1
    )
    frames = np.repeat(image[None].astype(np.uint8), 3, axis=0)
    write_video(tmp_path / "colour.mp4", frames, fps=5.0)
    decoded = VideoFrames(tmp_path / "colour.mp4").read([0, 1, 2])
    assert np.abs(decoded.astype(int) - frames).mean() < 3.0


def test_length_and_size_come_from_the_header_and_the_reader_can_be_pickled(video):
    frames = pickle.loads(pickle.dumps(VideoFrames(video)))
    assert isinstance(frames, Frames)
    assert len(frames) == LENGTH
    assert frames.size == (HEIGHT, WIDTH)


@pytest.mark.parametrize("index", [-1, LENGTH])
def test_an_index_outside_the_video_is_refused_by_name(video, index):
    with pytest.raises(IndexError, match=r"numbered\.mp4.*it holds 0 to 40"):
        VideoFrames(video).read([index])


def test_a_truncated_video_is_refused_by_name(video, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(video.read_bytes()[:-300])
    with pytest.raises(VideoError, match=r"broken\.mp4"):
        VideoFrames(broken).read([0])


@pytest.mark.parametrize("name", ["missing.mp4", "text.mp4"])
def test_what_is_no_video_is_refused_by_name(tmp_path, name):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(VideoError, match=name):
        len(VideoFrames(tmp_path / name))


@pytest.mark.parametrize(
    ("frames", "fps", "message"),
    [
        (np.zeros((2, 47, 64, 3), np.uint8), 5.0, "even"),
        (np.zeros((2, 48, 64, 3), np.float32), 5.0, "uint8"),
        (np.zeros((0, 48, 64, 3), np.uint8), 5.0, "T > 0"),
        (np.zeros((2, 48, 64, 3), np.uint8), 0.0, "fps"),
    ],
)
def test_what_can_not_be_written_is_refused(tmp_path, frames, fps, message):
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / "video.mp4", frames, fps)
