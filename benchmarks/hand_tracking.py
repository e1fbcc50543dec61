"""How many hands of real triplets `video track-hands` finds, by the triplets' own hand videos.

A hand of the hand video (more than 200 pixels of its colour) is hit when the middle of a found hand's landmarks lies
nearer to the middle of its pixels than the longer side of their box. Ways: `plain` searches the whole picture once with
MediaPipe's thresholds of 0.5; `search` looks in tiles, frame by frame; `tracks` follows what it finds; `certain` leaves
uncertain tracks out and counts a hand only when its side is right, `false_hands` counts those that hit no hand of
their side.

    python benchmarks/hand_tracking.py --triplets TRIPLETS --model hand_landmarker.task
"""

import time
from pathlib import Path

import numpy as np
import torch

from common import parser, write_and_print
from dexworld.data.hand_checks import SIDES
from dexworld.data.readers.arrays import pinhole
from dexworld.video.real.hand_tracks import SearchSettings, find_tracks, search
from dexworld.video.real.landmark_model import LandmarkModel, Region
from dexworld.video.real.source_video import pictures_of
from dexworld.video.real.track_hands import ASSUMED_FOCAL, placed

SEEN_PIXELS, LEVEL = 200, 100


def true_hands(path: Path) -> list[list[tuple[np.ndarray, float] | None]]:
    """Middle and longer side, pixels, of the left and right hand of each frame of a hand video; None where unseen."""
    frames = []
    for picture in pictures_of(path):
        red, green = picture[..., 0].astype(int), picture[..., 1].astype(int)
        lit, pair = picture.max(axis=2) >= LEVEL, []
        for mask in (lit & (green > red), lit & (red > green)):
            places = np.argwhere(mask)[:, ::-1]
            seen = len(places) > SEEN_PIXELS
            pair.append((places.mean(axis=0), float(np.ptp(places, axis=0).max())) if seen else None)
        frames.append(pair)
    return frames


def hits(found: list[list], true: list[list]) -> list[int]:
    """Left and right hands that are hit by any found hand of their frame."""
    return [sum(hit(hands, pair[side]) for hands, pair in zip(found, true, strict=True)) for side in (0, 1)]


def hit(hands: list, true: tuple[np.ndarray, float] | None) -> bool:
    """Whether one of the found hands lies on the true one."""
    return true is not None and any(np.linalg.norm(hand.pixels.mean(axis=0) - true[0]) < true[1] for hand in hands)


def plain(image: torch.Tensor, model: LandmarkModel) -> list:
    """What one search of the whole picture finds."""
    height, width = image.shape[1:]
    whole = Region(np.array([width, height]) / 2, float(max(height, width)))
    hands = [model.hand(image, region) for _, region in model.palms(image, whole, 0.5)]
    return [hand for hand in hands if hand.presence >= 0.5]


def measure(video: Path, hands: Path, model: LandmarkModel) -> dict[str, object]:
    """The figures of one triplet."""
    pictures, true, settings = list(pictures_of(video)), true_hands(hands), SearchSettings()
    images = [torch.from_numpy(picture).permute(2, 0, 1).float() / 255 for picture in pictures]
    height, width = pictures[0].shape[:2]
    focal = ASSUMED_FOCAL * max(height, width)
    began = time.process_time()
    tracks = find_tracks(pictures, model, settings)
    seconds = time.process_time() - began
    camera = pinhole(focal, focal, width / 2, height / 2)
    certain = [track for track in tracks if not placed(track, camera)[1]["uncertain"]]
    rows = range(len(pictures))
    own = [
        [[track.hands[row] for track in certain if row in track.hands and (track.right > 0) == side] for row in rows]
        for side in (False, True)
    ]
    return {
        "hands": [sum(pair[side] is not None for pair in true) for side in (0, 1)],
        "plain": hits([plain(image, model) for image in images], true),
        "search": hits([search(image, model, settings) for image in images], true),
        "tracks": hits([[track.hands[row] for track in tracks if row in track.hands] for row in rows], true),
        "certain": [hits(own[side], true)[side] for side in (0, 1)],
        "false_hands": [
            sum(bool(own[side][row]) and not hit(own[side][row], true[row][side]) for row in rows) for side in (0, 1)
        ],
        "cpu_seconds_a_frame": seconds / len(pictures),
    }


def main() -> None:
    """Measure every triplet of a folder."""
    arguments = parser(__doc__, "outputs/bench/hand_tracking")
    arguments.add_argument(
        "--triplets", type=Path, required=True, help="group folder of triplets: videos, videos_hands"
    )
    arguments.add_argument(
        "--model", type=Path, required=True, help="hand_landmarker.task, or a folder of its networks"
    )
    options = arguments.parse_args()
    model, figures = LandmarkModel(options.model), {}
    for video in sorted((options.triplets / "videos").glob("*.mp4")):
        for name, value in measure(video, options.triplets / "videos_hands" / video.name, model).items():
            figures[
                f"{video.stem} {name} ({'/'.join(SIDES)})" if isinstance(value, list) else f"{video.stem} {name}"
            ] = value
    write_and_print(options.output, figures)


if __name__ == "__main__":
    main()
