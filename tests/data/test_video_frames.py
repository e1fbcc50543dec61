"""Single frames out of whole videos and of videos of many episodes: exact for every codec, order and process."""

import multiprocessing
import pickle

import numpy as np
import pytest
from lerobot_fixtures import CODECS, number_of, numbered_frame
from lerobot_fixtures import write_video as write_foreign_video

from dexworld.data.frame_table import frame_table
from dexworld.data.video import VideoError, write_video
from dexworld.data.video_frames import PackedFrames, VideoFrames
from dexworld.track import Frames

COUNT = 70
SIZE = (64, 96)
LENGTH, HEIGHT, WIDTH = 41, 48, 64


@pytest.fixture(scope="module", params=list(CODECS))
def video(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("videos") / f"{request.param}.mp4"
    write_foreign_video(path, [numbered_frame(number) for number in range(COUNT)], codec=request.param)
    return path


@pytest.fixture
def foreign(tmp_path):
    """30 numbered frames."""
    path = tmp_path / "video.mp4"
    write_foreign_video(path, [numbered_frame(number) for number in range(30)])
    return path


def shown(frames: np.ndarray) -> list[int]:
    return [number_of(frame) for frame in frames]


def numbers_in_child(frames, queue):
    queue.put(shown(frames.read([3, 30])))


def test_every_frame_of_an_episode_is_the_right_one_in_any_order(video):
    episode = PackedFrames(video, first_frame=17, count=41, size=SIZE, fps=30.0)
    order = np.random.default_rng(0).permutation(41).tolist()
    assert shown(episode.read(order)) == [17 + index for index in order]
    assert [number_of(episode.read([index])[0]) for index in order] == [17 + index for index in order]


def test_indices_may_repeat_and_none_may_be_asked_for(video):
    episode = PackedFrames(video, 5, 20, SIZE, 30.0)
    assert shown(episode.read([4, 4, 0, 19, 4])) == [9, 9, 5, 24, 9]
    assert episode.read([]).shape == (0, *SIZE, 3)


def test_the_last_frames_of_a_file_are_drained_from_the_decoder(video):
    assert shown(PackedFrames(video, COUNT - 3, 3, SIZE, 30.0).read([2, 0, 1])) == [COUNT - 1, COUNT - 3, COUNT - 2]
    assert shown(PackedFrames(video, 0, COUNT, SIZE, 30.0).read([0, 35])) == [0, 35]  # and it decodes again afterwards


def test_a_pickled_copy_and_a_forked_child_read_the_same(video):
    episode = PackedFrames(video, 10, 40, SIZE, 30.0)
    before = shown(episode.read([3, 30]))
    assert shown(pickle.loads(pickle.dumps(episode)).read([3, 30])) == before == [13, 40]
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=numbers_in_child, args=(episode, queue))
    child.start()
    assert queue.get(timeout=30) == before
    child.join(timeout=30)
    assert shown(episode.read([5])) == [15]


def test_a_start_in_seconds_wins_over_the_frame_number(video):
    assert shown(PackedFrames(video, 0, 10, SIZE, 30.0, start=20 / 30 + 0.004).read([0, 9])) == [20, 29]


def test_a_video_of_another_rate_or_size_or_too_short_does_not_fit_its_labels(foreign):
    for frames, wanted in (
        (PackedFrames(foreign, 0, 60, SIZE, 60.0), range(40)),
        (PackedFrames(foreign, 25, 10, SIZE, 30.0), [9]),
    ):
        with pytest.raises(VideoError, match="half a frame"):
            frames.read(list(wanted))
    with pytest.raises(VideoError, match="64 x 96"):
        PackedFrames(foreign, 0, 10, (96, 64), 30.0).read([0])


@pytest.mark.parametrize("damage", ["truncated", "no video at all", "missing"])
@pytest.mark.parametrize("frames", [lambda path: PackedFrames(path, 0, 30, SIZE, 30.0), VideoFrames])
def test_a_file_that_is_no_whole_video_is_named(foreign, damage, frames):
    content = {"truncated": foreign.read_bytes()[:-300], "no video at all": b"text"}.get(damage)
    foreign.unlink()
    if content is not None:
        foreign.write_bytes(content)
    with pytest.raises(VideoError, match=r"video\.mp4"):
        frames(foreign).read([0])


def test_a_file_that_took_the_name_of_another_is_read_anew(foreign):
    assert shown(PackedFrames(foreign, 0, 30, SIZE, 30.0).read([7])) == [7]
    write_foreign_video(foreign, [numbered_frame(100 + number) for number in range(24)])
    assert shown(PackedFrames(foreign, 0, 24, SIZE, 30.0).read([7, 23])) == [107, 123]


def test_only_the_group_of_a_frame_is_read(tmp_path):
    path = tmp_path / "video.mp4"
    write_foreign_video(path, [numbered_frame(number) for number in range(60)])
    table = frame_table(path)
    content = bytearray(path.read_bytes())
    assert table.keys.tolist() == [0, 12, 24, 36, 48]
    for packet in (*range(0, 24), *range(31, 60)):  # everything but the first frames of the third group
        offset, size = int(table.offsets[packet]), int(table.sizes[packet])
        content[offset : offset + size] = bytes(size)
    path.write_bytes(content)
    episode = PackedFrames(path, 0, 60, SIZE, 30.0)
    assert shown(episode.read([24, 30])) == [24, 30]
    with pytest.raises(VideoError, match="frame 31"):
        episode.read([31])


def grey_frames(length: int = LENGTH) -> np.ndarray:
    """Frames whose brightness says which they are (six grey levels apart, far above the codec's error)."""
    levels = np.arange(length, dtype=np.uint8) * 6
    return np.broadcast_to(levels[:, None, None, None], (length, HEIGHT, WIDTH, 3)).copy()


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("recording") / "numbered.mp4"
    write_video(path, grey_frames(), fps=5.0)
    return path


def levels_of(frames: np.ndarray) -> list[int]:
    return np.round(frames.mean(axis=(1, 2, 3)) / 6).astype(int).tolist()


@pytest.mark.parametrize("fps", [5.0, 10 / 3, 29.97, 0.5])
def test_random_access_finds_the_same_frames_as_decoding_them_all(tmp_path, fps):
    path = tmp_path / "video.mp4"
    write_video(path, grey_frames(), fps)
    frames = VideoFrames(path)
    everything = frames.read(list(range(LENGTH)))
    assert frames.fps == pytest.approx(fps, rel=1e-3)
    assert levels_of(everything) == list(range(LENGTH))
    generator = np.random.default_rng(0)
    for _ in range(20):
        indices = generator.integers(0, LENGTH, size=4)
        np.testing.assert_array_equal(frames.read(indices.tolist()), everything[indices])


def test_colours_survive_within_a_few_levels(tmp_path):
    column = np.linspace(0, 255, WIDTH)
    row = np.stack([column, column[::-1], np.full(WIDTH, 90)], -1).astype(np.uint8)
    frames = np.tile(row, (3, HEIGHT, 1, 1))
    write_video(tmp_path / "colour.mp4", frames, fps=5.0)
    decoded = VideoFrames(tmp_path / "colour.mp4").read([0, 1, 2])
    assert np.abs(decoded.astype(int) - frames).mean() < 3.0


def test_length_and_size_come_from_the_header_and_indices_outside_are_refused(recording):
    frames = pickle.loads(pickle.dumps(VideoFrames(recording)))
    assert isinstance(frames, Frames)
    assert (len(frames), frames.size) == (LENGTH, (HEIGHT, WIDTH))
    for wanted, held in ((frames, 40), (PackedFrames(recording, 0, 10, (HEIGHT, WIDTH), 5.0), 9)):
        for outside in (-1, held + 1):
            with pytest.raises(IndexError, match=rf"numbered\.mp4.*it holds 0 to {held}"):
                wanted.read([3, outside])


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
