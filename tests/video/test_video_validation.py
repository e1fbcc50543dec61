"""The validator names every file that is wrong, and passes the released triplets."""

import json
from pathlib import Path

import numpy as np
import pytest
from triplet_fixtures import FRAMES, HEIGHT, WIDTH, make_clip, write_clips

from dexworld.data.video import write_video
from dexworld.data.video_frames import VideoFrames
from dexworld.video.clips.clip import ClipShape
from dexworld.video.clips.triplets import finish_triplets
from dexworld.video.real.alignment import measure_alignment
from dexworld.video.real.validate_clips import validate_triplets

SHAPE = ClipShape(frames=FRAMES, height=HEIGHT, width=WIDTH)


@pytest.fixture
def folder(tmp_path):
    """Two good triplets, finished."""
    write_clips(tmp_path, "kitchen/a", seed=0)
    write_clips(tmp_path, "kitchen/b", seed=1)
    finish_triplets(tmp_path, {}, {"kitchen/a": 0, "kitchen/b": 1})
    return tmp_path


def rewrite(folder: Path, part: str, change) -> Path:
    """Change the frames of clip b's video in place; `change` returns frames, or frames and fps."""
    path = folder / "kitchen" / part / "b.mp4"
    result = change(VideoFrames(path).read(list(range(FRAMES))))
    frames, fps = result if isinstance(result, tuple) else (result, 8.0)
    write_video(path, np.ascontiguousarray(frames), fps, crf=12)
    return path


def found(folder: Path, *arguments, **options) -> set[tuple[str, str]]:
    """(file, kind) of every problem, files relative to the folder."""
    return {(problem.file, problem.kind) for problem in validate_triplets(folder, *arguments, **options).problems}


def messages(folder: Path, *arguments, **options) -> list[str]:
    return [problem.message for problem in validate_triplets(folder, *arguments, **options).problems]


def test_good_triplets_have_no_problem_and_are_counted(folder):
    report = validate_triplets(folder, expected=SHAPE)
    assert report.problems == []
    expected = {"clips": 2, "frames": 2 * FRAMES, "frames_without_hands": 0, "clips_with_hand_motion": 2}
    assert expected.items() <= report.counts.items()
    assert report.counts["shapes"] == {"9 x 48 x 64 at 8 fps": 2}
    assert report.clips["kitchen/a"]["alignment"]["agreement"] > 0.7


@pytest.mark.parametrize("part", ["videos", "videos_static", "videos_hands"])
def test_a_corrupt_or_missing_video_is_named(folder, part):
    path = folder / "kitchen" / part / "b.mp4"
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"no video", b""):
        path.write_bytes(damaged)
        assert found(folder) == {(f"kitchen/{part}/b.mp4", "undecodable")}
    path.unlink()
    assert found(folder) == {(f"kitchen/{part}/b.mp4", "missing")}


def test_a_video_with_damaged_frames_inside_is_named(folder):
    path = folder / "kitchen" / "videos" / "b.mp4"
    content = bytearray(path.read_bytes())
    start = content.find(b"mdat") + 800
    content[start : start + 400] = bytes(400)
    path.write_bytes(bytes(content))
    named = {file for file, _ in found(folder)}
    assert named
    assert named <= {"kitchen/videos/b.mp4", "kitchen/videos_static/b.mp4"}


def test_a_wrong_number_of_frames_is_named(folder):
    for part in ("videos", "videos_static", "videos_hands"):
        rewrite(folder, part, lambda frames: frames[:8])
    (folder / "kitchen" / "hand_motions" / "b.npz").unlink()
    assert found(folder) == {("kitchen/videos/b.mp4", "frame-count")}
    assert messages(folder) == ["8 frames, expected 1 + 4n (17, 49, ...)"]
    assert messages(folder, expected=SHAPE) == ["8 frames, expected 9"]


@pytest.mark.parametrize("part", ["videos_static", "videos_hands"])
@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda frames: frames[:5], "frame-count"),
        (lambda frames: frames[:, :32], "size"),
        (lambda frames: (frames, 10.0), "frame-rate"),
    ],
)
def test_a_video_that_does_not_match_its_interaction_is_named(folder, part, change, kind):
    rewrite(folder, part, change)
    assert found(folder) == {(f"kitchen/{part}/b.mp4", kind)}


def test_a_hand_track_of_another_length_or_damage_is_named(folder):
    path = folder / "kitchen" / "hand_motions" / "b.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **{name: value if name == "intrinsics" else value[:5] for name, value in arrays.items()})
    assert found(folder) == {("kitchen/hand_motions/b.npz", "frame-count")}
    path.write_bytes(b"PK")
    assert found(folder) == {("kitchen/hand_motions/b.npz", "bad-motion")}


def test_a_size_that_is_not_the_expected_one_or_no_multiple_of_16_is_named(folder):
    wide = ClipShape(frames=FRAMES, height=HEIGHT, width=WIDTH + 16)
    assert found(folder, expected=wide) == {(f"kitchen/videos/{name}.mp4", "size") for name in "ab"}
    for part in ("videos", "videos_static", "videos_hands"):
        rewrite(folder, part, lambda frames: frames[:, :40])
    assert ("kitchen/videos/b.mp4", "size") in found(folder)
    assert validate_triplets(folder).counts["shapes"] == {"9 x 48 x 64 at 8 fps": 1, "9 x 40 x 64 at 8 fps": 1}


def test_a_black_hand_video_is_an_error_and_lost_frames_are_only_counted(folder):
    rewrite(folder, "videos_hands", lambda frames: np.concatenate([frames[:2], 0 * frames[2:6], frames[6:]]))
    report = validate_triplets(folder)
    assert not report.errors
    assert report.counts["frames_without_hands"] == 4
    assert report.counts["clips_with_frames_without_hands"] == 1
    assert report.clips["kitchen/b"]["frames_without_hands"] == 4
    rewrite(folder, "videos_hands", lambda frames: np.full_like(frames, 12))
    assert found(folder) == {("kitchen/videos_hands/b.mp4", "black-hands")}


def test_a_hand_video_that_shows_the_scene_is_named(folder):
    rewrite(folder, "videos_hands", lambda frames: np.maximum(frames, 130))
    assert ("kitchen/videos_hands/b.mp4", "no-hand-video") in found(folder)


@pytest.mark.parametrize(("text", "kind"), [(b" \n", "empty-prompt"), (b"\xff\xfe\xfa", "undecodable")])
def test_a_prompt_that_is_empty_or_no_text_or_missing_is_named(folder, text, kind):
    (folder / "kitchen" / "prompts" / "b.txt").write_bytes(text)
    assert found(folder) == {("kitchen/prompts/b.txt", kind)}
    (folder / "kitchen" / "prompts" / "b.txt").unlink()
    assert found(folder) == {("kitchen/prompts/b.txt", "missing")}


@pytest.mark.parametrize(("other", "kind"), [("videos_static/a", "misaligned"), ("videos/b", "static-is-interaction")])
def test_a_static_video_of_another_clip_or_with_the_hands_is_named(folder, other, kind):
    content = (folder / "kitchen" / f"{other}.mp4").read_bytes()
    (folder / "kitchen" / "videos_static" / "b.mp4").write_bytes(content)
    assert found(folder) == {("kitchen/videos_static/b.mp4", kind)}


@pytest.mark.parametrize("shift", [(4, 0), (0, -3), (-5, 2)])
def test_a_shift_of_the_static_video_is_measured(shift):
    clip = make_clip(seed=3, pan=0)  # a panning camera's lag is a shift, too
    moved = np.roll(clip.static, (shift[1], shift[0]), axis=(1, 2))
    alignment = measure_alignment(clip.interaction, moved, clip.hands)
    assert alignment.shift == shift
    assert alignment.verdict[0] == "misaligned"
    assert "shifted by" in alignment.verdict[1]


@pytest.mark.parametrize("lag", [-2, 2])
def test_a_static_video_out_of_step_is_measured(lag):
    clip = make_clip(seed=3, frames=17, pan=3, track=None)
    late = clip.static[np.clip(np.arange(17) - lag, 0, 16)]
    alignment = measure_alignment(clip.interaction, late, clip.hands)
    assert alignment.lag == lag
    assert ("late" if lag > 0 else "early") in alignment.verdict[1]


def test_exposure_softness_a_fixed_camera_and_a_scene_without_texture_are_no_misalignment():
    clip = make_clip(seed=4)
    soft = clip.static.astype(float)
    soft = (soft + np.roll(soft, 1, 1) + np.roll(soft, 1, 2) + np.roll(soft, (1, 1), (1, 2))) / 4
    dark = (soft * 0.6 + 20).astype(np.uint8)
    assert measure_alignment(clip.interaction, dark, clip.hands).verdict == ("", "")
    still = make_clip(seed=5, pan=0)
    assert measure_alignment(still.interaction, still.static, still.hands).verdict == ("", "")
    blank = np.full_like(still.static, 90)
    alignment = measure_alignment(blank, blank, np.zeros_like(blank))
    assert alignment.verdict == ("", "")
    assert alignment.to_json()["agreement"] is None


def test_list_entries_that_point_nowhere_and_bad_lines_are_named(folder):
    listing = folder / "test.txt"
    lines = ["kitchen/videos/a.mp4", "kitchen/videos/z.mp4", "kitchen/b.mp4", "kitchen/videos/a.mp4"]
    listing.write_text("\n".join(lines), encoding="utf-8")
    missing = "line 2 names clip 'kitchen/z', of which no file exists"
    assert [text for text in messages(folder, listing) if "line 2" in text] == [missing]
    assert {("test.txt", "bad-line"), ("test.txt", "points-nowhere")} <= found(folder, "test.txt")
    assert [text[:7] for text in messages(folder, listing)][:2] == ["line 3:", "line 4:"]
    counts = validate_triplets(folder, listing).counts
    assert (counts["clips"], counts["unlisted_files"]) == (1, 5)  # the files of clip b


def test_files_that_no_list_names_are_warnings(folder):
    write_clips(folder, "office/c", track=None)
    (folder / "kitchen" / "videos" / "notes.md").write_text("x", encoding="utf-8")
    (folder / "kitchen" / "prompts" / ".b.txt.12.tmp").write_text("x", encoding="utf-8")
    assert not validate_triplets(folder).errors
    files = ("videos/c.mp4", "videos_static/c.mp4", "videos_hands/c.mp4", "prompts/c.txt")
    unlisted = [f"office/{path}" for path in files] + ["kitchen/videos/notes.md", "kitchen/prompts/.b.txt.12.tmp"]
    assert found(folder) == {(path, "unlisted") for path in unlisted}


def test_without_a_list_every_file_hints_at_a_clip(folder):
    (folder / "dataset.txt").unlink()
    (folder / "kitchen" / "prompts" / "z.txt").write_text("A hand.", encoding="utf-8")
    parts = ("videos", "videos_static", "videos_hands")
    assert found(folder) == {(f"kitchen/{part}/z.mp4", "missing") for part in parts}


def test_a_damaged_record_and_an_empty_folder_are_errors_and_a_missing_one_raises(folder, tmp_path):
    (folder / "triplets.json").write_text("{", encoding="utf-8")
    assert found(folder) == {("triplets.json", "undecodable")}
    (tmp_path / "empty").mkdir()
    assert found(tmp_path / "empty") == {(".", "empty")}
    with pytest.raises(ValueError, match="is no folder"):
        validate_triplets(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no such list"):
        validate_triplets(tmp_path, "nowhere.txt")


def test_the_table_shows_errors_first_and_says_what_it_leaves_out(folder):
    (folder / "kitchen" / "prompts" / "b.txt").unlink()
    (folder / "kitchen" / "videos" / "notes.md").write_text("x", encoding="utf-8")
    report = validate_triplets(folder)
    lines = report.table(limit=1).splitlines()
    assert "2 clips, 1 with errors; 1 errors, 1 warnings" in lines[0]
    assert lines[-2].split()[:3] == ["error", "missing", "kitchen/prompts/b.txt"]
    assert lines[-1] == "... and 1 more, all of them in the JSON report"
    assert json.loads(json.dumps(report.to_json()))["kinds"] == {"missing": 1, "unlisted": 1}


REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "aria_triplets"


@pytest.mark.skipif(not REAL.is_dir(), reason="the real triplets are not here")
def test_the_released_triplets_are_valid_with_a_small_shift_reported():
    report = validate_triplets(REAL, expected=ClipShape(frames=49, height=480, width=720))
    assert not report.errors, report.table()
    assert report.counts["frames"] == 98
    assert 0 < report.counts["frames_without_hands"] < 98
    assert {problem.kind for problem in report.problems} <= {"shifted"}
