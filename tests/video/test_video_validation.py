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


def rewrite(change, fps: float = 8.0, parts=("videos", "videos_static", "videos_hands")):
    """Damage of a folder: the frames of clip b's videos are changed."""

    def apply(folder: Path) -> None:
        for part in parts:
            path = folder / "kitchen" / part / "b.mp4"
            frames = change(VideoFrames(path).read(list(range(FRAMES))))
            write_video(path, np.ascontiguousarray(frames), fps, crf=12)

    return apply


def replaced(file: str, content):
    """Damage of a folder: other bytes in a file of clip b; `content` may be another file, None removes it."""

    def apply(folder: Path) -> None:
        path = folder / "kitchen" / file
        if content is None:
            path.unlink()
        else:
            path.write_bytes((folder / content).read_bytes() if isinstance(content, str) else content)

    return apply


def shorter_motion(folder: Path) -> None:
    path = folder / "kitchen" / "hand_motions" / "b.npz"
    with np.load(path) as archive:
        np.savez(path, **{name: each if name == "intrinsics" else each[:5] for name, each in dict(archive).items()})


def problems(folder: Path, *arguments, **options) -> set[tuple[str, str]]:
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


STATIC, HANDS, TEXT, MOTION = "videos_static/b.mp4", "videos_hands/b.mp4", "prompts/b.txt", "hand_motions/b.npz"
DAMAGES = [
    *(
        (file, kind, replaced(file, content))
        for file in ("videos/b.mp4", STATIC, HANDS)
        for kind, content in (("undecodable", b"no video"), ("undecodable", b""), ("missing", None))
    ),
    *(
        (file, kind, rewrite(change, fps, (file[:-6],)))
        for file in (STATIC, HANDS)
        for kind, change, fps in (
            ("frame-count", lambda frames: frames[:5], 8.0),
            ("size", lambda frames: frames[:, :32], 8.0),
            ("frame-rate", lambda frames: frames, 10.0),
        )
    ),
    (STATIC, "misaligned", replaced(STATIC, "kitchen/videos_static/a.mp4")),
    (STATIC, "static-is-interaction", replaced(STATIC, "kitchen/videos/b.mp4")),
    (HANDS, "black-hands", rewrite(lambda frames: np.full_like(frames, 12), parts=("videos_hands",))),
    (TEXT, "empty-prompt", replaced(TEXT, b" \n")),
    (TEXT, "undecodable", replaced(TEXT, b"\xff\xfe\xfa")),
    (TEXT, "missing", replaced(TEXT, None)),
    (MOTION, "frame-count", shorter_motion),
    (MOTION, "bad-motion", replaced(MOTION, b"PK")),
]


@pytest.mark.parametrize(("file", "kind", "damage"), DAMAGES)
def test_each_damage_is_named_by_file_and_kind_and_nothing_else_is(folder, file, kind, damage):
    damage(folder)
    assert problems(folder) == {(f"kitchen/{file}", kind)}


@pytest.mark.parametrize("damage", ["cut", "zeroed"])
def test_a_video_with_damaged_frames_inside_is_named(folder, damage):
    path = folder / "kitchen" / "videos" / "b.mp4"
    content = path.read_bytes()
    start = content.find(b"mdat") + 800
    rest = b"" if damage == "cut" else bytes(400) + content[start + 400 :]
    path.write_bytes(content[:start] + rest)
    named = {file for file, _ in problems(folder)}
    assert named
    assert named <= {"kitchen/videos/b.mp4", "kitchen/videos_static/b.mp4"}


def test_a_shape_that_is_not_the_expected_one_or_fits_no_codec_is_named(folder):
    wide = ClipShape(frames=FRAMES, height=HEIGHT, width=WIDTH + 16)
    assert problems(folder, expected=wide) == {(f"kitchen/videos/{name}.mp4", "size") for name in "ab"}
    (folder / "kitchen" / MOTION).unlink()
    rewrite(lambda frames: frames[:8, :40])(folder)
    assert problems(folder) == {("kitchen/videos/b.mp4", "frame-count"), ("kitchen/videos/b.mp4", "size")}
    assert messages(folder)[0] == "8 frames, expected 1 + 4n (17, 49, ...)"
    assert messages(folder, expected=SHAPE)[0] == "8 frames, expected 9"
    assert validate_triplets(folder).counts["shapes"] == {"9 x 48 x 64 at 8 fps": 1, "8 x 40 x 64 at 8 fps": 1}


def test_frames_without_hands_are_only_counted_and_a_scene_among_them_is_named(folder):
    lost = rewrite(lambda frames: np.concatenate([frames[:2], 0 * frames[2:6], frames[6:]]), parts=("videos_hands",))
    lost(folder)
    report = validate_triplets(folder)
    assert not report.errors
    counts = report.counts["frames_without_hands"], report.counts["clips_with_frames_without_hands"]
    assert (*counts, report.clips["kitchen/b"]["frames_without_hands"]) == (4, 1, 4)
    rewrite(lambda frames: np.maximum(frames, 130), parts=("videos_hands",))(folder)
    assert (f"kitchen/{HANDS}", "no-hand-video") in problems(folder)


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
    assert {("test.txt", "bad-line"), ("test.txt", "points-nowhere")} <= problems(folder, "test.txt")
    assert [text[:7] for text in messages(folder, listing)][:2] == ["line 3:", "line 4:"]
    report = validate_triplets(folder, listing).to_json()
    assert (report["counts"]["clips"], report["kinds"]["unlisted"]) == (1, 5)  # the files of clip b


def test_files_that_no_list_names_are_warnings(folder):
    write_clips(folder, "office/c", track=None)
    (folder / "kitchen" / "videos" / "notes.md").write_text("x", encoding="utf-8")
    (folder / "kitchen" / "prompts" / ".b.txt.12.tmp").write_text("x", encoding="utf-8")
    assert not validate_triplets(folder).errors
    files = ("videos/c.mp4", "videos_static/c.mp4", "videos_hands/c.mp4", "prompts/c.txt")
    unlisted = [f"office/{path}" for path in files] + ["kitchen/videos/notes.md", "kitchen/prompts/.b.txt.12.tmp"]
    assert problems(folder) == {(path, "unlisted") for path in unlisted}


def test_without_a_list_every_file_hints_at_a_clip(folder):
    (folder / "dataset.txt").unlink()
    (folder / "kitchen" / "prompts" / "z.txt").write_text("A hand.", encoding="utf-8")
    parts = ("videos", "videos_static", "videos_hands")
    assert problems(folder) == {(f"kitchen/{part}/z.mp4", "missing") for part in parts}


def test_a_damaged_record_and_an_empty_folder_are_errors_and_a_missing_one_raises(folder, tmp_path):
    (folder / "triplets.json").write_text("{", encoding="utf-8")
    assert problems(folder) == {("triplets.json", "undecodable")}
    (tmp_path / "empty").mkdir()
    assert problems(tmp_path / "empty") == {(".", "empty")}
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
