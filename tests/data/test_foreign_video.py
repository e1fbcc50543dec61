import pickle
import random
from contextlib import contextmanager

import av
import numpy as np
import pytest
from fuzz_damage import only_audio, rewrite_video
from video_fixtures import write_mp4

from dexworld.data.video import VideoError
from dexworld.data.video_frames import VideoFrames

LENGTH, HEIGHT, WIDTH = 70, 64, 96
EVEN = list(range(LENGTH))
UNEVEN = [2 * number + (7 if number > 30 else 0) + (number % 3 == 0) for number in range(LENGTH)]
CODECS = {
    "h264": ("libx264", {"g": "30", "bf": "3", "mbtree": "0"}),  # with mbtree, x264's bytes vary from run to run
    "h264 open groups": ("libx264", {"g": "24", "bf": "3", "x264-params": "open-gop=1"}),
    "hevc open groups": ("libx265", {"x265-params": "keyint=24:min-keyint=24:bframes=4:open-gop=1:log-level=none"}),
    "av1": ("libsvtav1", {"g": "25", "preset": "12"}),
}


def moving_texture():
    """(T, H, W, 3): smooth noise that drifts, so that neighbouring frames differ and predict each other."""
    noise = np.random.default_rng(0).uniform(0, 255, (HEIGHT + 16, WIDTH + 16, 3))
    smooth = sum(np.roll(noise, (row, column), (0, 1)) for row in range(4) for column in range(4)) / 16
    frames = np.stack([np.roll(smooth, (2 * time, 3 * time), (0, 1))[:HEIGHT, :WIDTH] for time in range(LENGTH)])
    frames[:, :8, :8] = 3.0 * np.arange(LENGTH)[:, None, None, None]
    return frames.clip(0, 255).astype(np.uint8)


def write(path, codec="h264", **arguments):
    name, options = CODECS[codec]
    write_mp4(path, moving_texture(), codec=name, **arguments, **options)
    return path


def decoded_in_order(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


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


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write(tmp_path_factory.mktemp("clip") / "0.mp4")


@pytest.mark.parametrize("times", [EVEN, UNEVEN], ids=["even times", "uneven times"])
@pytest.mark.parametrize("codec", CODECS)
def test_every_frame_is_the_one_that_decoding_in_order_gives(tmp_path, codec, times):
    path = write(tmp_path / "0.mp4", codec, times=times)
    truth, frames = decoded_in_order(path), VideoFrames(path, uneven=True)
    assert len(frames) == len(truth) == LENGTH
    assert frames.size == (HEIGHT, WIDTH)
    for index in range(LENGTH):
        np.testing.assert_array_equal(frames.read([index])[0], truth[index], err_msg=f"frame {index} alone")
    shuffled = np.random.default_rng(1).permutation(LENGTH)[:20].tolist()
    shuffled += [3, 3]
    np.testing.assert_array_equal(frames.read(shuffled), truth[shuffled])
    np.testing.assert_array_equal(np.stack(list(frames.sequential())), truth)


@pytest.mark.parametrize("codec", ["h264 open groups", "hevc open groups"])
def test_the_open_groups_of_this_test_do_have_pictures_that_lack_a_reference(tmp_path, codec):
    with av.open(str(write(tmp_path / "0.mp4", codec))) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    keys = [place for place, packet in enumerate(packets) if packet.is_keyframe]
    assert len(keys) > 2
    assert all(packets[key + 1].pts < packets[key].pts for key in keys[1:-1])


def test_uneven_frames_have_their_mean_rate(tmp_path):
    frames = VideoFrames(write(tmp_path / "0.mp4", times=UNEVEN), uneven=True)
    assert frames.fps == pytest.approx(LENGTH / (UNEVEN[-1] / 30), rel=0.02)
    assert VideoFrames(write(tmp_path / "1.mp4"), uneven=True).fps == 30


def test_frames_in_order_can_be_made_smaller_while_they_are_decoded(clip):
    truth = decoded_in_order(clip).astype(float)
    small = np.stack(list(VideoFrames(clip, uneven=True).sequential((HEIGHT // 2, WIDTH // 2))))
    averaged = truth.reshape(LENGTH, HEIGHT // 2, 2, WIDTH // 2, 2, 3).mean(axis=(2, 4))
    assert small.shape == (LENGTH, HEIGHT // 2, WIDTH // 2, 3)
    brightness = [0.299, 0.587, 0.114]  # colour is stored at half the resolution already
    assert np.abs(small @ brightness - averaged @ brightness).mean() < 1.0
    pictures = list(VideoFrames(clip, uneven=True).pictures((HEIGHT // 2, WIDTH // 2)))
    assert len(pictures) == LENGTH
    assert {(picture.format.name, picture.height, picture.width) for picture in pictures} == {("yuv420p", 32, 48)}


def test_frames_can_be_sent_to_another_process(clip):
    frames = VideoFrames(clip, uneven=True)
    expected = frames.read([40, 2])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(frames)).read([40, 2]), expected)
    assert frames.read([]).shape == (0, HEIGHT, WIDTH, 3)


def test_a_fragmented_file_is_counted_by_its_packets(tmp_path):
    path = write(tmp_path / "0.mp4", container_options={"movflags": "frag_keyframe+empty_moov"})
    frames = VideoFrames(path, uneven=True)
    assert len(frames) == LENGTH
    np.testing.assert_array_equal(frames.read([45])[0], decoded_in_order(path)[45])


@pytest.mark.parametrize("codec", ["h264", "hevc open groups"])
def test_frames_that_were_trimmed_away_without_encoding_again_do_not_count(tmp_path, codec):
    whole, path = write(tmp_path / "whole.mp4", codec), tmp_path / "0.mp4"
    with remuxed(whole, path) as packets:
        ticks = round(10 / 30 / packets[0].time_base)
        for packet in packets:
            packet.pts, packet.dts = packet.pts - ticks, packet.dts - ticks
    frames, truth = VideoFrames(path, uneven=True), decoded_in_order(whole)[10:]
    assert len(frames) == LENGTH - 10
    np.testing.assert_array_equal(np.stack(list(frames.sequential())), truth)
    np.testing.assert_array_equal(frames.read([0, 7, 30, 59]), truth[[0, 7, 30, 59]])


def test_indices_outside_are_errors(clip):
    with pytest.raises(IndexError, match=r"0\.mp4: frames 0 to 70 asked for, it holds 0 to 69"):
        VideoFrames(clip, uneven=True).read([0, LENGTH])
    with pytest.raises(IndexError):
        VideoFrames(clip, uneven=True).read([-1])


def test_what_is_no_video_is_named(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").touch()
    rewrite_video(write(tmp_path / "none.mp4"), count=lambda count: 0)
    only_audio(tmp_path / "sound.mp4", random.Random(0))
    for name in ("text", "empty", "none", "sound", "missing"):
        with pytest.raises(VideoError, match=rf"{name}\.mp4: (can't be opened|holds no video|frames)"):
            len(VideoFrames(tmp_path / f"{name}.mp4", uneven=True))


def test_a_truncated_file_is_an_error_and_never_a_shorter_video(tmp_path, clip):
    content = clip.read_bytes()
    for share in (0.2, 0.6, 0.95):
        path = tmp_path / f"{share}.mp4"
        path.write_bytes(content[: int(share * len(content))])
        for reading in (lambda frames: frames.read([0, 60]), lambda frames: list(frames.sequential())):
            with pytest.raises(VideoError, match=rf"{share}\.mp4"):
                reading(VideoFrames(path, uneven=True))


def test_a_file_whose_end_was_lost_after_its_index_names_the_missing_frames(tmp_path):
    path = write(tmp_path / "0.mp4", container_options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(VideoError, match=r"0\.mp4: (\d+ of 70 frames are there|frame|packet)"):
        VideoFrames(path, uneven=True).read([0])
    with pytest.raises(VideoError, match=r"0\.mp4: (frame \d+|packet)"):
        list(VideoFrames(path, uneven=True).sequential())


def test_damaged_pictures_are_errors_and_not_painted_over(tmp_path, clip):
    content = bytearray(clip.read_bytes())
    with av.open(str(clip)) as container:
        packet = next(packet for packet in container.demux(video=0) if packet.pts and packet.is_keyframe)
        start, size = packet.pos, packet.size
    content[start + size // 2 : start + size // 2 + 40] = np.random.default_rng(0).bytes(40)
    path = tmp_path / "0.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoError, match=r"0\.mp4: frame \d+"):
        list(VideoFrames(path, uneven=True).sequential())
    with pytest.raises(VideoError, match=r"0\.mp4: frame 50"):
        VideoFrames(path, uneven=True).read([50])
    np.testing.assert_array_equal(VideoFrames(path, uneven=True).read([20]), VideoFrames(clip, uneven=True).read([20]))


def test_two_frames_at_one_time_are_an_error(tmp_path, clip):
    path = tmp_path / "0.mp4"
    with remuxed(clip, path) as packets:
        packets[12].pts = packets[11].pts
    with pytest.raises(VideoError, match=r"0\.mp4: .*frames \d+ and \d+ have the same time"):
        VideoFrames(path, uneven=True).read([0])
    with pytest.raises(VideoError, match=r"0\.mp4: (frame \d+ has time|frame \d+ is missing|more frames)"):
        list(VideoFrames(path, uneven=True).sequential())
