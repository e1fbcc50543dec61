"""Frames out of whole videos and of videos of many episodes: exact for every codec, order and process."""

import os
import random
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest
from fuzz_damage import no_frames, only_audio
from lerobot_fixtures import CODECS, number_of, numbered_frame
from lerobot_fixtures import write_video as write_numbered
from video_fixtures import write_mp4

from dexworld.data.frame_table import frame_table
from dexworld.data.video import VideoError, write_video
from dexworld.data.video_frames import PackedFrames, VideoFrames
from dexworld.track import Frames

LENGTH, SIZE = 70, (64, 96)
HEIGHT, WIDTH = SIZE
EVEN = list(range(LENGTH))
UNEVEN = [2 * number + (7 if number > 30 else 0) + (number % 3 == 0) for number in range(LENGTH)]
FOREIGN = {  # long groups, B-frames, open groups
    "h264": ("libx264", {"g": "30", "bf": "3", "mbtree": "0"}),  # with mbtree, x264's bytes vary from run to run
    "h264 open groups": ("libx264", {"g": "24", "bf": "3", "x264-params": "open-gop=1"}),
    "h264 short open groups": ("libx264", {"g": "12", "bf": "3", "x264-params": "open-gop=1"}),
    "hevc open groups": ("libx265", {"x265-params": "keyint=24:min-keyint=24:bframes=4:open-gop=1:log-level=none"}),
    "av1": ("libsvtav1", {"g": "25", "preset": "12"}),
}


@pytest.fixture(scope="module", params=list(CODECS))
def video(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("videos") / f"{request.param}.mp4"
    write_numbered(path, [numbered_frame(number) for number in range(LENGTH)], codec=request.param)
    return path


@pytest.fixture
def short(tmp_path):
    """30 numbered frames."""
    path = tmp_path / "video.mp4"
    write_numbered(path, [numbered_frame(number) for number in range(30)])
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write(tmp_path_factory.mktemp("clip") / "0.mp4")


def shown(frames: np.ndarray) -> list[int]:
    return [number_of(frame) for frame in frames]


# In a process of its own: one that other tests have given threads must not be forked.
FORKS = """
import multiprocessing, pickle, sys
from lerobot_fixtures import number_of
from dexworld.data.video_frames import PackedFrames, VideoFrames

def read(frames, indices):
    return [number_of(frame) for frame in frames.read(indices)]

for frames in (PackedFrames(sys.argv[1], 10, 40, (64, 96), 30.0), VideoFrames(sys.argv[1], 10, 40)):
    assert read(frames, [3, 30]) == read(pickle.loads(pickle.dumps(frames)), [3, 30]) == [13, 40]
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(read, (frames, [3, 30])).get(60) == [13, 40]
    assert read(frames, [5]) == [15]
"""


def moving_texture():
    """(T, H, W, 3): smooth noise that drifts, so that neighbouring frames differ and predict each other."""
    noise = np.random.default_rng(0).uniform(0, 255, (HEIGHT + 16, WIDTH + 16, 3))
    smooth = sum(np.roll(noise, (row, column), (0, 1)) for row in range(4) for column in range(4)) / 16
    frames = np.stack([np.roll(smooth, (2 * time, 3 * time), (0, 1))[:HEIGHT, :WIDTH] for time in range(LENGTH)])
    frames[:, :8, :8] = 3.0 * np.arange(LENGTH)[:, None, None, None]
    return frames.clip(0, 255).astype(np.uint8)


def write(path, codec="h264", **arguments):
    name, options = FOREIGN[codec]
    write_mp4(path, moving_texture(), codec=name, **arguments, **options)
    return path


def foreign(path):
    return VideoFrames(path, uneven=True)


def stacked(pictures):
    return np.stack([picture.to_ndarray(format="rgb24") for picture in pictures])


def decoded_in_order(path):
    with av.open(str(path)) as container:
        return stacked(container.decode(video=0))


@contextmanager
def remuxed(path, target_path):
    """The packets of a video, to be changed before they are written to another file as they are."""
    with av.open(str(path)) as source, av.open(str(target_path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        yield packets
        for packet in packets:
            packet.stream = stream
            target.mux(packet)


def test_every_frame_of_an_episode_is_the_right_one_in_any_order(video):
    episode = PackedFrames(video, first_frame=17, count=41, size=SIZE, fps=30.0)
    order = [4, 4, *np.random.default_rng(0).permutation(41).tolist()]
    assert shown(episode.read(order)) == [17 + index for index in order]
    assert [number_of(episode.read([index])[0]) for index in order] == [17 + index for index in order]
    assert episode.read([]).shape == (0, *SIZE, 3)
    later = PackedFrames(video, 0, 10, SIZE, 30.0, start=20 / 30 + 0.004)  # seconds win over the frame number
    assert shown(later.read([0, 9])) == [20, 29]


def test_the_last_frames_of_a_file_are_drained_from_the_decoder(video):
    assert shown(PackedFrames(video, LENGTH - 3, 3, SIZE, 30.0).read([2, 0, 1])) == [LENGTH - 1, LENGTH - 3, LENGTH - 2]
    assert shown(PackedFrames(video, 0, LENGTH, SIZE, 30.0).read([0, 35])) == [0, 35]  # and it decodes again afterwards


@pytest.mark.parametrize("times", [EVEN, UNEVEN], ids=["even times", "uneven times"])
@pytest.mark.parametrize("codec", FOREIGN)
def test_every_frame_is_the_one_that_decoding_in_order_gives(tmp_path, codec, times):
    path = write(tmp_path / "0.mp4", codec, times=times)
    truth, frames = decoded_in_order(path), foreign(path)
    assert (len(frames), frames.size) == (len(truth), SIZE)
    for index in range(LENGTH):
        np.testing.assert_array_equal(frames.read([index])[0], truth[index], err_msg=f"frame {index} alone")
    shuffled = [*np.random.default_rng(1).permutation(LENGTH)[:20].tolist(), 3, 3]
    np.testing.assert_array_equal(frames.read(shuffled), truth[shuffled])
    np.testing.assert_array_equal(stacked(frames.pictures()), truth)


@pytest.mark.parametrize("codec", ["h264 open groups", "hevc open groups"])
def test_the_open_groups_of_this_test_do_have_pictures_that_lack_a_reference(tmp_path, codec):
    with av.open(str(write(tmp_path / "0.mp4", codec))) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    keys = [place for place, packet in enumerate(packets) if packet.is_keyframe]
    assert len(keys) > 2
    assert all(packets[key + 1].pts < packets[key].pts for key in keys[1:-1])


@pytest.mark.parametrize("fps", [5.0, 10 / 3, 29.97, 0.5])
def test_frames_of_every_rate_are_found_by_their_times(tmp_path, fps):
    write_video(tmp_path / "video.mp4", np.stack([numbered_frame(number) for number in range(41)]), fps)
    frames = VideoFrames(tmp_path / "video.mp4")
    assert isinstance(frames, Frames)
    assert frames.fps == pytest.approx(fps, rel=1e-3)
    indices = np.random.default_rng(0).integers(0, 41, size=60).tolist()
    assert shown(frames.read(indices)) == indices


def test_frames_in_order_can_be_made_smaller_while_they_are_decoded(clip):
    truth = decoded_in_order(clip).astype(float)
    small = stacked(foreign(clip).pictures((HEIGHT // 2, WIDTH // 2)))
    averaged = truth.reshape(LENGTH, HEIGHT // 2, 2, WIDTH // 2, 2, 3).mean(axis=(2, 4))
    brightness = [0.299, 0.587, 0.114]  # colour is stored at half the resolution already
    assert np.abs(small @ brightness - averaged @ brightness).mean() < 1.0
    pictures = list(foreign(clip).pictures((HEIGHT // 2, WIDTH // 2), "yuv420p"))
    assert len(pictures) == LENGTH
    assert {(picture.format.name, picture.height, picture.width) for picture in pictures} == {("yuv420p", 32, 48)}


def test_a_pickled_copy_and_a_forked_child_read_the_same(video):
    here = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run([sys.executable, "-c", FORKS, video], env=here, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_video_of_another_rate_or_size_or_too_short_does_not_fit_its_labels(short):
    for frames, wanted in (
        (PackedFrames(short, 0, 60, SIZE, 60.0), range(40)),
        (PackedFrames(short, 25, 10, SIZE, 30.0), [9]),
    ):
        with pytest.raises(VideoError, match="half a frame"):
            frames.read(list(wanted))
    with pytest.raises(VideoError, match="64 x 96"):
        PackedFrames(short, 0, 10, (96, 64), 30.0).read([0])


def test_indices_outside_are_refused(short):
    for frames, last in ((VideoFrames(short), 29), (PackedFrames(short, 0, 10, SIZE, 30.0), 9)):
        for outside in (-1, last + 1):
            with pytest.raises(IndexError, match=rf"video\.mp4.*it holds 0 to {last}"):
                frames.read([3, outside])


def test_what_is_no_whole_video_is_named_and_never_a_shorter_one(tmp_path, clip):
    content = clip.read_bytes()
    for share in (0.2, 0.6, 0.95, 0.998):
        (tmp_path / f"{share}.mp4").write_bytes(content[: int(share * len(content))])
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").touch()
    no_frames(tmp_path / "none.mp4", random.Random(0))
    only_audio(tmp_path / "sound.mp4", random.Random(0))
    for path in (*tmp_path.glob("*.mp4"), tmp_path / "missing.mp4"):
        packed = PackedFrames(path, 0, 30, SIZE, 30.0)
        for read in (packed.read, VideoFrames(path).read, lambda _, path=path: list(foreign(path).pictures())):
            with pytest.raises(VideoError, match=rf"{path.name}: (can't be opened|holds no video)"):
                read([0])


def test_a_file_that_took_the_name_of_another_is_read_anew(short):
    assert shown(PackedFrames(short, 0, 30, SIZE, 30.0).read([7])) == [7]
    write_numbered(short, [numbered_frame(100 + number) for number in range(24)])
    assert shown(PackedFrames(short, 0, 24, SIZE, 30.0).read([7, 23])) == [107, 123]


def test_only_the_group_of_a_frame_is_read(tmp_path):
    path = tmp_path / "video.mp4"
    write_numbered(path, [numbered_frame(number) for number in range(60)])
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


def test_a_file_whose_end_was_lost_after_its_index_names_the_missing_frames(tmp_path):
    path = write(tmp_path / "0.mp4", container_options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(VideoError, match=r"0\.mp4: (\d+ of 70 frames are there|frame|packet)"):
        foreign(path).read([0])
    with pytest.raises(VideoError, match=r"0\.mp4: (frame \d+|packet)"):
        list(foreign(path).pictures())


def test_damaged_pictures_are_errors_and_not_painted_over(tmp_path, clip):
    content, table = bytearray(clip.read_bytes()), frame_table(clip)
    start, size = int(table.offsets[table.keys[1]]), int(table.sizes[table.keys[1]])
    content[start + size // 2 : start + size // 2 + 40] = np.random.default_rng(0).bytes(40)
    path = tmp_path / "0.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoError, match=r"0\.mp4: frame \d+"):
        list(foreign(path).pictures())
    with pytest.raises(VideoError, match=r"0\.mp4: frame 50"):
        foreign(path).read([50])
    np.testing.assert_array_equal(foreign(path).read([20]), foreign(clip).read([20]))


def test_two_frames_at_one_time_are_an_error(tmp_path, clip):
    path = tmp_path / "0.mp4"
    with remuxed(clip, path) as packets:
        packets[12].pts = packets[11].pts
    with pytest.raises(VideoError, match=r"0\.mp4: .*frames \d+ and \d+ have the same time"):
        foreign(path).read([0])
    with pytest.raises(VideoError, match=r"0\.mp4: (frame \d+ has time|frame \d+ is missing|more frames)"):
        list(foreign(path).pictures())


def test_colours_survive_within_a_few_levels(tmp_path):
    column = np.linspace(0, 255, WIDTH)
    row = np.stack([column, column[::-1], np.full(WIDTH, 90)], -1).astype(np.uint8)
    frames = np.tile(row, (3, HEIGHT, 1, 1))
    write_video(tmp_path / "colour.mp4", frames, fps=5.0)
    decoded = VideoFrames(tmp_path / "colour.mp4").read([0, 1, 2])
    assert np.abs(decoded.astype(int) - frames).mean() < 3.0


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
