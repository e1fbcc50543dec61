"""Selection among candidates: hands never decide, ties are drawn, and what can't be compared is refused."""

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from dexworld.data.video import write_video
from dexworld.video.clips.clip import TripletClip
from dexworld.video.judge.goal_image import GoalView, direction, hand_masks
from dexworld.video.judge.select_actions import SelectionError, rank_candidates, rank_folder, rank_order

FRAMES, HEIGHT, WIDTH = 5, 32, 48
TARGETS = (4, 14, 24, 34)  # where each candidate pushes the square to, pixels


def scene() -> np.ndarray:
    """A smooth background with a bright square at the left."""
    return with_square(background(), TARGETS[0])


def with_square(background: np.ndarray, column: int) -> np.ndarray:
    picture = background.copy()
    picture[18:26, column : column + 8] = (250, 40, 40)
    return picture


def background() -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([rows * 3, columns * 3, rows + columns], axis=-1).astype(np.uint8)


def candidates() -> list[TripletClip]:
    """Four hands that push the square to another place each; the hand ends above the square."""
    static = np.stack([scene()] * FRAMES)
    clips = []
    for index, column in enumerate(TARGETS):
        hands = np.zeros_like(static)
        hands[1:, 4:12, column : column + 8] = (0, 220, 0)
        outcome = static.copy()
        outcome[1:] = with_square(background(), column)
        outcome = np.where(hands > 0, hands, outcome)
        clips.append(TripletClip(f"candidate{index}", outcome, static, hands, prompt="push"))
    return clips


class TrueWorld:
    """Generates what really happens, from the hand video alone."""

    name = "true"

    def generate(self, clips, seeds):
        videos = []
        for clip in clips:
            assert np.array_equal(clip.interaction, clip.static), "the method saw an outcome"
            column = int(np.flatnonzero(clip.hands[-1].any(axis=(0, 2)))[0])
            video = clip.static.copy()
            video[1:] = with_square(background(), column)
            videos.append(np.where(clip.hands > 0, clip.hands, video))
        return videos


class HandsOnly:
    """Pastes the hands on the static video and changes nothing else."""

    name = "paste"

    def generate(self, clips, seeds):
        return [np.where(clip.hands > 0, clip.hands, clip.static) for clip in clips]


def view_of(clips: list[TripletClip], goal: np.ndarray) -> GoalView:
    return GoalView(goal, clips[0].static[-1], hand_masks([clip.hands for clip in clips]))


def test_a_true_world_model_finds_the_candidate_that_reaches_the_goal():
    clips = candidates()
    for wanted in range(1, len(TARGETS)):
        ranking = rank_candidates(TrueWorld(), clips, with_square(background(), TARGETS[wanted]))
        assert ranking.best == wanted
        assert ranking.names[wanted] == f"candidate{wanted}"
        assert sorted(ranking.order.tolist()) == list(range(len(clips)))


def test_hands_without_any_change_of_the_scene_never_tell_candidates_apart():
    ranking = rank_candidates(HandsOnly(), candidates(), with_square(background(), TARGETS[2]), seed=3)
    assert np.ptp(ranking.scores) < 1e-6


def test_equal_scores_are_ordered_by_the_seed_and_not_by_the_order_given():
    firsts = [int(rank_order(np.zeros(8), seed)[0]) for seed in range(400)]
    counts = np.bincount(firsts, minlength=8)
    assert counts.min() > 25
    assert counts.max() < 80
    assert rank_order(np.zeros(8), 5).tolist() == rank_order(np.zeros(8), 5).tolist()
    assert rank_order(np.array([0.1, 0.9, 0.5]), 0).tolist() == [1, 2, 0]
    with pytest.raises(ValueError, match="NaN"):
        rank_order(np.array([0.0, np.nan]), 0)


def test_hand_masks_grow_by_the_dilation_and_cover_the_last_frame():
    hands = np.zeros((5, 20, 20, 3), dtype=np.uint8)
    hands[3, 4, 4] = (0, 255, 0)
    hands[4, 12, 12] = (255, 0, 0)
    last = hand_masks([hands])[0]
    assert last.sum() == 49
    assert last[9:16, 9:16].all()
    assert not hand_masks([np.full((5, 20, 20, 3), 10, dtype=np.uint8)]).any()  # noise of the compression


def test_the_distance_is_that_of_the_directions_of_change():
    static, goal = torch.zeros(1, 3, 16, 16), torch.full((1, 3, 16, 16), 0.5)
    pictures = torch.cat([static, goal, 0.6 * goal])
    assert direction(pictures, goal, static).tolist() == pytest.approx([1.0, 0.0, 0.0], abs=1e-6)


def test_lpips_takes_the_place_of_the_weight_free_distance_when_there_are_weights():
    clips = candidates()

    def network(first, second):
        assert first.shape == (4, 3, HEIGHT, WIDTH)
        assert second.shape == (1, 3, HEIGHT, WIDTH)
        assert second.min() >= -1.0
        assert second.max() > 0.5
        return (first - second).abs().amax(dim=(1, 2, 3))

    ranking = rank_candidates(TrueWorld(), clips, with_square(background(), TARGETS[1]), lpips=network)
    assert ranking.best == 1
    assert ranking.score_name == "-lpips (own)"


def test_a_text_goal_ranks_by_what_the_scorer_says():
    clips = candidates()

    def square_column(videos, text):
        assert text == "the square is far to the right"
        return np.array([float(np.flatnonzero((video[-1, 20] == (250, 40, 40)).all(-1))[0]) for video in videos])

    ranking = rank_candidates(TrueWorld(), clips, "the square is far to the right", scorer=square_column)
    assert ranking.order.tolist() == [3, 2, 1, 0]


def test_candidates_of_different_scenes_and_single_candidates_are_refused():
    clips = candidates()
    goal = scene()
    with pytest.raises(ValueError, match="at least two"):
        rank_candidates(TrueWorld(), clips[:1], goal)
    other = replace(clips[1], static=clips[1].static + np.uint8(1))
    with pytest.raises(ValueError, match="candidate1 has another static video"):
        rank_candidates(TrueWorld(), [clips[0], other], goal)
    with pytest.raises(ValueError, match="must be of one size"):
        view_of(clips, np.zeros((8, 8, 3), dtype=np.uint8))


def test_a_users_folder_is_ranked_by_its_goal_picture(tmp_path: Path):
    write_folder(tmp_path)
    ranking = rank_folder(TrueFromFile(), tmp_path)
    assert ranking.names[ranking.best] == "candidate2"

    (tmp_path / "goal.png").unlink()
    with pytest.raises(SelectionError, match="neither a goal picture"):
        rank_folder(TrueFromFile(), tmp_path)
    (tmp_path / "goal.txt").write_text("the square is right of the middle")
    with pytest.raises(SelectionError, match=r"n/a \(weights not given\)"):
        rank_folder(TrueFromFile(), tmp_path)
    for path in (tmp_path / "hands").glob("candidate[123].mp4"):
        path.unlink()
    with pytest.raises(SelectionError, match="at least two"):
        rank_folder(TrueFromFile(), tmp_path)


def test_a_hand_video_of_another_length_is_named(tmp_path: Path):
    write_folder(tmp_path)
    write_video(tmp_path / "hands" / "candidate1.mp4", np.zeros((9, HEIGHT, WIDTH, 3), dtype=np.uint8), 8.0)
    with pytest.raises(SelectionError, match=r"candidate1\.mp4: 9 frames"):
        rank_folder(TrueFromFile(), tmp_path)
    (tmp_path / "static.mp4").unlink()
    with pytest.raises(SelectionError, match=r"static\.mp4: is missing"):
        rank_folder(TrueFromFile(), tmp_path)


class TrueFromFile(TrueWorld):
    """The same, for hand videos that went through a lossy file."""

    def generate(self, clips, seeds):
        cleaned = [np.where(clip.hands > 100, clip.hands, 0).astype(np.uint8) for clip in clips]
        return super().generate([replace(c, hands=hands) for c, hands in zip(clips, cleaned, strict=True)], seeds)


def write_folder(folder: Path) -> None:
    """A user's folder with the four candidates and the goal of the third."""
    (folder / "hands").mkdir()
    clips = candidates()
    write_video(folder / "static.mp4", clips[0].static, 8.0)
    for clip in clips:
        write_video(folder / "hands" / f"{clip.name}.mp4", clip.hands, 8.0)
    picture = av.VideoFrame.from_ndarray(with_square(background(), TARGETS[2]), format="rgb24")
    with av.open(str(folder / "goal.png"), "w", format="image2") as container:
        stream = container.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "rgb24"
        container.mux(stream.encode(picture))
        container.mux(stream.encode())
