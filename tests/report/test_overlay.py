import numpy as np
import pytest

from dexworld.report.overlay import (
    FINGER_COLOURS,
    WRIST_COLOUR,
    captioned,
    draw_disc,
    draw_line,
    grid,
    hand_overlay,
    region_overlay,
)


def black(height: int = 40, width: int = 60) -> np.ndarray:
    return np.zeros((height, width, 3), dtype=np.uint8)


def test_a_disc_covers_its_area():
    image = black()
    draw_disc(image, (30.0, 20.0), 9.0, (255, 255, 255))
    assert image[..., 0].sum() / 255 == pytest.approx(np.pi * 81, rel=0.01)
    assert image[20, 30, 0] == 255
    assert image[20, 42, 0] == 0


def test_a_line_covers_its_length_times_its_width():
    image = black()
    draw_line(image, (10.0, 20.0), (50.0, 20.0), 4.0, (255, 255, 255))
    assert image[..., 0].sum() / 255 == pytest.approx(40 * 4 + np.pi * 4, rel=0.02)


def test_what_lies_outside_the_image_is_cut_off():
    image = black()
    draw_line(image, (-30.0, -30.0), (200.0, 100.0), 3.0, (255, 0, 0))
    draw_disc(image, (-50.0, 500.0), 5.0, (0, 255, 0))
    assert image[..., 0].any()
    assert not image[..., 1].any()


def test_points_that_are_nowhere_are_refused():
    with pytest.raises(ValueError, match="visible points only"):
        draw_disc(black(), (np.nan, 3.0), 2.0, (255, 0, 0))


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


def test_hands_of_another_number_of_keypoints_are_refused():
    with pytest.raises(ValueError, match="42"):
        hand_overlay(black(), np.zeros((21, 2)), np.ones(21, dtype=bool))


def test_a_grid_puts_cells_where_they_belong_and_fills_up_with_blanks():
    cells = [np.full((2, 10, 12, 3), value, dtype=np.uint8) for value in (10, 20, 30)]
    tiled = grid(cells, columns=2)
    assert tiled.shape == (2, 24, 28, 3)
    assert (tiled[:, 0, 0, 0] == 10).all()
    assert tiled[0, 0, 16, 0] == 20
    assert tiled[1, 14, 0, 0] == 30
    assert (tiled[:, 14:, 16:] == 255).all()
    assert grid(cells, columns=3).shape == (2, 10, 44, 3)


def test_a_caption_is_written_above_and_leaves_the_picture_alone():
    frames = np.full((3, 30, 80, 3), 90, dtype=np.uint8)
    labelled = captioned(frames, "up")
    assert labelled.shape == (3, 54, 80, 3)
    assert (labelled[:, 24:] == 90).all()
    assert (labelled[0, :24] == labelled[2, :24]).all()
    assert labelled[0, :24].max() > 200  # the text
    assert labelled[0, :24, 40:].max() < 40
    assert not (captioned(frames, "")[:, :24] > 40).any()
    assert captioned(frames, "a text far too long for its bar").shape == (3, 54, 80, 3)


def test_a_region_is_bright_and_outlined():
    video, region = np.full((1, 20, 20, 3), 200, np.uint8), np.zeros((1, 20, 20), bool)
    region[0, 5:15, 5:15] = True
    overlay = region_overlay(video, region)
    assert overlay[0, 10, 10].tolist() == [200] * 3
    assert overlay[0, 0, 0].tolist() == [60] * 3
    assert overlay[0, 5, 10].tolist() == [255, 196, 0]
    assert (video == 200).all()
