"""A plausible upper body behind two recorded hands and a head camera, by an adult's measures.

Nothing of it is measured or simulated. It gives data EgoDex's joints, for models that are conditioned on the body, as
PEVA. The drawn forearms come from its elbows.
"""

import numpy as np

from dexworld.hands import BODY_KEYPOINTS
from dexworld.sim.hands.hand_scene import COUNTER_FRONT
from dexworld.sim.kitchen.kitchen_scene import COUNTER_TOP

UPPER_ARM, FOREARM = 0.29, 0.265  # metres, an adult's
_REACH = 0.985 * (UPPER_ARM + FOREARM)
_BEHIND_EYES, _BELOW_EYES = 0.085, 0.055  # top of the neck from the camera, in the head's frame
_SLEEVE = 0.042  # metres, its radius
_NECK, _BACK = 0.115, 0.50  # lengths of neck and spine


def upper_body(world_from_camera: np.ndarray, wrists: np.ndarray) -> np.ndarray:
    """Joints (18, 3) m in the rows of `hands.BODY_KEYPOINTS`.

    world_from_camera: (4, 4) optical pose of the head camera; world x is ahead, z up. wrists: (2, 3) m, left and right.
    """
    up, ahead = np.array([0.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0])
    turn, eyes = world_from_camera[:3, :3], world_from_camera[:3, 3]
    gaze = turn[:, 2] - up * (turn[:, 2] @ up)
    facing = 0.7 * ahead + 0.3 * gaze / max(float(np.linalg.norm(gaze)), 1e-6)
    facing /= np.linalg.norm(facing)
    left = np.cross(up, facing)
    skull = eyes - _BEHIND_EYES * turn[:, 2] + _BELOW_EYES * turn[:, 1]
    neck_root = skull - _NECK * (0.96 * up + 0.28 * facing)
    hip = neck_root - _BACK * up - 0.03 * facing
    joints = {"hip": hip}
    for number in range(1, 8):  # the back's curve is 2 cm deep
        share = number / 7.5
        joints[f"spine{number}"] = hip + share * (neck_root - hip) - 0.02 * np.sin(np.pi * share) * facing
    for number in range(1, 5):
        joints[f"neck{number}"] = neck_root + (number - 1) / 3 * (skull - neck_root)
    for side, sign, wrist in (("left", 1.0, wrists[0]), ("right", -1.0, wrists[1])):
        joints[f"{side}Shoulder"] = neck_root - 0.045 * up + 0.02 * facing + sign * 0.025 * left
        shoulder = neck_root - 0.06 * up + sign * 0.17 * left
        towards = shoulder + 0.3 * sign * left - 0.3 * up - 0.1 * facing
        joints[f"{side}Arm"], joints[f"{side}Forearm"] = _arm(shoulder, wrist, towards)
    return np.stack([joints[name] for name in BODY_KEYPOINTS])


def _arm(shoulder: np.ndarray, wrist: np.ndarray, towards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shoulder, moved along when the wrist is out of reach, and elbow, both (3,).

    The elbow points to `towards` (3,), or as little higher as it must to stay above the counter.
    """
    along = wrist - shoulder
    distance = float(np.linalg.norm(along))
    along = along / distance
    if distance > _REACH:
        shoulder, distance = wrist - along * _REACH, _REACH
    middle = (UPPER_ARM**2 - FOREARM**2 + distance**2) / (2 * distance)
    radius = np.sqrt(max(UPPER_ARM**2 - middle**2, 0.0))

    def elbow(raised: float) -> np.ndarray:
        aside = towards + np.array([0.0, 0.0, raised]) - shoulder
        aside = aside - along * (along @ aside)
        return shoulder + along * middle + radius * aside / np.linalg.norm(aside)

    low, high = 0.0, 0.6
    if _clears(elbow(low)):
        return shoulder, elbow(low)
    for _ in range(12):
        half = (low + high) / 2
        low, high = (low, half) if _clears(elbow(half)) else (half, high)
    return shoulder, elbow(high)


def _clears(elbow: np.ndarray) -> bool:
    """Whether a sleeve around `elbow` (3,) stays above the counter; before its edge it may hang."""
    return bool(elbow[2] >= COUNTER_TOP + _SLEEVE - 3.0 * max(COUNTER_FRONT - float(elbow[0]), 0.0))
