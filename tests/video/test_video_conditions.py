from dataclasses import replace

import numpy as np
import pytest
import torch

from dexworld.video.clips.hand_video import (
    hand_silhouette,
    over_video,
    painted_hands,
    repeated_first_frame,
    skin_colour,
)
from dexworld.video.clips.masks import MIX, random_mask
from dexworld.video.model.conditions import Conditions, known_mask, latent_mask


@pytest.fixture
def conditions():
    static, hands = torch.randn(2, 2, 8, 4, 6), torch.randn(2, 2, 8, 4, 6)
    mask = known_mask(static, 1, 0.7)
    told = torch.randn(2, 5, 128), torch.randn(2, 3, 4)
    return Conditions(static, mask, hands, *told, torch.full((1, 2, 8, 4, 6), 9.0))


def test_the_channels_stand_in_the_order_of_the_release(conditions):
    noisy = torch.randn(2, 2, 8, 4, 6)
    joined = conditions.channels(noisy, 25)
    assert torch.equal(joined[:, :, :8], noisy)
    assert (joined[:, :, 8] == 0.7).all()
    assert torch.equal(joined[:, :, 9:17], conditions.static)
    assert torch.equal(joined[:, :, 17:], conditions.hands)


def test_a_reference_stands_last_and_can_be_hidden(conditions):
    given = replace(conditions, reference=torch.randn(2, 2, 8, 4, 6))
    hidden = given.without_reference(torch.tensor([False, True]))
    joined = hidden.channels(torch.randn(2, 2, 8, 4, 6), 33)
    assert torch.equal(joined[:, :, 17:25], conditions.hands)
    assert torch.equal(joined[0, :, 25:], given.reference[0])
    assert (joined[1, :, 25:] == 9.0).all()
    assert torch.equal(given.without_hands(torch.tensor([False, True])).reference, hidden.reference)
    assert conditions.without_reference(torch.tensor([True, True])) is conditions


def test_a_wrong_channel_count_names_its_parts(conditions):
    with pytest.raises(ValueError, match=r"noisy 8 \+ mask 1 \+ static 8 \+ hands 8 = 25 channels.*takes 33"):
        conditions.channels(torch.randn(2, 2, 8, 4, 6), 33)


def test_blanked_rows_see_an_empty_hand_video(conditions):
    blanked = conditions.without_hands(torch.tensor([False, True]))
    assert torch.equal(blanked.hands[0], conditions.hands[0])
    assert (blanked.hands[1] == 9.0).all()
    assert torch.equal(blanked.hand_vectors[0], conditions.hand_vectors[0])
    assert (blanked.hand_vectors[1] == 0).all()
    assert torch.equal(blanked.static, conditions.static)


def test_dropping_text_zeroes_the_chosen_rows(conditions):
    dropped = conditions.without_text(torch.tensor([True, False]))
    assert (dropped.text[0] == 0).all()
    assert torch.equal(dropped.text[1], conditions.text[1])


def test_a_silhouette_is_white_where_a_hand_is():
    hands = np.zeros((1, 1, 3, 3), dtype=np.uint8)
    hands[0, 0, 1] = (120, 200, 120)
    hands[0, 0, 2] = (40, 30, 30)  # compression noise around a hand, sum 100
    assert hand_silhouette(hands)[0, 0].tolist() == [[0, 0, 0], [255, 255, 255], [0, 0, 0]]


def test_painted_hands_have_the_colour_of_skin_and_the_shading_of_the_mesh():
    hands = np.zeros((2, 32, 48, 3), dtype=np.uint8)
    hands[0, 4:10, 4:10], hands[1, 20:26, 20:26] = (60, 120, 60), (180, 90, 90)  # left, then a right one, lit more
    picture = np.full((32, 48, 3), 70, dtype=np.uint8)
    picture[4:10, 4:10] = (160, 120, 100)
    skin = skin_colour(hands[0], picture)
    assert skin.tolist() == [160, 120, 100]
    painted = painted_hands(hands, skin)
    assert painted[0, 5, 5].tolist() == [160, 120, 100]
    assert painted[1, 22, 22].tolist() == [240, 180, 150]
    assert not painted[hands.max(axis=-1) == 0].any()
    over = over_video(np.full_like(hands, 50), hands, skin)
    assert over[1, 22, 22].tolist() == [240, 180, 150]
    assert (over[:, 28:] == 50).all()
    assert over_video(hands, hands, None) is hands
    assert not painted_hands(hands, None).any()
    assert not painted_hands(np.zeros_like(hands), skin).any()
    assert skin_colour(np.zeros_like(hands[0]), picture) is None


def test_a_one_channel_mask_resizes_the_first_frame_alone():
    unknown = torch.zeros(1, 9, 16, 32)
    unknown[:, 1:] = 1
    mask = latent_mask(unknown, 1, (2, 4), 0.7)
    assert mask.shape == (1, 3, 1, 2, 4)
    torch.testing.assert_close(mask[:, 0], torch.full((1, 1, 2, 4), 0.7))
    assert (mask[:, 1:] == 0).all()


def test_a_four_channel_mask_has_one_channel_for_each_pixel_frame():
    unknown = torch.zeros(1, 9, 16, 32)
    unknown[:, 6] = 1  # the second of frames 5 to 8
    mask = latent_mask(unknown, 4, (2, 4), 1.0)
    assert mask.shape == (1, 3, 4, 2, 4)
    assert mask[0, :, :, 0, 0].tolist() == [[1, 1, 1, 1], [1, 1, 1, 1], [1, 0, 1, 1]]


def test_everything_known_is_the_constant_of_the_release_and_other_mask_channels_are_refused():
    known = latent_mask(torch.zeros(1, 9, 16, 32), 1, (2, 4), 0.7)
    assert torch.equal(known_mask(torch.zeros(1, 3, 8, 2, 4), 1, 0.7), known)
    with pytest.raises(ValueError, match="1 or 4 channels"):
        latent_mask(torch.zeros(1, 9, 16, 32), 2, (2, 4), 1.0)


def test_a_fixed_camera_s_static_video_repeats_the_first_frame():
    video = np.arange(2 * 5 * 2 * 2 * 3, dtype=np.uint8).reshape(2, 5, 2, 2, 3)
    assert (repeated_first_frame(video) == video[:, :1]).all()


@pytest.mark.parametrize("kind", MIX)
def test_every_kind_of_mask_hides_something_and_says_what_it_is(kind):
    generator = torch.Generator().manual_seed(0)
    hidden = []
    for _ in range(20):
        mask, found = random_mask(17, 24, 36, generator, kind)
        assert mask.shape == (17, 24, 36)
        assert found == kind
        hidden.append(float(mask.float().mean()))
    assert max(hidden) > 0


def test_frame_masks_keep_the_frames_that_they_promise():
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        after = random_mask(17, 4, 4, generator, "after the first frames")[0].flatten(1)
        assert not after[0].any()
        assert after[4:].all()
        between = random_mask(17, 4, 4, generator, "between first and last frames")[0].flatten(1)
        assert not between[0].any()
        assert not between[-1].any()
        assert between[8].all()


def test_kinds_are_drawn_with_their_frequencies():
    generator = torch.Generator().manual_seed(2)
    kinds = [random_mask(5, 8, 8, generator)[1] for _ in range(1000)]
    assert sum(MIX.values()) == pytest.approx(1.0)
    for kind, share in MIX.items():
        assert kinds.count(kind) / 1000 == pytest.approx(share, abs=0.04)
    with pytest.raises(ValueError, match="choose from"):
        random_mask(5, 8, 8, torch.Generator(), "star")
