from pathlib import Path

import numpy as np
import pytest

from dexworld.data.video import write_video
from dexworld.data.video_frames import VideoFrames
from dexworld.video.clips.regions import changed_pixels, hand_pixels, interaction_region

ARIA = Path(__file__).parents[3] / "shared" / "data" / "aria_triplets"
SIZE = (96, 144)


def textured(frames: int = 3, seed: int = 0) -> np.ndarray:
    """A scene of large and small shapes, the same in every frame."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    waves = 60 * np.sin(columns / 9) + 40 * np.cos(rows / 5) + 120
    image = waves[..., None] + np.random.default_rng(seed).normal(0, 6, (1, 1, 3))
    return np.repeat(image.clip(0, 255).astype(np.uint8)[None], frames, axis=0)


def with_square(video: np.ndarray, top: int, left: int, side: int, colour=(230, 40, 30)) -> np.ndarray:
    changed = video.copy()
    changed[:, top : top + side, left : left + side] = colour
    return changed


def black() -> np.ndarray:
    return np.zeros((3, *SIZE, 3), np.uint8)


def test_a_moved_object_is_in_the_region_with_a_margin_and_the_rest_is_not():
    assert not interaction_region(textured(), textured(), black()).any()
    region = interaction_region(with_square(textured(), 40, 60, 16), textured(), black())
    assert region[:, 40:56, 60:76].all()
    assert not region[:, :30].any()
    assert not region[:, :, :50].any()
    assert region.mean() < 3 * 16 * 16 / (SIZE[0] * SIZE[1])


def test_a_hand_is_in_the_region_even_where_it_looks_like_the_scene_and_a_faint_glow_is_none():
    hands = black() + np.uint8(30)  # what compression may leave of black
    assert not hand_pixels(hands).any()
    hands[1, 20:30, 100:110] = (60, 120, 60)
    region = interaction_region(textured(), textured(), hands)
    assert region[1, 20:30, 100:110].all()
    assert not region[0].any()


def test_an_object_is_found_in_spite_of_grain_exposure_and_compression_which_are_no_interaction(tmp_path):
    static = textured()
    grain = np.random.default_rng(1).normal(0, 12, static.shape)
    films = []
    for scene in (np.roll(static, 1, axis=2), with_square(static, 40, 60, 16)):
        exposed = (scene * 0.95 + 8 + grain).clip(0, 255).astype(np.uint8)
        write_video(tmp_path / "v.mp4", exposed, 8.0, crf=28)
        films.append(VideoFrames(tmp_path / "v.mp4").read([0, 1, 2]))
    assert np.abs(films[0].astype(int) - static).mean() > 5
    assert interaction_region(films[0], static, black()).mean() < 0.01
    assert interaction_region(films[1], static, black())[:, 40:56, 60:76].mean() > 0.98


def test_the_region_of_a_larger_copy_is_a_larger_copy_of_the_region():
    truth, static = with_square(textured(), 40, 60, 16), textured()
    larger = interaction_region(*(video.repeat(3, axis=1).repeat(3, axis=2) for video in (truth, static, black())))
    small = interaction_region(truth, static, black())
    assert larger.mean() == pytest.approx(small.mean(), rel=0.2)


def test_changed_pixels_are_not_widened_and_hold_no_speck():
    video = with_square(with_square(textured(), 40, 60, 16), 10, 10, 1)
    changed = changed_pixels(video, textured())
    assert changed[:, 42:54, 62:74].all()
    assert changed.sum() <= 3 * 18 * 18
    assert not changed[:, :20, :20].any()


@pytest.mark.skipif(not ARIA.is_dir(), reason="the real triplets are not here")
def test_in_a_real_clip_the_arms_and_the_cushion_are_the_region():
    def frames(kind: str) -> np.ndarray:
        return VideoFrames(ARIA / kind / "00013.mp4").read([0, 24])

    region = interaction_region(frames("videos"), frames("videos_static"), frames("videos_hands"))
    assert region[0].mean() < 0.01  # no hand yet, grain and exposure differ all over
    assert 0.1 < region[1].mean() < 0.35
    assert region[1, 280:400, 260:480].mean() > 0.9  # the cushion between the hands
    assert region[1, :200].mean() < 0.05  # the wall


def test_videos_of_another_size_are_refused():
    with pytest.raises(ValueError, match="hands video"):
        interaction_region(textured(), textured(), black()[:, :50])
