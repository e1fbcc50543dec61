"""One triplet in memory: the interaction, static and hand video of a clip, its prompt, and the hands' motion."""

import unicodedata
from dataclasses import dataclass

import numpy as np

from dexworld.hands import LEFT, RIGHT
from dexworld.track import Track

TIME_FACTOR = 4  # pixel frames in a latent frame, after the first frame that stands alone
SPACE_FACTOR = 8  # pixels on a side of a latent cell
HAND_VECTOR = 128  # numbers of both hands in one frame: see `camera_vectors`


@dataclass(frozen=True)
class ClipShape:
    """The one clip shape that a model works on: 1 + 4 n frames, sides that are multiples of 16 pixels."""

    frames: int = 17
    height: int = 96
    width: int = 144
    fps: float = 8.0

    def __post_init__(self) -> None:
        if self.frames < 1 or (self.frames - 1) % TIME_FACTOR:
            raise ValueError(f"a clip has 1 + {TIME_FACTOR} n frames (1, 5, ... 17, ... 49), not {self.frames}")
        side = 2 * SPACE_FACTOR
        if self.height < side or self.width < side or self.height % side or self.width % side:
            raise ValueError(f"height and width are multiples of {side} pixels, not {self.height} x {self.width}")
        if not self.fps > 0:
            raise ValueError(f"fps is {self.fps}; it must be positive")

    @property
    def latent_frames(self) -> int:
        """f = (F - 1) / 4 + 1."""
        return (self.frames - 1) // TIME_FACTOR + 1

    @property
    def latent_height(self) -> int:
        """h = H / 8."""
        return self.height // SPACE_FACTOR

    @property
    def latent_width(self) -> int:
        """w = W / 8."""
        return self.width // SPACE_FACTOR


_NAME_SIGNS = "._ ,@+=()-"  # in names, beside letters and digits of any script


@dataclass(frozen=True)
class TripletClip:
    """One triplet in memory.

    name: `<group>/<stem>` or `<stem>`. interaction, static, hands: (F, H, W, 3) uint8 RGB, F = 1 + 4n (causal codecs
    fold four frames into one after the first). track: keypoints and camera of F frames, without pictures. seed: of the
    simulator. skin: (3,) uint8, the hands' colour in the first frame; None where it isn't seen. Raises ValueError
    naming the clip and the field.
    """

    name: str
    interaction: np.ndarray
    static: np.ndarray
    hands: np.ndarray
    prompt: str
    fps: float = 8.0
    track: Track | None = None
    seed: int | None = None
    skin: np.ndarray | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        for part in ("interaction", "static", "hands"):
            video = getattr(self, part)
            if video.ndim != 4 or video.shape[-1] != 3 or video.dtype != np.uint8:
                raise ValueError(f"{self.name}: {part} must be (F, H, W, 3) uint8, not {video.shape} {video.dtype}")
            if video.shape != self.interaction.shape:
                shapes = f"{part} is {video.shape}, interaction is {self.interaction.shape}"
                raise ValueError(f"{self.name}: {shapes}; the three videos need the same frames and size")
        frames = len(self.interaction)
        if not is_clip_length(frames):
            raise ValueError(f"{self.name}: {frames} frames; the codecs need 1 + 4n (5, 9, ... 17, ... 49)")
        if self.track is not None and len(self.track) != frames:
            raise ValueError(f"{self.name}: the hand track has {len(self.track)} frames, the video {frames}")
        if not (np.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"{self.name}: fps is {self.fps}; it must be positive")


def is_clip_length(frames: int) -> bool:
    """Whether a causal codec can fold this many frames: 1 + 4n with n >= 1."""
    return frames >= 5 and frames % 4 == 1


def check_name(name: str) -> None:
    """Raise ValueError unless `name` is `<stem>` or `<group>/.../<stem>` of plain file names."""
    parts = name.split("/")
    if not all(_in_word(part[:1]) and all(_in_word(sign) or sign in _NAME_SIGNS for sign in part) for part in parts):
        rule = "each part between '/' starts with a letter, digit or '_' and holds only those, spaces and .,@+=()-"
        raise ValueError(f"triplet name {name!r}: {rule}; rename its files")


def _in_word(sign: str) -> bool:
    """Whether a character is a letter or digit of any script, a mark that belongs to one, or '_'."""
    return sign == "_" or sign.isalnum() or (sign != "" and unicodedata.category(sign)[0] == "M")


def keypoints_camera(track: Track) -> np.ndarray:
    """Keypoints (F, 42, 3) float32, metres in the camera frame of their own frame; zeros where not valid."""
    valid = track.keypoints_valid[..., None]
    rotation, translation = track.world_from_camera[:, :3, :3], track.world_from_camera[:, None, :3, 3]
    points = np.where(valid, track.keypoints_world, 0.0) - translation
    return np.where(valid, points @ rotation, 0.0).astype(np.float32)


def camera_vectors(track: Track) -> np.ndarray:
    """Hand vectors (F, 128) float32 for the AdaLN conditions: a licence-free stand-in for the release's MANO vectors.

    Left, then right 21 x 3 keypoints as of `keypoints_camera`, then a flag for either hand: 1 when any keypoint of it
    is valid.
    """
    flags = [track.keypoints_valid[:, side].any(axis=1, keepdims=True) for side in (LEFT, RIGHT)]
    return np.concatenate([keypoints_camera(track).reshape(len(track), -1), *flags], axis=1).astype(np.float32)
