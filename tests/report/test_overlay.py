import numpy as np
import pytest

from dexworld.report.overlay import FINGER_COLOURS, WRIST_COLOUR, hand_overlay, region_overlay


def black(height: int = 40, width: int = 60) -> np.ndarray:
    return np.zeros((height, width, 3), dtype=np.uint8)


def test_a_hand_has_its_wrist_its_tips_and_lines_between_them():
    image = black(80, 120)
    pixels = np.full((12, 2), np.nan)
    pixels[6:] = [(20, 60), (30, 20), (50, 12), (70, 14), (90, 24), (104, 40)]
    drawn = hand_overlay(image, pixels, np.arange(12) >= 6, scale=4)
    assert drawn.shape == (320, 480, 3)
    assert not image.any()  # the original is left alone
    assert tuple(drawn[240, 80]) == WRIST_COLOUR
    for finger, (x, y) in enumerate(pixels[7:].astype(int)):
        assert tuple(drawn[4 * y, 4 * x]) == FINGER_COLOURS[finger]
    middle = (pixels[6] + pixels[11]) / 2
    assert tuple(drawn[int(4 * middle[1]), int(4 * middle[0])]) == FINGER_COLOURS[4]


def test_all_keypoints_are_joined_by_bones_and_hidden_ones_left_out():
    pixels = np.tile(np.linspace(5, 50, 42)[:, None], (1, 2))
    shown = np.zeros(42, dtype=bool)
    np.testing.assert_array_equal(hand_overlay(black(), pixels, shown, scale=1), black())
    shown[21:] = True
    assert hand_overlay(black(), pixels, shown, scale=1).any()
    with pytest.raises(ValueError, match="visible points only"):
        hand_overlay(black(), np.full((42, 2), np.nan), shown)


def test_a_region_is_bright_and_outlined():
    video, region = np.full((1, 20, 20, 3), 200, np.uint8), np.zeros((1, 20, 20), bool)
    region[0, 5:15, 5:15] = True
    overlay = region_overlay(video, region)
    assert overlay[0, [10, 0, 5], [10, 0, 10]].tolist() == [[200] * 3, [60] * 3, [255, 196, 0]]
    assert (video == 200).all()
