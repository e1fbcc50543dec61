"""The 42-keypoint convention, on which every dataset, robot and checkpoint rests."""

from dexworld.hands import BONES, HAND_KEYPOINTS, KEYPOINT_NAMES, LEFT, NUM_KEYPOINTS, RIGHT, TRACKED, WRIST


def test_there_are_21_keypoints_a_hand_left_before_right_fingers_from_knuckle_to_tip():
    assert NUM_KEYPOINTS == 42
    assert len(HAND_KEYPOINTS) == 21
    assert len(set(KEYPOINT_NAMES)) == 42
    assert all(name.startswith("left") for name in KEYPOINT_NAMES[LEFT])
    assert all(name.startswith("right") for name in KEYPOINT_NAMES[RIGHT])
    assert KEYPOINT_NAMES[RIGHT.start + WRIST] == "rightHand"
    joints = ("IndexFingerKnuckle", "IndexFingerIntermediateBase", "IndexFingerIntermediateTip", "IndexFingerTip")
    assert HAND_KEYPOINTS[5:9] == joints


def test_the_tracked_keypoints_are_wrist_and_five_tips_of_each_hand():
    assert TRACKED == (0, 4, 8, 12, 16, 20, 21, 25, 29, 33, 37, 41)
    names = [KEYPOINT_NAMES[index] for index in TRACKED]
    assert names[:2] == ["leftHand", "leftThumbTip"]
    assert all(name.endswith(("Hand", "Tip")) and "Intermediate" not in name for name in names)


def test_the_bones_connect_every_keypoint_to_the_wrist_once():
    parents = {child: parent for parent, child in BONES}
    assert sorted(parents) == list(range(1, 21))
    for joint in parents:
        steps = 0
        while joint != WRIST:
            joint, steps = parents[joint], steps + 1
        assert steps <= 4
