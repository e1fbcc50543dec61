"""Do imagined hands go where they are told? The sums in closed form."""

import numpy as np
import pytest
import torch

from dexworld.evaluation.atomic import of_hands
from dexworld.studies.hand_measures import ATOMIC_SUMS, CENTIMETRES, Subject, atomic_sums, transfer_sums, transfers
from square_fixtures import square_episode, square_frames

MOVES = {"up": (0, -40), "down": (0, 40), "left": (-30, 0), "right": (30, 0), "forward": (0, -4), "back": (0, 4)}
TIPS = torch.tensor([[0, 0], [8, -12], [4, -16], [0, -18], [-4, -16], [-8, -12]]).float()  # from the wrist


def commanded() -> tuple[tuple[str, ...], torch.Tensor]:
    """Pixels (8, 2, 12, 2) of all motions from the middle of a picture; the fingers open by half and close by half."""
    ends = {name: TIPS + torch.tensor(move) for name, move in MOVES.items()}
    ends |= {"open": 1.5 * TIPS, "close": 0.5 * TIPS}
    right = torch.stack([torch.stack([TIPS, end]) for end in ends.values()]) + 100.0
    return tuple(ends), torch.cat([torch.zeros_like(right), right], dim=2)


SEEN = torch.ones(8, 12, dtype=torch.bool)


def test_a_hand_that_is_read_where_it_should_be_is_right_in_everything():
    names, told = commanded()
    sums = atomic_sums(names, told, told, SEEN)
    assert set(sums) == set(ATOMIC_SUMS)
    assert (sums["atomic_pairs"], sums["curl_pairs"]) == (2, 1)  # forward and back end 8 pixels apart
    assert (sums["atomic_right"], sums["atomic_gone"], sums["curls_gone"]) == (2, 2, 1)
    assert (sums["atomic_points"], sums["atomic_found"], sums["atomic_error"], sums["reader_error"]) == (48, 48, 0, 0)
    moved = (told[:, 1, 6:] - told[:, 0, 6:]).norm(dim=-1)
    assert sums["still_error"] == pytest.approx(float(moved.sum()))
    assert sums["still_found"] == int((moved <= 20).sum())


def test_what_all_motions_share_says_nothing_of_direction():
    names, told = commanded()
    shifted = told.clone()
    shifted[:, 1] += 50  # the reader is wrong by as much in all of them
    sums = atomic_sums(names, told, shifted, SEEN)
    assert (sums["atomic_right"], sums["atomic_gone"], sums["curls_gone"]) == (2, 2, 1)
    assert sums["atomic_found"] == 0
    assert sums["atomic_error"] == pytest.approx(48 * 50 * 2**0.5, rel=1e-5)


@pytest.mark.parametrize(
    ("share", "turn", "right"), [(0.5, 0, 2), (-1.0, 0, 0), (0.0, 0, 0), (1.0, 40, 2), (1.0, 50, 0)]
)
def test_directions_within_45_degrees_count_and_the_way_is_measured_along_them(share, turn, right):
    names, told = commanded()
    angle = torch.deg2rad(torch.tensor(float(turn)))
    turned = torch.tensor([[angle.cos(), angle.sin()], [-angle.sin(), angle.cos()]])
    read = told.clone()
    read[:6, 1] = told[:6, 0] + share * (told[:6, 1] - told[:6, 0]) @ turned
    sums = atomic_sums(names, told, read, SEEN)
    assert sums["atomic_right"] == right
    assert sums["atomic_gone"] == pytest.approx(2 * share * float(angle.cos()), abs=1e-5)


def test_keypoints_out_of_view_do_not_count():
    names, told = commanded()
    seen = SEEN.clone()
    seen[:, 6:] = False
    assert not any(atomic_sums(names, told, told, seen).values())
    seen[:, 7] = True  # one tip, without its wrist
    sums = atomic_sums(names, told, told, seen)
    assert (sums["atomic_points"], sums["atomic_pairs"], sums["curl_pairs"]) == (8, 2, 0)


class Copying:
    """A world model of pixels that repeats the first frame."""

    config = None

    def encode(self, images):
        return images.float().flatten(1)[:, None, :12]

    def condition(self, track):
        return of_hands(track)

    def start(self, latents, motion):
        return latents

    def rollout(self, context, motion, max_batch=None):
        return context[-1:].expand(len(motion.deltas), motion.steps, -1, -1)


def test_a_transfer_asks_for_the_sources_displacement_from_the_targets_start(tmp_path):
    steps = np.arange(40)[:, None] * np.array([[1, 0]])
    corners = [np.array([[20, 20]]) + steps, np.array([[100, 60]]) - steps]
    clips = [square_episode(seed, corner, square_frames(corner)) for seed, corner in enumerate(corners)]
    with pytest.raises(ValueError, match="needs two held-out clips of 4 s, and there are 1"):
        next(transfers(clips[:1]))
    there, back = transfers(clips)
    assert (there.source.source, there.target.source) == ("square 1", "square 0")
    wrist = of_hands(there.moved).pixels[:, 6, :2]
    np.testing.assert_allclose(wrist[0], [26, 26], atol=1e-6)  # the middle of the target's square
    np.testing.assert_allclose(wrist[20] - wrist[0], [-20, 0], atol=1e-6)

    truth = iter([of_hands(each.moved).pixels[..., :2] for each in (there, back)])

    class Reader:
        def keypoints(self, latents):
            return next(truth), None

    subject = Subject(tmp_path, Reader(), {}, tmp_path, "validation", 0, 1)
    for transfer in (there, back):
        sums = transfer_sums(transfer, Copying(), subject)
        assert sums["in_view"].shape == (20,)
        assert (sums["transfer_pck20_visible"] == sums["in_view"]).all()
        far = np.arange(1, 21) > 20 * 96 / 224  # the start frame repeated is wrong once the hand is 20 pixels away
        assert (sums["start_pck20_visible"] == np.where(far, 0, sums["in_view"])).all()
        assert sums["transfer_tips_error"].max() < 1e-6
        assert sums["tips"].max() == 5


def test_the_atomic_actions_are_the_papers():
    assert (CENTIMETRES.hand, CENTIMETRES.distance) == ("right", 0.01)
