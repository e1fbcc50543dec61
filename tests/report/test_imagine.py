import json

import numpy as np
import pytest
import torch

from dexworld.evaluation.atomic import AtomicConfig, atomic_keypoints, atomic_motions, best_frame, curled, viewing_axes
from dexworld.hands import BONES, NUM_KEYPOINTS, RIGHT, WRIST
from dexworld.report.imagine import imagine, imagine_figures, write_imagine_report
from dexworld.track import ArrayFrames, Track

HEIGHT, WIDTH = 32, 56


def flat_hand() -> np.ndarray:
    """A right hand (21, 3) flat in the x-y plane, fingers along +y, thumb on +x: its palm faces +z."""
    hand = np.zeros((21, 3))
    for finger, x in enumerate((0.045, 0.03, 0.01, -0.01, -0.03)):
        for joint in range(4):
            hand[1 + 4 * finger + joint] = [x, (0.03 if finger == 0 else 0.09) + 0.03 * joint, 0.0]
    return hand


@pytest.fixture
def episode() -> Track:
    """A camera 1 m above a hand on the ground, looking straight down with the image's top towards +y."""
    world, valid = np.zeros((3, NUM_KEYPOINTS, 3)), np.zeros((3, NUM_KEYPOINTS), dtype=bool)
    world[:, RIGHT], valid[:, RIGHT] = flat_hand(), True
    camera = np.diag([1.0, -1.0, -1.0, 1.0])
    camera[:3, 3] = [0.0, 0.1, 1.0]
    intrinsics = np.array([[60.0, 0.0, WIDTH / 2], [0.0, 60.0, HEIGHT / 2], [0.0, 0.0, 1.0]])
    images = ArrayFrames(np.full((3, HEIGHT, WIDTH, 3), 128, dtype=np.uint8))
    columns = {"keypoints_world": world, "keypoints_valid": valid}
    return Track(np.tile(camera, (3, 1, 1)), intrinsics, columns, 5.0, images, "toy")


class ToyModel:
    """Latents are four pixels' brightness; every step of a rollout adds one. Its head sees what it was told to see."""

    def __init__(self, decodes: bool = True) -> None:
        self.decodes = decodes

    def encode(self, images):
        return images[..., :1, :4, 0].float()

    def start(self, latents, motion):
        assert (latents.shape[0], motion.steps) == (1, 0)
        return latents[0]

    def rollout(self, context, motion):
        self.told = motion.pixels[..., :2]
        steps = torch.arange(1, motion.steps + 1, dtype=torch.float32)
        return context + steps.reshape(1, -1, 1, 1).expand(motion.deltas.shape[0], -1, 1, 1)

    def keypoints(self, latents):
        return self.told + torch.tensor([3.0, 4.0]), torch.ones((*latents.shape[:-2], 12))

    def decode(self, latents):
        if not self.decodes:
            raise ValueError("this encoder has no way back")
        brightness = latents[..., :1, :1, None].round().to(torch.uint8)
        return brightness.expand(*latents.shape[:-2], HEIGHT, WIDTH, 3)


def test_every_movement_goes_its_way_by_a_centimetre_a_frame_and_leaves_the_rest_alone(episode):
    movements = atomic_keypoints(episode, 0, AtomicConfig(steps=4))
    right, forward, up = np.eye(3)
    ways = {"up": up, "down": -up, "right": right, "left": -right, "forward": forward, "back": -forward}
    for name, way in ways.items():
        moved = movements[name] - movements[name][0]
        expected = np.arange(5)[:, None, None] * 0.01 * way
        np.testing.assert_allclose(moved[:, RIGHT], np.broadcast_to(expected, (5, 21, 3)), atol=1e-12)
        assert not moved[:, : RIGHT.start].any()


def test_directions_are_those_of_the_viewer_and_level_with_the_ground():
    pitched = np.array([[1.0, 0.0, 0.0], [0.0, -0.5, 0.866], [0.0, -0.866, -0.5]])  # columns: right, down, ahead
    axes = viewing_axes(pitched, np.array([0.0, 0.0, 2.0]))
    np.testing.assert_allclose([axes["right"], axes["forward"], axes["up"]], np.eye(3), atol=1e-9)


@pytest.mark.parametrize("side", ["left", "right"])
def test_closing_bends_fingers_towards_the_palm_and_keeps_bones_rigid(side):
    hand = flat_hand() * ([1, 1, 1] if side == "right" else [-1, 1, 1])  # mirrored: its palm faces +z too
    closed = curled(hand, 0.4, side)
    assert (closed[[4, 8, 12, 16, 20], 2] > 0.01).all()
    np.testing.assert_array_equal(closed[WRIST], hand[WRIST])
    for a, b in BONES:
        assert np.linalg.norm(closed[a] - closed[b]) == pytest.approx(np.linalg.norm(hand[a] - hand[b]))
    tip = hand[5] + sum(0.03 * np.array([0, np.cos(0.4 * n), np.sin(0.4 * n)]) for n in (1, 2, 3))
    np.testing.assert_allclose(closed[8], tip, atol=1e-12)


def test_motions_carry_displacements_and_pixels_and_the_last_frame_starts_them(episode):
    motions = atomic_motions(episode, 1, AtomicConfig(steps=4))
    assert set(motions) == {"up", "down", "left", "right", "forward", "back", "open", "close"}
    right = motions["right"]
    assert right.steps == 4
    np.testing.assert_allclose(right.deltas[:, RIGHT, 0], 0.01, atol=1e-12)  # the camera's x is the world's
    moved = right.pixels[-1, 6:, 0] - right.pixels[0, 6:, 0]
    np.testing.assert_allclose(moved, 4 * 0.01 * 60.0, atol=1e-9)


def test_frames_without_the_hand_and_settings_without_a_movement_are_refused(episode):
    with pytest.raises(ValueError, match="toy: there is no frame 3"):
        atomic_motions(episode, 3)
    with pytest.raises(ValueError, match=r"toy: frame 0 has no annotated left wrist"):
        atomic_motions(episode, 0, AtomicConfig(hand="left"))
    for changes in ({"steps": 0}, {"distance": 0.0}, {"hand": "both"}, {"up": (0.0, 0.0, 0.0)}):
        with pytest.raises(ValueError):  # noqa: PT011 (the message differs by field)
            AtomicConfig(**changes)


def test_the_best_frame_is_the_first_that_shows_most_of_the_hand(episode):
    episode.keypoints_world[0, RIGHT, 0] += 10.0  # out of the picture
    episode.keypoints_valid[1, RIGHT.start + 4] = False  # the thumb's tip is missing
    assert best_frame(episode) == 2
    with pytest.raises(ValueError, match="toy: no frame shows the left wrist"):
        best_frame(episode, "left")


def test_imagining_writes_a_page_and_figures(episode, tmp_path):
    imagined = imagine(ToyModel(), episode, atomic_motions(episode, 0, AtomicConfig(steps=3)))
    assert imagined.images.shape == (8, 4, HEIGHT, WIDTH, 3)
    assert imagined.images[0, :, 0, 0, 0].tolist() == [128, 129, 130, 131]
    page = write_imagine_report(tmp_path, imagined, seed=3)
    assert page.read_text().count("<video") == 16  # plain, and with the commanded hand
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["right"]["commanded_px"] == pytest.approx(3 * 0.01 * 60.0)
    assert results["right"]["imagined_px"] == pytest.approx(results["right"]["commanded_px"])
    assert results["close"]["keypoint_error_px"] == pytest.approx(5.0)
    assert results["up"]["latent_change"] == pytest.approx(3.0)
    assert results["run"]["seed"] == 3


def test_latents_that_cannot_be_decoded_are_shown_by_their_keypoints(episode, tmp_path):
    imagined = imagine(ToyModel(decodes=False), episode, atomic_motions(episode, 0, AtomicConfig(steps=2)))
    assert not imagined.decoded
    assert imagined.images[..., 0].max() > 200  # drawn on the dimmed start
    assert "no way back" in write_imagine_report(tmp_path, imagined).read_text(encoding="utf-8")


def test_a_hand_outside_the_picture_has_no_pixel_figures_and_motions_need_one_length(episode):
    motions = atomic_motions(episode, 0, AtomicConfig(steps=2, distance=5.0))
    figures = imagine_figures(imagine(ToyModel(), episode, {"left": motions["left"]}))
    assert figures["left"]["commanded_px"] is None
    with pytest.raises(ValueError, match="same number of steps"):
        imagine(ToyModel(), episode, {"a": motions["up"], "b": motions["up"].slice(0, 1)})
