"""Hands followed through pictures by scripted networks; by MediaPipe's where `DEXWORLD_HANDS` names their folder."""

import os
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dexworld import cli
from dexworld.data.video import write_video
from dexworld.errors import UsageError
from dexworld.hands import BONES
from dexworld.video.real import landmark_model
from dexworld.video.real.hand_file import read_hands
from dexworld.video.real.hand_tracks import SearchSettings, find_tracks, tiles_of
from dexworld.video.real.landmark_model import FoundHand, LandmarkModel, Region
from dexworld.video.real.track_hands import of_one_length, placed
from hand_fixtures import curled_hands, pinhole_of

HEIGHT, WIDTH, FRAMES = 96, 160, 9
CAMERA = pinhole_of(HEIGHT, WIDTH)
HANDS = curled_hands(FRAMES)
PIXELS = HANDS[..., :2] / HANDS[..., 2:] * CAMERA[0, 0] + CAMERA[:2, 2]
MIDDLES = PIXELS.mean(axis=2)  # (F, 2, 2)


class Scripted:
    """Networks that see the hands of `HANDS` in pictures whose grey level is ten times their number.

    A palm is seen in frame 4 only. A hand is there when a region's middle is near it; `gone` frames show none.
    """

    def __init__(self, gone=(), right=(0.2, 0.8)) -> None:
        self.gone, self.right = gone, right

    def palms(self, picture, tile, threshold):
        frame = self._frame(picture)
        inside = np.abs(MIDDLES[frame] - tile.centre).max(axis=1) < tile.size / 2
        return [(0.9, Region(MIDDLES[frame, side] + 3, 40.0)) for side in (0, 1) if frame == 4 and inside[side]]

    def hand(self, picture, region):
        frame = self._frame(picture)
        apart = np.linalg.norm(MIDDLES[frame] - region.centre, axis=1)
        side = int(apart.argmin())
        there = apart[side] < 12 and frame not in self.gone
        shape = 1.3 * (HANDS[frame, side] - HANDS[frame, side].mean(axis=0))
        return FoundHand(PIXELS[frame, side], shape, 0.95 if there else 0.05, self.right[side])

    def _frame(self, picture) -> int:
        return round(float(picture.mean()) * 25.5)


PICTURES = [np.full((HEIGHT, WIDTH, 3), 10 * frame, np.uint8) for frame in range(FRAMES)]


def test_tiles_cover_the_picture_and_overlap_by_half():
    tiles = tiles_of(480, 720, (1.0, 0.5))
    assert [tile.size for tile in tiles] == [480.0] * 2 + [240.0] * 15
    corners = np.array([[tile.centre - tile.size / 2, tile.centre + tile.size / 2] for tile in tiles])
    assert corners.min() == 0
    assert corners[:, 1].max(axis=0).tolist() == [720, 480]


def test_a_hand_that_is_found_once_is_followed_both_ways():
    left, right = sorted(find_tracks(PICTURES, Scripted(), SearchSettings()), key=lambda track: track.right)
    assert list(left.hands) == list(right.hands) == list(range(FRAMES))
    assert left.right < 0 < right.right
    np.testing.assert_allclose(left.hands[0].pixels, PIXELS[0, 0])


def test_a_track_ends_where_the_hand_is_lost():
    tracks = find_tracks(PICTURES, Scripted(gone=(6, 7)), SearchSettings())
    assert [list(track.hands) for track in tracks] == [[0, 1, 2, 3, 4, 5]] * 2
    assert find_tracks(PICTURES, Scripted(gone=(3, 5)), SearchSettings()) == []  # one frame is too short


def test_of_two_tracks_of_one_side_the_surer_one_stays():
    settings = SearchSettings(first_person=False)
    (track,) = find_tracks(PICTURES, Scripted(right=(0.9, 0.9)), settings)
    assert track.right > 0
    assert len(find_tracks(PICTURES, Scripted(right=(0.9, 0.9)), SearchSettings())) == 2  # one is far on the left


def test_a_track_is_placed_before_the_camera_with_an_adults_bones():
    track = min(find_tracks(PICTURES, Scripted(), SearchSettings()), key=lambda track: track.right)
    found, record = placed(track, CAMERA, first=100)
    assert record["uncertain"] == []
    assert (record["side"], record["first_frame"], record["last_frame"]) == ("left", 100, 108)
    assert found.frames.tolist() == list(range(100, 109))
    np.testing.assert_allclose(found.keypoints, HANDS[:, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "doubt"),
    [
        ({"presence": 0.3}, "faint"),
        ({"pixels": PIXELS[0, 0][::-1]}, "no hand's shape"),
        ({"pixels": MIDDLES[0, 0] + 0.1 * (PIXELS[0, 0] - MIDDLES[0, 0])}, "too near or far"),
    ],
)
def test_doubts_are_named(change, doubt):
    track = min(find_tracks(PICTURES, Scripted(), SearchSettings()), key=lambda track: track.right)
    track.hands = {frame: replace(hand, **change) for frame, hand in track.hands.items()}
    assert doubt in placed(track, CAMERA)[1]["uncertain"]


def test_bones_keep_their_length_through_a_track():
    noisy = HANDS[:, 1] + np.random.default_rng(0).normal(0, 0.003, (FRAMES, 21, 3))
    starts, ends = np.array(BONES).T
    fixed = of_one_length(2 * noisy)
    lengths = np.linalg.norm(fixed[:, ends] - fixed[:, starts], axis=2)
    assert np.ptp(lengths, axis=0).max() < 1e-9
    assert 0.14 < lengths[:, 4:8].sum(axis=1).mean() < 0.22


def test_a_region_turns_with_the_hand():
    up = FoundHand(PIXELS[0, 1], HANDS[0, 1], 1.0, 1.0).region()
    turned = FoundHand(PIXELS[0, 1] @ np.array([[0, 1], [-1, 0]]), HANDS[0, 1], 1.0, 1.0).region()
    assert up.angle == pytest.approx(0.0, abs=0.2)
    assert turned.angle - up.angle == pytest.approx(np.pi / 2)
    assert turned.size == pytest.approx(up.size)


def test_a_crop_shows_the_region_upright():
    picture = torch.zeros(3, 96, 160)
    picture[0, 40:56, 100:116] = 1.0  # right of the region's middle
    crop = landmark_model._crop(picture, Region(np.array([80.0, 48.0]), 96.0, np.pi / 2), 48)
    row, column = np.argwhere(crop[0, :, :, 0] > 0.5).mean(axis=0)
    assert (row, column) == (pytest.approx(9.5, abs=1), pytest.approx(23.5, abs=1))


@pytest.fixture
def film(tmp_path) -> Path:
    write_video(tmp_path / "film.mp4", np.stack(PICTURES), 8.0, crf=1)
    return tmp_path / "film.mp4"


def test_the_command_writes_a_hand_file_and_names_each_track(tmp_path, film, monkeypatch, caplog):
    monkeypatch.setattr("dexworld.video.real.track_hands.LandmarkModel", lambda path: Scripted())
    monkeypatch.setattr("dexworld.video.real.track_hands.WORKING", WIDTH)
    words = ["--videos", film, "--model", tmp_path, "--output", tmp_path / "out", "--focal", CAMERA[0, 0]]
    with caplog.at_level("INFO"):
        cli.main(["video", "track-hands", *map(str, words)])
    assert "rough ones: 9 left and 9 right hands in 9 frames; 0 uncertain hands are left out" in caplog.text
    hands = read_hands(tmp_path / "out" / "film.npz", (HEIGHT, WIDTH))
    assert hands.valid.all()
    np.testing.assert_allclose(hands.keypoints, HANDS, atol=1e-6)


def test_missing_networks_and_packages_are_named(tmp_path, film, capsys, monkeypatch):
    words = ["video", "track-hands", "--videos", str(film), "--output", str(tmp_path / "out"), "--model"]
    with pytest.raises(SystemExit):
        cli.main([*words, str(tmp_path)])
    assert "give hand_landmarker.task, or a folder" in capsys.readouterr().err
    for name in ("palm_detection_full.tflite", "hand_landmark_full.tflite"):
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.setitem(__import__("sys").modules, "ai_edge_litert", None)
    with pytest.raises(SystemExit):
        cli.main([*words, str(tmp_path)])
    assert capsys.readouterr().err == "dexworld: the hand networks need ai-edge-litert: pip install 'dexworld[hands]'\n"


@pytest.mark.skipif(
    "DEXWORLD_HANDS" not in os.environ, reason="DEXWORLD_HANDS names no folder with MediaPipe's networks"
)
def test_mediapipes_networks_find_nothing_in_grey_pictures(tmp_path):
    pytest.importorskip("ai_edge_litert")
    folder = Path(os.environ["DEXWORLD_HANDS"])
    with zipfile.ZipFile(tmp_path / "hand_landmarker.task", "w") as archive:
        for inside, name in (
            ("hand_detector", "palm_detection_full"),
            ("hand_landmarks_detector", "hand_landmark_full"),
        ):
            archive.write(next(folder.rglob(f"{name}.tflite")), f"{inside}.tflite")
    model = LandmarkModel(tmp_path / "hand_landmarker.task")
    assert find_tracks(PICTURES[:3], model, SearchSettings()) == []
    hand = model.hand(torch.zeros(3, 96, 160), Region(np.array([80.0, 48.0]), 96.0))
    assert hand.presence < 0.2
    assert hand.shape.shape == (21, 3)
    with pytest.raises(UsageError):
        LandmarkModel(folder / "none.task")
