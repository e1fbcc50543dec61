"""Single frames out of videos of many episodes: exact for every codec, order and process."""

import multiprocessing
import pickle

import numpy as np
import pytest
from lerobot_fixtures import CODECS, number_of, numbered_frame, write_video

from dexworld.data.video import VideoError
from dexworld.data.video_frames import PackedFrames, frame_table

COUNT = 70
SIZE = (64, 96)


@pytest.fixture(scope="module", params=list(CODECS))
def video(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("videos") / f"{request.param}.mp4"
    write_video(path, [numbered_frame(number) for number in range(COUNT)], codec=request.param)
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


def test_an_index_outside_the_episode_is_an_error(video):
    with pytest.raises(IndexError, match="holds 0 to 9"):
        PackedFrames(video, 0, 10, SIZE, 30.0).read([3, 10])


def test_a_video_of_another_rate_or_too_short_does_not_fit_its_labels(tmp_path):
    path = tmp_path / "video.mp4"
    write_video(path, [numbered_frame(number) for number in range(30)])
    with pytest.raises(VideoError, match="half a frame"):
        PackedFrames(path, 0, 60, SIZE, 60.0).read(list(range(40)))
    with pytest.raises(VideoError, match="half a frame"):
        PackedFrames(path, 25, 10, SIZE, 30.0).read([9])


def test_a_truncated_or_foreign_file_is_named(tmp_path):
    path = tmp_path / "video.mp4"
    write_video(path, [numbered_frame(number) for number in range(30)])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(VideoError, match=r"video\.mp4"):
        PackedFrames(path, 0, 30, SIZE, 30.0).read([0])
    path.write_bytes(b"no video at all")
    with pytest.raises(VideoError, match=r"video\.mp4"):
        PackedFrames(path, 0, 30, SIZE, 30.0).read([0])
    with pytest.raises(VideoError, match=r"missing\.mp4"):
        PackedFrames(tmp_path / "missing.mp4", 0, 30, SIZE, 30.0).read([0])


def test_a_file_that_took_the_name_of_another_is_read_anew(tmp_path):
    path = tmp_path / "video.mp4"
    write_video(path, [numbered_frame(number) for number in range(20)])
    assert shown(PackedFrames(path, 0, 20, SIZE, 30.0).read([7])) == [7]
    write_video(path, [numbered_frame(100 + number) for number in range(24)])
    assert shown(PackedFrames(path, 0, 24, SIZE, 30.0).read([7, 23])) == [107, 123]


def test_only_the_group_of_a_frame_is_read(tmp_path):
    path = tmp_path / "video.mp4"
    write_video(path, [numbered_frame(number) for number in range(60)])
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


def test_a_size_other_than_the_description_says_is_an_error(tmp_path):
    path = tmp_path / "video.mp4"
    write_video(path, [numbered_frame(number) for number in range(10)])
    with pytest.raises(VideoError, match="64 x 96"):
        PackedFrames(path, 0, 10, (96, 64), 30.0).read([0])
