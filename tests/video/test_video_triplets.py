"""Triplets in memory and on disk."""

import json
from dataclasses import replace

import numpy as np
import pytest
from triplet_fixtures import FRAMES, HEIGHT, WIDTH, make_clip, make_track, write_clips

from dexworld.data.video import write_video
from dexworld.data.video_frames import VideoFrames
from dexworld.models.picture_metrics import psnr
from dexworld.video.clips.clip import camera_vectors
from dexworld.video.clips.triplet_files import files_of, list_line, read_track, write_triplet
from dexworld.video.clips.triplets import finish_triplets, open_triplets, start_triplets
from dexworld.video.real.validate_clips import validate_triplets
from hand_fixtures import curled_hands, hand_track


def test_a_triplet_comes_back_nearly_as_it_was_written(tmp_path):
    clip = make_clip("kitchen/first")
    write_triplet(tmp_path, clip)
    found = finish_triplets(tmp_path, {"maker": "test"}, {"kitchen/first": 7})[0]
    assert (found.name, found.prompt, found.fps, found.seed) == ("kitchen/first", clip.prompt, 8.0, 7)
    assert found.interaction.shape == (FRAMES, HEIGHT, WIDTH, 3)
    for part in ("interaction", "static", "hands"):
        assert psnr(getattr(found, part), getattr(clip, part)) > 32
    assert np.array_equal(found.track.keypoints_world, clip.track.keypoints_world)
    assert np.array_equal(found.track.keypoints_valid, clip.track.keypoints_valid)


def test_the_hand_video_keeps_its_colours_at_full_resolution(tmp_path):
    frames = np.zeros((5, 32, 32, 3), dtype=np.uint8)
    frames[:, :, 1::2] = (255, 133, 138)  # columns one pixel wide
    errors = {}
    for chroma in ("420", "444"):
        write_video(tmp_path / f"{chroma}.mp4", frames, 8.0, crf=12, chroma=chroma)
        errors[chroma] = psnr(VideoFrames(tmp_path / f"{chroma}.mp4").read(list(range(5))), frames)
    assert errors["444"] > errors["420"] + 6
    for wrong in ({"chroma": "422"}, {"crf": 60}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            write_video(tmp_path / "a.mp4", frames, 8.0, **wrong)


def test_a_clip_refuses_other_lengths_and_a_name_with_a_way_out():
    clip = make_clip()
    for part in ("static", "hands"):
        with pytest.raises(ValueError, match=f"clip: {part} is .*the same frames and size"):
            replace(clip, **{part: getattr(clip, part)[:5]})
    for frames in (1, 4, 6, 8):
        cut = {part: getattr(clip, part)[:frames] for part in ("interaction", "static", "hands")}
        with pytest.raises(ValueError, match=r"1 \+ 4n"):
            replace(clip, **cut, track=None)
    with pytest.raises(ValueError, match="hand track has 5 frames, the video 9"):
        replace(clip, track=make_track(5))
    with pytest.raises(ValueError, match="triplet name"):
        replace(clip, name="../clip")


@pytest.mark.parametrize("name", ["Öffne_Tür", "O\u0308ffne_Tu\u0308r", "厨房/开门", "देवनागरी", "my clip (1)"])
def test_names_of_any_script_are_read(tmp_path, name):
    write_clips(tmp_path, name)
    (tmp_path / "list.txt").write_text(list_line(name), encoding="utf-8-sig")
    for folder in (open_triplets(tmp_path), open_triplets(tmp_path, tmp_path / "list.txt")):
        assert (folder.names, folder[0].name) == ((name,), name)
    assert not validate_triplets(tmp_path).problems


@pytest.mark.parametrize("name", ["#1", "50%", "a\u200bb", "-start", "what?"])
def test_a_name_that_is_refused_is_called_the_reason(tmp_path, name):
    write_clips(tmp_path, "good")
    (tmp_path / "videos" / "good.mp4").rename(tmp_path / "videos" / f"{name}.mp4")
    with pytest.raises(ValueError, match=r"triplet name .*: each part .*; rename its files"):
        open_triplets(tmp_path)
    first = validate_triplets(tmp_path).problems[0]
    assert (first.kind, first.severity) == ("bad-name", "error")
    assert "triplet name" in first.message


@pytest.mark.parametrize(
    ("encoding", "warned"), [("utf-8", 0), ("utf-8-sig", 0), ("utf-16", 0), ("latin-1", 1), ("cp1252", 1)]
)
def test_prompts_are_read_in_the_encodings_that_editors_write(tmp_path, encoding, warned, caplog):
    write_clips(tmp_path, "clip")
    (tmp_path / "prompts" / "clip.txt").write_bytes("Je déplace le bloc.\r\n".encode(encoding))
    assert {open_triplets(tmp_path)[0].prompt for _ in range(2)} == {"Je déplace le bloc."}
    assert caplog.text.count("clip.txt: is not UTF-8") == len(caplog.records) == warned
    (tmp_path / "prompts" / "clip.txt").write_bytes(b"\x00\x01\xff\xfe\x80")
    with pytest.raises(ValueError, match=r"clip\.txt: the prompt can't be read"):
        open_triplets(tmp_path)[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda points: points * 1000, "in millimetres"),
        (lambda points: points[:, [*range(21, 42), *range(21)]], "left and right are exchanged"),
        (lambda points: points * [1, -1, -1], "OpenGL"),
    ],
)
def test_hand_motions_that_cannot_be_are_refused_and_validation_names_them(tmp_path, change, said):
    write_clips(tmp_path, "clip", track=hand_track(curled_hands(FRAMES), HEIGHT, WIDTH))
    assert not validate_triplets(tmp_path).errors
    path = files_of(tmp_path, "clip").motion
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **arrays | {"keypoints_world": change(arrays["keypoints_world"])})
    with pytest.raises(ValueError, match=rf"hand_motions/clip\.npz: .*{said}"):
        open_triplets(tmp_path)[0]
    problem = validate_triplets(tmp_path).problems[0]
    assert (problem.kind, problem.severity) == ("bad-motion", "error")
    assert said in problem.message


def test_camera_vectors_hold_the_keypoints_as_the_camera_sees_them():
    track = make_track()
    turn = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=np.float32)  # world from camera
    poses = track.world_from_camera.copy()
    poses[:, :3, :3], poses[:, :3, 3] = turn, (1, 2, 3)
    seen = track.keypoints_world
    moved = track.with_columns(keypoints_world=(seen @ turn.T + (1, 2, 3)).astype(np.float32))
    vectors = camera_vectors(replace(moved, world_from_camera=poses))
    assert vectors.shape == (FRAMES, 128)
    np.testing.assert_allclose(vectors[:, 63:126].reshape(FRAMES, 21, 3), seen[:, 21:], atol=1e-5)
    assert not vectors[:, :63].any()
    assert vectors[0, 126:].tolist() == [0.0, 1.0]
    points = np.where(track.keypoints_valid[..., None], seen, np.nan)
    assert np.isfinite(camera_vectors(track.with_columns(keypoints_world=points))).all()


def test_a_rewrite_is_preferred_when_asked_for_and_the_plain_prompt_stands_in(tmp_path):
    write_clips(tmp_path, "a", "b", prompt="plain")
    (tmp_path / "prompts_rewrite").mkdir()
    (tmp_path / "prompts_rewrite" / "b.txt").write_text("rewritten,\nin two lines\n", encoding="utf-8")
    assert [open_triplets(tmp_path)[i].prompt for i in range(2)] == ["plain", "plain"]
    folder = open_triplets(tmp_path, prompts="prompts_rewrite")
    assert [folder[i].prompt for i in range(2)] == ["plain", "rewritten,\nin two lines"]


def test_a_list_file_chooses_and_orders_the_triplets(tmp_path):
    write_clips(tmp_path, "kitchen/a", "kitchen/b", "office/c")
    (tmp_path / "test.txt").write_text("office/videos/c.mp4\n\nkitchen/videos/a.mp4\n", encoding="utf-8")
    assert open_triplets(tmp_path, "test.txt").names == ("office/c", "kitchen/a")
    assert open_triplets(tmp_path).names == ("kitchen/a", "kitchen/b", "office/c")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("a/clips/x.mp4\n", "line 1: 'a/clips/x.mp4'"),
        ("a/videos/x.mp4\n/a/videos/y.mp4\n", "line 2"),
        ("a/../videos/x.mp4\n", "line 1"),
        ("a/videos/x.mp4\na/videos/x.mp4\n", "line 2: 'a/videos/x.mp4': .*listed twice"),
    ],
)
def test_a_bad_line_of_a_list_is_named(tmp_path, lines, message):
    (tmp_path / "list.txt").write_text(lines, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"list\.txt, {message}"):
        open_triplets(tmp_path, "list.txt")


def test_the_three_places_of_trumans_renderers_are_read(tmp_path):
    group = tmp_path / "trumans/ego_render_fov90/1a1e205b-3f54/2023-02-09@14-04-02"
    write_clips(group, "00008", track=None)
    for below, part in (("sequences", "videos_static"), ("processed2", "videos_hands")):
        (group / below).mkdir()
        (group / part).rename(group / below / part)
    line = str((group / "videos" / "00008.mp4").relative_to(tmp_path))
    (tmp_path / "test.txt").write_text(line, encoding="utf-8")
    assert open_triplets(tmp_path, "test.txt")[0].hands.max() > 200
    (group / "videos_static").mkdir()
    (group / "videos_static" / "00008.mp4").write_bytes(b"collected")  # comes before the renderer's
    folder = open_triplets(group)
    assert folder.files["00008"].static.read_bytes() == b"collected"
    (tmp_path / "test.txt").write_text(line.replace("00008", "00009"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"4 files of 1 triplets are missing: .*videos/00009\.mp4"):
        open_triplets(tmp_path, "test.txt")


def test_opening_names_the_files_that_are_missing(tmp_path):
    write_clips(tmp_path, "clip")
    (tmp_path / "prompts" / "clip.txt").unlink()
    with pytest.raises(ValueError, match=r"1 files of 1 triplets are missing: .*prompts/clip\.txt"):
        open_triplets(tmp_path)
    with pytest.raises(ValueError, match="holds no triplets"):
        open_triplets(tmp_path / "prompts")


def test_a_corrupt_video_is_named_when_it_is_read(tmp_path):
    write_clips(tmp_path, "clip")
    path = tmp_path / "videos_hands" / "clip.mp4"
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(ValueError, match=r"videos_hands/clip\.mp4"):
        open_triplets(tmp_path)[0]


def test_hand_motion_of_other_shapes_is_refused_with_the_file(tmp_path):
    write_clips(tmp_path, "clip")
    path = files_of(tmp_path, "clip").motion
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **{**arrays, "keypoints_world": arrays["keypoints_world"][:, :21]})
    with pytest.raises(ValueError, match=r"hand_motions/clip\.npz.*keypoints_world"):
        open_triplets(tmp_path)[0]
    np.savez(path, keypoints_world=arrays["keypoints_world"])
    with pytest.raises(ValueError, match="keypoints_valid"):
        read_track(path, (48, 64))


def test_an_interrupted_write_leaves_no_triplet(tmp_path, monkeypatch):
    write_clips(tmp_path, "clip")

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("dexworld.video.clips.triplet_files.np.savez_compressed", stop)
    with pytest.raises(KeyboardInterrupt):
        write_triplet(tmp_path, make_clip(seed=1))
    with pytest.raises(ValueError, match="holds no triplets"):
        open_triplets(tmp_path)
    assert not list(tmp_path.rglob(".*"))
    write_triplet(tmp_path, make_clip(track=None))
    assert open_triplets(tmp_path)[0].track is None  # the old one is gone


def test_the_record_keeps_settings_and_refuses_others(tmp_path):
    write_clips(tmp_path, "a")
    finish_triplets(tmp_path, {"shape": (9, 48)}, {"a": 1}, clips={"a": {"cut": 0.1}})
    write_clips(tmp_path, "b")
    folder = finish_triplets(tmp_path, {"shape": (9, 48)}, {"b": 2})
    record = json.loads((tmp_path / "triplets.json").read_text(encoding="utf-8"))
    assert folder.seeds == {"a": 1, "b": 2}
    assert folder.settings == {"shape": [9, 48]}
    assert record["clips"] == {"a": {"cut": 0.1}}
    assert (tmp_path / "dataset.txt").read_text(encoding="utf-8") == "videos/a.mp4\nvideos/b.mp4\n"
    with pytest.raises(ValueError, match=r"begun with other settings: shape.* was .*, now"):
        finish_triplets(tmp_path, {"shape": (17, 96)}, {})
    with pytest.raises(ValueError, match="no triplet 'c'"):
        finish_triplets(tmp_path, {"shape": (9, 48)}, {"c": 3})


def test_a_fingerprint_follows_the_content_and_not_the_place(tmp_path):
    for folder in ("one", "two"):
        for seed, name in enumerate("ab"):
            write_triplet(tmp_path / folder, make_clip(name, seed=seed))
    one, two = (open_triplets(tmp_path / folder) for folder in ("one", "two"))
    assert one.fingerprint == two.fingerprint
    assert one.subset(["a"]).fingerprint != one.fingerprint
    assert one.subset(["b", "a"])[0].name == "b"
    with pytest.raises(ValueError, match="no triplet 'd'"):
        one.subset(["d"])
    write_triplet(tmp_path / "two", make_clip("a", seed=5))
    assert open_triplets(tmp_path / "two").fingerprint != one.fingerprint


def test_a_killed_recording_knows_its_settings_and_seeds(tmp_path):
    start_triplets(tmp_path, {"shape": (5, 32)}, {"a": 900_000})  # a folder without clips takes other settings
    start_triplets(tmp_path, {"shape": (9, 48)}, {"a": 5, "b": 6})
    write_clips(tmp_path, "a")
    folder = open_triplets(tmp_path)
    assert (folder.names, folder.seeds, folder.settings) == (("a",), {"a": 5}, {"shape": [9, 48]})
    with pytest.raises(ValueError, match=r"begun with other settings: shape.* was .*, now"):
        start_triplets(tmp_path, {"shape": (17, 96)}, {"b": 6})
    assert finish_triplets(tmp_path, {"shape": (9, 48)}, {"a": 5}).seeds == {"a": 5}


def test_scenes_of_two_splits_do_not_share_a_folder(tmp_path):
    write_clips(tmp_path, "a")
    finish_triplets(tmp_path, {}, {"a": 899_999})
    with pytest.raises(ValueError, match=r"training \(seed 899999\) and validation \(seed 900000\)"):
        start_triplets(tmp_path, {}, {"b": 900_000})
    write_clips(tmp_path, "b")
    with pytest.raises(ValueError, match="each split into a folder of its own"):
        finish_triplets(tmp_path, {}, {"b": 1_000_000})


def test_a_folder_of_recorded_folders_keeps_their_seeds(tmp_path):
    for seed, group in enumerate(("one", "two")):
        write_clips(tmp_path / group, "kitchen/a")
        finish_triplets(tmp_path / group, {"group": group}, {"kitchen/a": seed})
    folder = open_triplets(tmp_path)
    assert folder.seeds == {"one/kitchen/a": 0, "two/kitchen/a": 1}
    assert folder.settings == {}


def test_three_videos_of_different_rates_are_refused(tmp_path):
    write_clips(tmp_path, "a")
    write_video(files_of(tmp_path, "a").hands, make_clip("a").hands, 4.0)
    with pytest.raises(ValueError, match=r"videos_hands/a.mp4: 4 fps, but .*videos/a.mp4 has 8"):
        open_triplets(tmp_path)[0]
