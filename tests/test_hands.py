"""The 42-keypoint convention, on which every dataset, robot and checkpoint rests."""

from dexworld import hands


def test_there_are_21_keypoints_a_hand_left_before_right():
    assert hands.NUM_KEYPOINTS == 42
    assert len(hands.HAND_KEYPOINTS) == 21
    assert len(set(hands.KEYPOINT_NAMES)) == 42
    assert all(name.startswith("left") for name in hands.KEYPOINT_NAMES[hands.LEFT])
    assert all(name.startswith("right") for name in hands.KEYPOINT_NAMES[hands.RIGHT])
    assert hands.KEYPOINT_NAMES[hands.RIGHT.start + hands.WRIST] == "rightHand"


def test_a_finger_goes_from_knuckle_to_tip():
    joints = ("IndexFingerKnuckle", "IndexFingerIntermediateBase", "IndexFingerIntermediateTip", "IndexFingerTip")
    assert hands.HAND_KEYPOINTS[5:9] == joints


def test_the_tracked_keypoints_are_wrist_and_five_tips_of_each_hand():
    assert hands.TRACKED == (0, 4, 8, 12, 16, 20, 21, 25, 29, 33, 37, 41)
    assert hands.TRACKED_NAMES[:2] == ("leftHand", "leftThumbTip")
    assert all(name.endswith(("Hand", "Tip")) and "Intermediate" not in name for name in hands.TRACKED_NAMES)


def test_the_bones_connect_every_keypoint_to_the_wrist_once():
    parents = {child: parent for parent, child in hands.BONES}
    assert sorted(parents) == list(range(1, 21))
    for joint in parents:
        steps = 0
        while joint != hands.WRIST:
            joint, steps = parents[joint], steps + 1
        assert steps <= 4
