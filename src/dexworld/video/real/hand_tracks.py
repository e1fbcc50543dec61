"""Hands followed through a video: palms are searched in overlapping tiles, hands tracked both ways from there.

A landmark network finds more hands from where they were a frame ago than from a search, so every hand that the search
finds is followed both ways until the network loses it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dexworld.video.real.landmark_model import FoundHand, Region

SAME = 0.4  # of a hand's size: two hands whose middles are nearer are one
SURE = 0.9  # presence from which no better region is looked for
WIDER = 1.4  # a palm's region is often too small
# Log odds of the side: at the right edge of a first-person picture, and the weight of what the network says, which is
# often wrong there. Both were chosen on the two clips that docs/video_data.md measures.
EDGE, SAID = 6.0, 0.5


class HandNetworks(Protocol):
    """What finds hands in one picture (3, H, W) in [0, 1]; `LandmarkModel` is one."""

    def palms(self, picture: Tensor, tile: Region, threshold: float) -> list[tuple[float, Region]]:
        """Score and region of the hands in a tile, the best first."""

    def hand(self, picture: Tensor, region: Region) -> FoundHand:
        """The hand in a region."""


@dataclass(frozen=True)
class SearchSettings:
    """How hands are searched and followed."""

    tiles: tuple[float, ...] = (1.0, 0.75, 0.5)
    """Sides of the tiles, as shares of the picture's shorter side; they overlap by half."""
    every: int = 1
    """Palms are searched in every so many frames."""
    palm: float = 0.15
    """Score from which a palm is looked at."""
    found: float = 0.3
    """Presence of the landmark network from which a hand is followed."""
    followed: float = 0.2
    """Presence down to which it is followed."""
    shortest: int = 3
    """Tracks of fewer frames are dropped."""
    first_person: bool = True
    """The camera sits on the head: a left hand is more likely on the left."""


@dataclass
class HandTrack:
    """One hand through consecutive frames. right: log odds that it is a right hand."""

    hands: dict[int, FoundHand] = field(default_factory=dict)
    right: float = 0.0

    @property
    def presence(self) -> float:
        """The median of the network's over the frames."""
        return float(np.median([hand.presence for hand in self.hands.values()]))


def find_tracks(pictures: Sequence[np.ndarray], networks: HandNetworks, settings: SearchSettings) -> list[HandTrack]:
    """Tracks of the hands in consecutive pictures (H, W, 3) uint8, at most one left and one right hand in each.

    Where two tracks of one side meet, the surer one stays, frame by frame.
    """
    images = [torch.from_numpy(picture).permute(2, 0, 1).float() / 255 for picture in pictures]
    seeds = []
    for frame in range(0, len(images), settings.every):
        seeds += [(hand.presence, frame, hand) for hand in search(images[frame], networks, settings)]
    tracks: list[HandTrack] = []
    for _, frame, hand in sorted(seeds, key=lambda seed: -seed[0]):
        if any(frame in track.hands and _same(track.hands[frame], hand) for track in tracks):
            continue
        track = HandTrack({frame: hand})
        for step in (1, -1):
            _follow(track, frame, step, images, networks, settings, tracks)
        if len(track.hands) >= settings.shortest:
            tracks.append(track)
    for track in tracks:
        track.right = _log_odds(track, pictures[0].shape[1], settings.first_person)
    return _one_of_each_side(tracks)


def tiles_of(height: int, width: int, shares: Sequence[float]) -> list[Region]:
    """Square tiles over a picture, of sides that are shares of its shorter side, overlapping by half."""
    tiles = []
    for share in shares:
        side = share * min(height, width)
        rows, columns = (
            np.linspace(side / 2, length - side / 2, max(1, 1 + int(np.ceil(2 * (length - side) / side - 1e-6))))
            for length in (height, width)
        )
        tiles += [Region(np.array([column, row]), side) for row in rows for column in columns]
    return tiles


def search(image: Tensor, networks: HandNetworks, settings: SearchSettings) -> list[FoundHand]:
    """The hands that a search of one picture (3, H, W) in [0, 1] finds, each once."""
    palms = [
        palm
        for tile in tiles_of(image.shape[1], image.shape[2], settings.tiles)
        for palm in networks.palms(image, tile, settings.palm)
    ]
    found: list[FoundHand] = []
    looked: list[Region] = []
    for _, region in sorted(palms, key=lambda palm: -palm[0]):
        if any(np.linalg.norm(region.centre - other.centre) < 0.15 * other.size for other in looked):
            continue
        looked.append(region)
        hand = _surest(image, networks, region, region)
        if hand.presence >= settings.found and not any(_same(hand, other) for other in found):
            found.append(hand)
    return found


def _follow(
    track: HandTrack,
    frame: int,
    step: int,
    images: Sequence[Tensor],
    networks: HandNetworks,
    settings: SearchSettings,
    tracks: Sequence[HandTrack],
) -> None:
    """Extend a track from a frame in steps of 1 or -1, until the hand is lost or another track has it."""
    while 0 <= frame + step < len(images):
        last = track.hands[frame]
        region, before = last.region(), track.hands.get(frame - step, last)
        moved = last.pixels.mean(axis=0) - before.pixels.mean(axis=0)
        frame += step
        hand = _surest(images[frame], networks, region, replace(region, centre=region.centre + moved))
        taken = any(frame in other.hands and _same(other.hands[frame], hand) for other in tracks)
        if hand.presence < settings.followed or taken or not 0.5 < hand.size / last.size < 2.0:
            return
        track.hands[frame] = hand


def _surest(image: Tensor, networks: HandNetworks, region: Region, moved: Region) -> FoundHand:
    """The hand of highest presence in a region, and in those that it and a wider one around `moved` lead to."""
    hand = networks.hand(image, region)
    if hand.presence >= SURE:
        return hand
    wider = networks.hand(image, replace(moved, size=WIDER * moved.size))
    hands = [hand, *(networks.hand(image, each.region()) for each in (wider, hand))]
    return max(hands, key=lambda hand: hand.presence)


def _same(first: FoundHand, second: FoundHand) -> bool:
    apart = np.linalg.norm(first.pixels.mean(axis=0) - second.pixels.mean(axis=0))
    return bool(apart < SAME * max(first.size, second.size))


def _log_odds(track: HandTrack, width: int, first_person: bool) -> float:
    """Log odds that a track is a right hand: the network's mean over the frames, and the side of the picture."""
    said = np.clip([hand.right for hand in track.hands.values()], 0.02, 0.98)
    place = np.mean([hand.pixels[:, 0].mean() for hand in track.hands.values()]) / width
    return float(SAID * np.log(said / (1 - said)).mean() + EDGE * (2 * place - 1) * first_person)


def _one_of_each_side(tracks: list[HandTrack]) -> list[HandTrack]:
    """The tracks without the frames in which a surer one of their side is there; what is left may be of no frame."""
    kept: list[HandTrack] = []
    for track in sorted(tracks, key=lambda track: -len(track.hands) * track.presence):
        taken = {frame for other in kept if (other.right > 0) == (track.right > 0) for frame in other.hands}
        hands = {frame: hand for frame, hand in sorted(track.hands.items()) if frame not in taken}
        if hands:
            kept.append(HandTrack(hands, track.right))
    return kept
