"""Triplets from video with hand files, and from triplets of another shape."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from triplet_fixtures import make_track, wall, write_clips

from dexworld.data.video import VideoError, write_video
from dexworld.video.clips.clip import ClipShape, keypoints_camera
from dexworld.video.clips.hand_video import frames_with_hands
from dexworld.video.clips.triplets import finish_triplets
from dexworld.video.real.hand_file import hamer_intrinsics, read_hands
from dexworld.video.real.prepare_clips import ReshapeConfig, VideosConfig, prepare_videos, reshape_triplets
from dexworld.video.real.source_video import ClipRules, fit, read_clip
from dexworld.video.real.validate_clips import validate_triplets
from hand_fixtures import curled_hands, pinhole_of

SHAPE = ClipShape(frames=9, height=48, width=64)
RULES = ClipRules(SHAPE)
SOURCE, HEIGHT, WIDTH = 34, 96, 128  # frames at 30 fps, pixels; 9 frames at 8 fps end at its frame 30


def counting_video(path: Path, frames: int = SOURCE, fps: float = 30.0, height: int = HEIGHT, width: int = WIDTH):
    """A video whose frame i has grey level 20 + 5 i left of the middle and a texture right of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = np.repeat(wall(1, height, width)[None], frames, axis=0)
    images[:, :, : width // 2] = 20 + 5.0 * np.arange(frames)[:, None, None, None]
    write_video(path, images.astype(np.uint8), fps, crf=8)
    return path


def levels(clip: np.ndarray) -> np.ndarray:
    """The source frame that each frame of a counting video shows."""
    return np.rint((clip[:, 12:36, 8:24].mean(axis=(1, 2, 3)) - 20) / 5).astype(int)


def hand_arrays(frames: int = SOURCE, height: int = HEIGHT, width: int = WIDTH) -> dict[str, np.ndarray]:
    """A hand file's keypoints: a right hand throughout, no left hand."""
    track = make_track(frames, height, width)
    valid = np.zeros((frames, 2), dtype=bool)
    valid[:, 1] = True
    points = track.keypoints_world.reshape(frames, 2, 21, 3)
    return {"keypoints": points, "valid": valid, "intrinsics": track.intrinsics}


def fixed_camera(tmp_path: Path, names=("kitchen/one", "kitchen/two"), **changes) -> VideosConfig:
    for name in names:
        counting_video(tmp_path / "videos" / f"{name}.mp4")
        for folder in ("hands", "prompts"):
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
        np.savez(tmp_path / "hands" / f"{name}.npz", **hand_arrays())
        (tmp_path / "prompts" / f"{name}.txt").write_text(f"{name} happens.", encoding="utf-8")
    fields = {"rules": RULES, "prompts": tmp_path / "prompts"} | changes
    return VideosConfig(tmp_path / "videos", tmp_path / "hands", tmp_path / "out", **fields)


@pytest.mark.parametrize(
    ("source", "rule", "chosen", "box", "placed"),
    [
        ((1080, 1920), "auto", "crop", (0, 150, 1080, 1620), (0, 0, 480, 720)),
        ((1080, 1920), "pad", "pad", (0, 0, 1080, 1920), (37, 0, 405, 720)),
        ((1024, 1024), "crop", "crop", (170, 0, 683, 1024), (0, 0, 480, 720)),
        ((1024, 1024), "auto", "pad", (0, 0, 1024, 1024), (0, 120, 480, 480)),
        ((1024, 1024), "stretch", "stretch", (0, 0, 1024, 1024), (0, 0, 480, 720)),
        ((480, 720), "auto", "crop", (0, 0, 480, 720), (0, 0, 480, 720)),
    ],
)
def test_the_resize_rule_decides_as_written(source, rule, chosen, box, placed):
    rule, result = fit(source, (480, 720), rule)
    assert (rule, result.box, result.placed) == (chosen, box, placed)


@pytest.mark.parametrize("rule", ["crop", "pad", "stretch"])
def test_intrinsics_follow_the_pixels(rule):
    """A bright spot of the source lies, in the clip, where the matrix says."""
    image = np.zeros((90, 200, 3), dtype=np.uint8)
    image[30:36, 120:126] = 255
    _, result = fit((90, 200), (48, 64), rule)
    out = result.images(torch.from_numpy(image)).numpy().astype(float)[..., 0]
    rows, columns = np.meshgrid(np.arange(48) + 0.5, np.arange(64) + 0.5, indexing="ij")
    found = np.array([(out * columns).sum(), (out * rows).sum()]) / out.sum()
    expected = result.target_from_source @ [123.0, 33.0, 1.0]
    np.testing.assert_allclose(found, expected[:2], atol=0.1)


def test_frames_are_the_nearest_in_time_and_never_a_blend(tmp_path):
    clip = read_clip(counting_video(tmp_path / "v.mp4"), RULES)
    expected = np.rint(np.arange(9) * 30 / 8 - 1e-9).astype(int)
    assert clip.picked.tolist() == expected.tolist() == levels(clip.frames).tolist()
    assert clip.cloned == 0
    later = read_clip(tmp_path / "v.mp4", replace(RULES, start=0.5))
    assert later.picked[0] == levels(later.frames)[0] == 15


def test_a_short_video_repeats_its_end_or_is_refused(tmp_path):
    path = counting_video(tmp_path / "v.mp4", frames=16)
    clip = read_clip(path, RULES)
    assert clip.cloned == 4
    assert levels(clip.frames).tolist() == [0, 4, 7, 11, 15, 15, 15, 15, 15]
    with pytest.raises(VideoError, match=r"v\.mp4: ends at 0\.50 s, 4 frames before"):
        read_clip(path, replace(RULES, short="refuse"))
    with pytest.raises(VideoError, match="before the clip's start at 2"):
        read_clip(path, replace(RULES, start=2.0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keypoints": np.zeros((34, 42, 3))}, "keypoints must be"),
        ({"keypoints": np.zeros((33, 2, 21, 3))}, r"keypoints must be \(34, 2, 21, 3\) numbers, not \(33"),
        ({"keypoints": None}, "neither vertices nor keypoints"),
        ({"valid": None}, "no valid flags"),
        ({"valid": np.ones((34, 2))}, r"valid must be .*bool, not \(34, 2\) float64"),
        ({"valid": np.ones((34, 3), bool)}, "valid must be"),
        ({"intrinsics": None}, "no intrinsics"),
        ({"intrinsics": np.eye(4)}, r"intrinsics must be \(3, 3\)"),
        ({"intrinsics": np.full((3, 3), np.nan)}, "intrinsics holds NaN"),
        ({"vertices": np.zeros((34, 2, 5, 3))}, "vertices come without faces"),
        ({"vertices": np.zeros((34, 5, 3)), "faces": np.zeros((1, 3), int)}, "vertices must be"),
        ({"vertices": np.zeros((34, 2, 5, 3)), "faces": np.full((1, 3), 5)}, "faces name vertices 5 to 5"),
        ({"vertices": np.zeros((34, 2, 5, 3)), "faces": np.zeros((1, 3))}, "integers"),
        ({"joints": np.zeros(3)}, "unknown keys joints"),
        ({"valid": np.zeros(34, bool)}, "a file of one hand names its `side`"),
        ({"side": np.array("both")}, "side is both; it must be"),
        ({"side": np.array("left")}, "leave out the axis of the two hands"),
        ({"image_size": np.array([3])}, "image_size must be"),
        ({"image_size": np.array([WIDTH, HEIGHT])}, "image_size is 128 x 96 .*: give the height first"),
        ({"image_size": np.array([HEIGHT, HEIGHT])}, "image_size is 96 x 96 .*: extract the hands from this video"),
        ({"intrinsics": pinhole_of(WIDTH, HEIGHT)}, "height and width are exchanged"),
        ({"keypoints": 1000 * curled_hands(34)}, "in millimetres"),
        ({"keypoints": curled_hands(34)[:, ::-1], "valid": np.ones((34, 2), bool)}, "left and right are exchanged"),
        ({name: value[:0] for name, value in hand_arrays().items() if name != "intrinsics"}, "holds no frames"),
        ({"world_from_camera": np.zeros((5, 4, 4))}, "world_from_camera must be"),
    ],
)
def test_a_hand_file_of_other_content_is_refused_with_its_name(tmp_path, change, message):
    arrays = {name: value for name, value in (hand_arrays() | change).items() if value is not None}
    np.savez(tmp_path / "h.npz", **arrays)
    with pytest.raises(ValueError, match=r"h\.npz: .*" + message):
        read_hands(tmp_path / "h.npz", (HEIGHT, WIDTH))


@pytest.mark.parametrize("key", ["keypoints", "vertices"])
def test_a_hand_marked_valid_with_nan_is_named_by_frame_and_side(tmp_path, key):
    arrays = hand_arrays()
    arrays |= {"vertices": arrays["keypoints"].copy(), "faces": np.array([[0, 1, 2]])}
    arrays[key][7, 0] = np.nan  # the left hand, which isn't valid
    np.savez(tmp_path / "h.npz", **arrays)
    assert len(read_hands(tmp_path / "h.npz", (HEIGHT, WIDTH))) == SOURCE
    arrays[key][9, 1, 3] = np.nan
    np.savez(tmp_path / "h.npz", **arrays)
    with pytest.raises(ValueError, match="right hand in frame 9 hold NaN"):
        read_hands(tmp_path / "h.npz", (HEIGHT, WIDTH))


@pytest.mark.parametrize("side", ["left", b"left", "Left", " LEFT "])
def test_a_file_of_one_hand_names_its_side_as_its_tracker_writes_it(tmp_path, side):
    arrays = {"keypoints": curled_hands(5)[:, 0], "valid": np.ones(5, np.uint8), "side": np.array(side)}
    np.savez(tmp_path / "h.npz", intrinsics=pinhole_of(HEIGHT, WIDTH), **arrays)
    hands = read_hands(tmp_path / "h.npz", (HEIGHT, WIDTH))
    assert hands.valid.all(axis=(0, 2)).tolist() == [True, False]
    np.testing.assert_array_equal(hands.keypoints[:, 0], arrays["keypoints"])
    np.savez(tmp_path / "h.npz", intrinsics=pinhole_of(HEIGHT, WIDTH), **arrays | {"side": np.array("right")})
    with pytest.raises(ValueError, match=r"h\.npz: the right hand is a left one"):
        read_hands(tmp_path / "h.npz", (HEIGHT, WIDTH))


def test_intrinsics_of_a_smaller_image_are_scaled_to_the_video(tmp_path):
    arrays = hand_arrays() | {"intrinsics": pinhole_of(HEIGHT // 2, WIDTH // 2)}
    np.savez(tmp_path / "h.npz", image_size=np.array([HEIGHT // 2, WIDTH // 2]), **arrays)
    np.testing.assert_allclose(read_hands(tmp_path / "h.npz", (HEIGHT, WIDTH)).intrinsics, pinhole_of(HEIGHT, WIDTH))


def test_keypoints_of_a_moving_camera_in_the_worlds_frame_are_told(tmp_path):
    poses = np.tile(np.eye(4), (SOURCE, 1, 1))
    poses[:, :3, 3] = (4.0, 1.0, -2.0)
    arrays = {name: each for name, each in hand_arrays().items() if name != "keypoints"} | {"world_from_camera": poses}
    np.savez(tmp_path / "h.npz", keypoints=hand_arrays()["keypoints"] + poses[:, None, None, :3, 3], **arrays)
    with pytest.raises(ValueError, match=r"h\.npz: .*the points are in the world's frame"):
        read_hands(tmp_path / "h.npz", (HEIGHT, WIDTH))


def test_hamers_camera_is_5000_over_256_of_the_longer_side(tmp_path):
    assert hamer_intrinsics(480, 720)[0].tolist() == [5000 / 256 * 720, 0, 360]
    np.savez(tmp_path / "h.npz", **{name: each for name, each in hand_arrays().items() if name != "intrinsics"})
    hands = read_hands(tmp_path / "h.npz", (480, 720), hamer_camera=True)
    np.testing.assert_allclose(hands.intrinsics, hamer_intrinsics(480, 720))


def test_meshes_are_drawn_in_the_colour_of_their_hand(tmp_path):
    square = np.array([[-0.1, -0.1, 0.6], [0.1, -0.1, 0.6], [0.1, 0.1, 0.6], [-0.1, 0.1, 0.6]])
    arrays = {"vertices": np.tile(square, (3, 2, 1, 1)), "faces": np.array([[0, 1, 2], [0, 2, 3]])}
    arrays |= {"intrinsics": np.array([[60.0, 0, 32], [0, 60.0, 24], [0, 0, 1]])}
    for side, strongest in ((0, 1), (1, 0)):
        valid = np.arange(2) == side
        np.savez(tmp_path / "h.npz", valid=np.stack([valid, ~valid & valid, valid]), **arrays)
        video = read_hands(tmp_path / "h.npz", (48, 64)).render(np.eye(3), 48, 64)
        assert frames_with_hands(video).tolist() == [True, False, True]
        assert video[0, 24, 32].argmax() == strongest


def test_fixed_camera_videos_become_valid_triplets(tmp_path):
    config = fixed_camera(tmp_path)
    folder, figures = prepare_videos(config)
    nothing = ("frames_without_hands", "cloned_frames", "clips_padded", "already_there", "clips_left_out")
    two = ("clips", "clips_cropped", "clips_with_hand_in_first_frame")
    assert figures == {"left_out": {}, **dict.fromkeys(nothing, 0), **dict.fromkeys(two, 2)}
    report = validate_triplets(config.output, expected=SHAPE)
    assert not report.errors, report.table()
    clip = folder[0]
    assert (clip.name, clip.prompt) == ("kitchen/one", "kitchen/one happens.")
    assert levels(clip.interaction).tolist() == [0, 4, 7, 11, 15, 19, 22, 26, 30]
    assert levels(clip.static).tolist() == [0] * 9
    record = json.loads((config.output / "triplets.json").read_text(encoding="utf-8"))
    assert record["settings"]["rules"]["resize"] == "auto"
    assert record["clips"]["kitchen/one"]["resize"]["rule"] == "crop"
    assert record["clips"]["kitchen/one"]["last_source_frame"] == 30


@pytest.mark.parametrize(("resize", "shape"), [("crop", (48, 48)), ("pad", (48, 80)), ("stretch", (64, 64))])
def test_the_hand_video_lies_where_the_keypoints_project(tmp_path, resize, shape):
    rules = ClipRules(shape=ClipShape(9, *shape), resize=resize)
    clip = prepare_videos(fixed_camera(tmp_path, ("one",), rules=rules))[0][0]
    points = keypoints_camera(clip.track)[:, 21:] @ clip.track.intrinsics.T
    pixels = points[..., :2] / points[..., 2:]
    _, rule = fit((HEIGHT, WIDTH), shape, resize)
    source = hand_arrays()["keypoints"][0, 1] @ hand_arrays()["intrinsics"].T
    expected = np.c_[source[:, :2] / source[:, 2:], np.ones(21)] @ rule.target_from_source.T
    np.testing.assert_allclose(pixels[0], expected[:, :2], atol=1e-3)
    inside = ((pixels > 1) & (pixels < [shape[1] - 1, shape[0] - 1])).all(axis=2)
    drawn = clip.hands.max(axis=3) >= 60
    hit = [drawn[f, int(y), int(x)] for f in range(9) for (x, y), ok in zip(pixels[f], inside[f], strict=True) if ok]
    assert len(hit) > 60
    assert np.mean(hit) > 0.9


def test_frames_without_a_hand_are_black_and_counted(tmp_path):
    config = fixed_camera(tmp_path, ("one",))
    arrays = hand_arrays()
    arrays["valid"][:10] = False  # the clip's frames 0, 1 and 2 come from source frames 0, 4 and 7
    np.savez(tmp_path / "hands" / "one.npz", **arrays)
    (clip,), figures = prepare_videos(config)
    assert (figures["frames_without_hands"], figures["clips_with_hand_in_first_frame"]) == (3, 0)
    assert frames_with_hands(clip.hands).tolist() == [False] * 3 + [True] * 6
    assert not clip.track.keypoints_valid[:3].any()


def test_a_hand_file_may_count_the_clips_frames_instead(tmp_path):
    rules = ClipRules(shape=SHAPE, hand_frames="clip")
    config = fixed_camera(tmp_path, ("one",), rules=rules)
    np.savez(tmp_path / "hands" / "one.npz", **hand_arrays(9))
    track = prepare_videos(config)[0][0].track
    expected = hand_arrays(9)["keypoints"].reshape(9, 42, 3)
    np.testing.assert_allclose(track.keypoints_world[:, 21:], expected[:, 21:], atol=1e-6)


def test_what_cannot_be_prepared_is_left_out_with_its_reason(tmp_path):
    config = fixed_camera(tmp_path, ("good", "corrupt", "damaged", "no prompt", "short", "nan", "black", "#"))
    (tmp_path / "videos" / "corrupt.mp4").write_bytes(b"no video")
    (tmp_path / "hands" / "damaged.npz").write_bytes(b"PK\x03\x04")
    (tmp_path / "prompts" / "no prompt.txt").unlink()
    arrays, nothing = hand_arrays(), np.zeros((SOURCE, 2), dtype=bool)
    broken = arrays | {"keypoints": np.full_like(arrays["keypoints"], np.nan)}
    for name, hands in (("short", hand_arrays(20)), ("nan", broken), ("black", arrays | {"valid": nothing})):
        np.savez(tmp_path / "hands" / f"{name}.npz", **hands)
    folder, figures = prepare_videos(config)
    assert (folder.names, figures["clips_left_out"]) == (("good",), 7)
    reasons = {
        "corrupt": "corrupt.mp4: can't be opened",
        "damaged": "damaged.npz: can't be read",
        "no prompt": "has no prompt",
        "short": "has 20 frames, the source has 34",
        "nan": "hold NaN",
        "black": "no frame of the clip shows a hand",
        "#": "triplet name '#'",
    }
    assert set(figures["left_out"]) == set(reasons)
    assert all(reason in figures["left_out"][name] for name, reason in reasons.items())


def test_preparation_goes_on_where_it_stopped_and_refuses_other_rules(tmp_path):
    config = fixed_camera(tmp_path)
    (tmp_path / "hands" / "kitchen" / "two.npz").rename(tmp_path / "two.npz")
    assert prepare_videos(config)[1]["clips_left_out"] == 1
    before = (config.output / "kitchen" / "videos" / "one.mp4").stat().st_mtime_ns
    (tmp_path / "two.npz").rename(tmp_path / "hands" / "kitchen" / "two.npz")
    folder, again = prepare_videos(config)
    assert (again["clips"], again["already_there"], len(folder)) == (1, 1, 2)
    assert (config.output / "kitchen" / "videos" / "one.mp4").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r"begun with other settings: rules.* was .*, now"):
        prepare_videos(replace(config, rules=ClipRules(shape=SHAPE, resize="pad")))


def test_nothing_to_prepare_is_an_error(tmp_path):
    (tmp_path / "videos").mkdir()
    config = VideosConfig(tmp_path / "videos", tmp_path, tmp_path / "out", rules=RULES)
    with pytest.raises(ValueError, match="holds no videos"):
        prepare_videos(config)
    counting_video(tmp_path / "videos" / "one.mp4")
    with pytest.raises(ValueError, match=r"none of 1 could be prepared; first: one: has no prompt"):
        prepare_videos(config)


def test_one_video_with_its_own_static_and_hand_video(tmp_path):
    hands = np.zeros((SOURCE, HEIGHT, WIDTH, 3), dtype=np.uint8)
    hands[8:, 40:60, 40:60] = (255, 133, 133)
    write_video(tmp_path / "h.mp4", hands, 30.0)
    parts = counting_video(tmp_path / "pour.mov"), tmp_path / "h.mp4", tmp_path / "out"
    config = VideosConfig(*parts, static=counting_video(tmp_path / "s.mp4"), prompt="I pour.", rules=RULES)
    (clip,), figures = prepare_videos(config)
    assert (clip.name, clip.prompt, clip.track) == ("pour", "I pour.", None)
    assert levels(clip.static).tolist() == levels(clip.interaction).tolist()
    assert figures["frames_without_hands"] == 3
    counting_video(tmp_path / "s.mp4", frames=20)
    with pytest.raises(ValueError, match=r"s\.mp4: .*with 3 repeated frames.*show the same frames"):
        prepare_videos(replace(config, output=tmp_path / "other"))


def test_reshaped_clips_keep_their_seeds_and_take_no_scenes_of_another_split(tmp_path):
    for name, seed in (("train", 7), ("held_out", 900_007)):
        write_clips(tmp_path / name, f"kitchen/{name}")
        finish_triplets(tmp_path / name, {"maker": "test"}, {f"kitchen/{name}": seed})
    rules = ClipRules(ClipShape(5, 32, 48))
    config = ReshapeConfig(tmp_path / "train", tmp_path / "small", rules=rules)
    assert reshape_triplets(config)[0].seeds == {"kitchen/train": 7}
    with pytest.raises(ValueError, match=r"training \(seed 7\) and validation"):
        reshape_triplets(replace(config, data=tmp_path / "held_out"))


@pytest.mark.parametrize("fields", [{"resize": "fill"}, {"short": "loop"}, {"start": -1.0}, {"hand_frames": "all"}])
def test_clip_rules_refuse_unknown_choices(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        ClipRules(**fields)
