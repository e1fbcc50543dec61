"""The 42-keypoint hand convention shared by every dataset, robot and model.

Rows 0-20 are the left hand, rows 21-41 the right hand. Within a hand the order is the 21 EgoDex joints that DexWM uses
(EgoDex has 25 a hand; the four metacarpals are left out): wrist, then thumb, index, middle, ring and little finger with
four joints each, from the palm to the tip. Source: EgoDex dataset page; DexWM paper, section 4.1.
"""

FINGERS = ("Thumb", "IndexFinger", "MiddleFinger", "RingFinger", "LittleFinger")
JOINTS = ("Knuckle", "IntermediateBase", "IntermediateTip", "Tip")

HAND_KEYPOINTS: tuple[str, ...] = ("Hand", *(f"{finger}{joint}" for finger in FINGERS for joint in JOINTS))
KEYPOINT_NAMES: tuple[str, ...] = tuple(f"{side}{name}" for side in ("left", "right") for name in HAND_KEYPOINTS)

KEYPOINTS_PER_HAND = len(HAND_KEYPOINTS)  # 21
NUM_KEYPOINTS = len(KEYPOINT_NAMES)  # 42
LEFT = slice(0, KEYPOINTS_PER_HAND)
RIGHT = slice(KEYPOINTS_PER_HAND, NUM_KEYPOINTS)

WRIST = 0
TIPS = (4, 8, 12, 16, 20)

# The twelve keypoints that the hand-consistency loss, the planning cost and PCK use: per hand the wrist and five tips.
TRACKED: tuple[int, ...] = tuple(side.start + joint for side in (LEFT, RIGHT) for joint in (WRIST, *TIPS))
NUM_TRACKED = len(TRACKED)  # 12

# Pairs of rows within one hand that a drawing connects with a line.
BONES: tuple[tuple[int, int], ...] = tuple(
    (WRIST if joint == 0 else 4 * finger + joint, 4 * finger + joint + 1) for finger in range(5) for joint in range(4)
)

# Bone lengths of an adult's hand, metres, in the order of `BONES`: they tell how large another hand is.
BONE_LENGTHS = (
    (0.045, 0.040, 0.032, 0.027),
    (0.092, 0.043, 0.026, 0.022),
    (0.090, 0.047, 0.030, 0.024),
    (0.085, 0.043, 0.028, 0.024),
    (0.080, 0.034, 0.021, 0.021),
)

# The upper body as EgoDex names it, for models that are conditioned on it (PEVA; DexWM paper, section 5): with the two
# wrists above, the twenty joints of that baseline.
BODY_KEYPOINTS: tuple[str, ...] = (
    *(f"{side}{name}" for side in ("left", "right") for name in ("Shoulder", "Arm", "Forearm")),
    "hip",
    *(f"neck{number}" for number in range(1, 5)),
    *(f"spine{number}" for number in range(1, 8)),
)

# How a hand video shows them (DWM release): RGB of 1, times ambient plus diffuse light that comes from the camera.
HAND_COLOURS = {"left": (0.5, 0.8, 0.5), "right": (0.8, 0.4, 0.4)}
HAND_AMBIENT, HAND_DIFFUSE = 0.7, 0.6

# The dummy hand of a parallel gripper: metres from the end effector to the four joints of every finger, palm to tip,
# with the gripper open and closed (DexWM release; paper, appendix C.2).
GRIPPER_OPEN_RADII = (0.03, 0.04, 0.05, 0.06)
GRIPPER_CLOSED_RADII = (0.03, 0.04, 0.035, 0.03)
