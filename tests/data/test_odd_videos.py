"""Videos as phones, recorders and editors leave them: right by every way of reading, or refused with the cause.

A picture has four flat quadrants: grey that tells its number, then red, green and blue, which tell its orientation and
its colours.
"""

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
import pytest
from droid_fixtures import write_episode
from droid_lerobot_fixtures import write_dataset as write_droid_lerobot
from egodex_fixtures import make_clip, write_clip
from lerobot_fixtures import write_dataset

from dexworld.data.frame_table import frame_table
from dexworld.data.readers.droid import open_droid
from dexworld.data.readers.droid_lerobot import open_droid_lerobot
from dexworld.data.readers.egodex import open_egodex
from dexworld.data.readers.lerobot import LeRobotOptions, open_lerobot
from dexworld.data.source import CorruptEpisodeError
from dexworld.data.store.encode import encode_episode
from dexworld.data.store.store_settings import PrepareSettings
from dexworld.data.video import VideoError
from dexworld.data.video_frames import PackedFrames, VideoFrames
from dexworld.video.clips.clip import ClipShape
from dexworld.video.clips.triplets import open_triplets
from dexworld.video.real.source_video import ClipRules, count_frames, read_clip
from dexworld.video.real.validate_clips import validate_triplets

COUNT, RATE = 9, 8
COLOURS = [(200, 40, 40), (40, 180, 60), (50, 60, 210)]
CUT = 5  # pictures before the first shown one
BEFORE = range(-CUT, COUNT)
B_FRAMES = {"bf": "3", "g": "30", "b-pyramid": "none"}
OPEN_GROUPS = {"x265-params": "keyint=5:min-keyint=5:scenecut=0:bframes=4:b-adapt=0:open-gop=1:log-level=none"}
MIRROR = (-(1 << 16), 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)


def scene(number: int) -> np.ndarray:
    """(96, 128, 3) uint8, picture `number` from -5 to 8."""
    grey = 120 + 12 * number
    image = np.zeros((96, 128, 3), np.uint8)
    quadrants = zip([(0, 0), (0, 64), (48, 0), (48, 64)], [(grey, grey, grey), *COLOURS], strict=True)
    for (row, column), colour in quadrants:
        image[row : row + 48, column : column + 64] = colour
    return image


def quadrants_of(images: np.ndarray) -> np.ndarray:
    """(T, 4, 3) mean colours in the middles of the quadrants."""
    down, across = images.shape[1] // 8, images.shape[2] // 8
    parts = [images[:, r * down : (r + 2) * down, c * across : (c + 2) * across] for r in (1, 5) for c in (1, 5)]
    return np.stack([part.mean(axis=(1, 2)) for part in parts], axis=1)


def write(path, images=None, codec="libx264", pixels="yuv420p", form=None, times=None, space=None, **options):
    """An encoded video, picture i at times[i] ms. space: matrix, primaries, transfer, range of ITU-T H.273."""
    audio, mux, turn = (options.pop(name, None) for name in ("audio", "mux", "turn"))
    images = [scene(number) for number in range(COUNT)] if images is None else images
    with av.open(str(path), "w", format=form, options=mux or {}) as container:
        sound = container.add_stream("aac", rate=44100, layout="mono") if audio else None
        stream = container.add_stream(codec, rate=RATE, options=({"crf": "4"} if "x26" in codec else {}) | options)
        (stream.height, stream.width), stream.pix_fmt, context = images[0].shape[:2], pixels, stream.codec_context
        context.thread_count, context.time_base = 1, Fraction(1, 1000) if codec != "mpeg4" else Fraction(1, RATE)
        if turn is not None:
            stream.set_display_rotation(turn) if isinstance(turn, int) else stream.set_display_matrix(turn)
        if space:
            context.colorspace, context.color_primaries, context.color_trc, context.color_range = space
        for place in range(3) if sound else ():
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.sample_rate, silence.pts = 44100, 1024 * place
            container.mux(sound.encode(silence))
        for place, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            if space:
                frame = frame.reformat(format=pixels, dst_colorspace=space[0], dst_color_range=space[3])
            frame.pts, frame.time_base = times[place] if times else 1000 // RATE * place, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound:
            container.mux(sound.encode())


def copied(path, form, change: Callable[[list], list], turn=None, **options):
    """The packets of a video as `change` leaves them, in a container of another form under the same name."""
    source = shutil.move(path, path.with_suffix(".source"))
    with av.open(str(source)) as before, av.open(str(path), "w", format=form, options=options) as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        if turn is not None:
            stream.set_display_rotation(turn)
        for packet in change([packet for packet in before.demux(video=0) if packet.size]):
            packet.stream = stream
            after.mux(packet)


def trimmed(path, **options):
    """What `ffmpeg -ss T -i IN -c copy OUT` leaves: pictures before T are in the file, and hidden by an edit list."""

    def shift(packets):
        ticks = sorted(packet.pts for packet in packets)[CUT]
        for packet in packets:
            packet.pts, packet.dts = packet.pts - ticks, packet.dts - ticks
        return packets

    write(path, [scene(number) for number in BEFORE], **options)
    copied(path, "mp4", shift, avoid_negative_ts="disabled")


def cut_in_an_open_group(path):
    """Starts at a key frame behind which pictures lie that are shown before it and refer to a picture that is gone."""
    write(path, [scene(number) for number in BEFORE], "libx265", form="mp4", **OPEN_GROUPS)

    def from_second_key(packets):
        packets = packets[[place for place, packet in enumerate(packets) if packet.is_keyframe][1] :]
        assert packets[1].pts < packets[0].pts
        return packets

    copied(path, "matroska", from_second_key)


def with_long_last(path):
    def lengthen(packets):
        packets[-1].duration *= 12
        return packets

    write(path, bf="0")
    copied(path, "mp4", lengthen)


def filmed(turns, **options):
    """Pictures stored so that `turns` quarter turns counter-clockwise show them upright, and a flag that says so."""
    return lambda path: write(path, [np.rot90(scene(i), -turns) for i in range(COUNT)], turn=90 * turns, **options)


def made(*arguments, **options):
    return lambda path: write(path, None, *arguments, **options)


@dataclass(frozen=True)
class Kind:
    """How a video is made. refused: the message of whatever reads by number and time. clip: the pictures of a clip."""

    make: Callable
    suffix: str = "mp4"
    refused: str = ""
    by_order: bool = True
    clip: tuple[int, ...] | str = tuple(range(COUNT))


WOBBLE = [0, 90, 240, 390, 470, 790, 800, 880, 990]
KINDS = {
    "B-frames": Kind(made(**B_FRAMES)),
    "mpeg4, as OpenCV writes": Kind(made("mpeg4", qscale="1")),
    "mjpeg": Kind(made("mjpeg", "yuvj420p", qscale="1"), "mov"),
    "png": Kind(made("png", "rgb24"), "mov"),
    "hevc of 10 bits": Kind(made("libx265", "yuv420p10le", **{"x265-params": "log-level=none"})),
    "4:4:4": Kind(made(pixels="yuv444p")),
    "fragmented": Kind(made(mux={"movflags": "frag_keyframe+empty_moov"}, **B_FRAMES)),
    "audio first": Kind(made(audio=True)),
    "mkv named mp4": Kind(made(form="matroska", **B_FRAMES)),
    "ffv1": Kind(made("ffv1", "bgr0"), "mkv"),
    "webm": Kind(made("libvpx-vp9", crf="4", b="0", **{"cpu-used": "8"}), "webm"),
    "webm of a browser": Kind(made("libvpx-vp9", crf="4", b="0", **{"cpu-used": "8"}, mux={"live": "1"}), "webm"),
    "avi": Kind(made("mpeg4", qscale="1"), "avi"),
    "avi with B-frames": Kind(made(**B_FRAMES), "avi", "AVI keeps no times", by_order=False, clip="out of order"),
    "transport stream": Kind(made(form="mpegts"), "mp4", "no frame lies in one piece; remux it", by_order=False),
    "late start": Kind(made(times=[500 + 125 * i for i in range(COUNT)], **B_FRAMES)),
    "long last frame": Kind(with_long_last),
    "trimmed": Kind(lambda path: trimmed(path, bf="0", g="30")),
    "trimmed among B-frames": Kind(lambda path: trimmed(path, **B_FRAMES)),
    "trimmed in an open group": Kind(lambda path: trimmed(path, codec="libx265", **OPEN_GROUPS)),
    "cut in an open group": Kind(cut_in_an_open_group),
    "upside down": Kind(filmed(2)),
    "on its left side": Kind(filmed(1, **B_FRAMES)),
    "on its right side": Kind(filmed(3)),
    "mirrored": Kind(made(turn=MIRROR), "mp4", "its display matrix .* mirrors", by_order=False, clip="mirrors"),
    "odd size": Kind(lambda path: write(path, [scene(i)[:95, :127] for i in range(COUNT)], pixels="yuv444p")),
    "a little uneven": Kind(made(times=[125 * i + 30 * (i % 2) for i in range(COUNT)])),
    "uneven": Kind(made(times=WOBBLE), "mp4", "uneven: 10 to 320 ms", clip=(0, 1, 2, 3, 4, 4, 5, 7, 8)),
    "BT.601": Kind(made(space=(6, 6, 6, 1))),
    "BT.709": Kind(made(space=(1, 1, 1, 1))),
    "full range": Kind(made(pixels="yuvj420p", space=(1, 1, 1, 2))),
    "colours in the container": Kind(made("ffv1", "yuv420p", space=(1, 1, 1, 1)), "mkv"),
}  # fmt: skip


def read_triplet(path):
    """The video as all three of a triplet."""
    root = path.parent / "triplets"
    for folder in ("videos", "videos_static", "videos_hands", "prompts"):
        (root / folder).mkdir(parents=True)
        shutil.copy(path, root / folder / "one.mp4")
    (root / "prompts" / "one.txt").write_text("A hand moves.")
    clip = open_triplets(root)[0]
    kinds = {problem.kind for problem in validate_triplets(root).problems} & {"undecodable", "uneven-times"}
    assert kinds == ({"uneven-times"} if frame_table(path).unevenness else set())
    return clip.interaction


def stored(path):
    """As `prepare` stores it at half the size."""
    frames = VideoFrames(path, uneven=True)
    settings = PrepareSettings(*(2 * (side // 4) for side in frames.size), codec="jpeg", crf=1, fps=RATE)
    decoder = av.CodecContext.create("mjpeg", "r")
    packets = encode_episode(frames, settings, "clip").packets
    return [picture.to_ndarray(format="rgb24") for each in packets for picture in decoder.decode(av.Packet(each))]


def packed(path):
    frames = VideoFrames(path, uneven=True)
    return PackedFrames(path, 0, COUNT, frames.size, RATE, frames.timestamps[0]).read(list(range(COUNT)))


def shuffled(path, **options):
    order = np.random.default_rng(0).permutation(COUNT)
    return VideoFrames(path, **options).read(order.tolist())[np.argsort(order)]


BY_ORDER = {
    "in any order": lambda path: shuffled(path, uneven=True),
    "in sequence": lambda path: [p.to_ndarray(format="rgb24") for p in VideoFrames(path, uneven=True).pictures()],
    "into a store": stored,
}
BY_TIME = {"by time": shuffled, "of an episode": packed, "of a triplet": read_triplet}


@pytest.fixture(scope="module", params=KINDS)
def video(request, tmp_path_factory):
    kind = KINDS[request.param]
    path = tmp_path_factory.mktemp("video") / f"one.{kind.suffix}"
    kind.make(path)
    return kind, path


def check(images, numbers=range(COUNT)):
    truth = quadrants_of(np.stack([scene(number) for number in numbers]))
    np.testing.assert_allclose(quadrants_of(np.stack(images)), truth, atol=7)


@pytest.mark.parametrize("way", BY_ORDER | BY_TIME)
def test_every_video_is_read_right_or_refused_with_the_cause(video, way):
    (kind, path), read = video, (BY_ORDER | BY_TIME)[way]
    if kind.refused and not (kind.by_order and way in BY_ORDER):
        with pytest.raises(VideoError, match=kind.refused):
            read(path)
        return
    check(read(path))
    frames = VideoFrames(path, uneven=True)
    assert (len(frames), [side + side % 2 for side in frames.size]) == (COUNT, [96, 128])
    assert frames.fps == pytest.approx((COUNT - 1) / np.ptp(frames.timestamps), rel=0.05)


def test_clips_are_cut_by_time(video):
    kind, path = video
    rules = ClipRules(ClipShape(COUNT, 96, 128, RATE))
    if isinstance(kind.clip, str):
        with pytest.raises(VideoError, match=kind.clip):
            read_clip(path, rules)
    else:
        clip = read_clip(path, rules)
        assert clip.picked.tolist() == list(kind.clip)
        check(clip.frames, kind.clip)
        assert count_frames(path) == COUNT


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG"), (1, "")])
def test_video_without_tone_mapping_is_named_once_for_a_folder(tmp_path, caplog, transfer, name):
    caplog.set_level(logging.WARNING)
    for stem in "ab":
        path = tmp_path / f"{stem}.mp4"
        write(path, None, "libx265", "yuv420p10le", space=(9, 9, transfer, 1), **{"x265-params": "log-level=none"})
        check(VideoFrames(path).read(list(range(COUNT))))
    assert len(caplog.records) == (1 if name else 0)
    assert not name or f"{name} video is decoded without tone mapping" in caplog.text


def dataset_of(write, open_folder, *options):
    def make(folder, change):
        write(folder)
        for path in list(folder.rglob("*.mp4")):
            change(path)
        return open_folder(folder, *options)

    return make


LABELLED = {
    "EgoDex": dataset_of(lambda folder: write_clip(folder / "test" / "lid", 0, make_clip(0)), open_egodex),
    "DROID": dataset_of(write_episode, open_droid),
    "DROID of LeRobot": dataset_of(write_droid_lerobot, open_droid_lerobot),
    "LeRobot, labelled": dataset_of(write_dataset, open_lerobot, LeRobotOptions(intrinsics=(50.0, 50.0, 48.0, 32.0))),
}
LEROBOT = dataset_of(write_dataset, open_lerobot)


@pytest.mark.parametrize("degrees", [90, 180])
@pytest.mark.parametrize("dataset", LABELLED.values(), ids=LABELLED)
def test_labels_of_a_turned_video_are_refused(tmp_path, dataset, degrees):
    """They are of the stored pictures, or of the shown ones: no file says which."""
    source = dataset(tmp_path / "data", lambda path: copied(path, "mp4", list, degrees))
    with pytest.raises(CorruptEpisodeError, match=r"\.mp4: a rotation flag turns its pictures by (90|180|270) degrees"):
        source[0]


def test_a_turned_video_without_labels_is_shown_upright(tmp_path):
    plain, turned = (
        LEROBOT(tmp_path / str(degrees), lambda path, turn=degrees: copied(path, "mp4", list, turn))[1].frames
        for degrees in (0, 180)
    )
    np.testing.assert_array_equal(turned.read([0, 5]), plain.read([0, 5])[:, ::-1, ::-1])


@pytest.mark.parametrize("dataset", [LABELLED["DROID of LeRobot"], LEROBOT], ids=["DROID", "any"])
def test_an_uneven_video_says_so_where_labels_go_by_time(tmp_path, dataset):
    def jump(packets):
        for packet in packets[4:]:
            packet.pts, packet.dts = packet.pts + 3 * packets[0].duration, packet.dts + 3 * packets[0].duration
        return packets

    source = dataset(tmp_path / "data", lambda path: copied(path, "mp4", jump))
    frames = source[0].frames
    with pytest.raises(VideoError, match=r"\.mp4: frame times are uneven: \d+ to \d+ ms apart; frame \d+ of"):
        frames.read(list(range(len(frames))))


@pytest.mark.parametrize("dataset", LABELLED.values(), ids=LABELLED)
def test_every_reader_takes_another_container_under_the_same_name(tmp_path, dataset):
    plain = dataset(tmp_path / "plain", str)[0].frames
    other = dataset(tmp_path / "other", lambda path: copied(path, "matroska", list))[0].frames
    wanted = list(range(len(plain)))
    np.testing.assert_array_equal(other.read(wanted), plain.read(wanted))
