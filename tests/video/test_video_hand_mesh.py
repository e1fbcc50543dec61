"""The z-buffer rasteriser, the hand built from keypoints, and the hand video."""

import numpy as np
import pytest
from triplet_fixtures import hand_points, make_track

from dexworld.hands import BONES
from dexworld.video.clips.clip import keypoints_camera
from dexworld.video.clips.hand_mesh import LENGTHS, RADII, MeshSequence, hand_mesh
from dexworld.video.clips.hand_video import frames_with_hands, render_hands, render_track
from dexworld.video.clips.rasteriser import rasterise

CAMERA = np.array([[100.0, 0, 40], [0, 100.0, 30], [0, 0, 1]])
VALID = np.ones((1, 21), dtype=bool)


def square(depth: float, half: float = 0.1, x: float = 0.0, y: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half + (x, y)
    vertices = np.concatenate([corners, np.full((4, 1), depth)], axis=1)
    return vertices, np.array([[0, 1, 2], [0, 2, 3]])


def seen(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where something is seen (60, 80) bool, and the points (60, 80, 3) that are."""
    face, weights = rasterise(vertices, faces, CAMERA, 60, 80)
    return face >= 0, np.einsum("hwc,hwcx->hwx", weights, vertices[faces[face]])


def still(vertices: np.ndarray, faces: np.ndarray, drawn: bool = True) -> MeshSequence:
    """A mesh of one frame."""
    return MeshSequence(vertices[None], faces, np.full((1, len(faces)), drawn))


NO_HAND = still(*square(1.0), drawn=False)


def test_a_square_covers_exactly_the_pixels_whose_centres_it_holds():
    covered, points = seen(*square(depth=1.0))  # from pixel 30 to 50 and 20 to 40
    expected = np.zeros((60, 80), dtype=bool)
    expected[20:40, 30:50] = True
    assert np.array_equal(covered, expected)
    np.testing.assert_allclose(points[expected, 2], 1.0, atol=1e-12)


def test_neighbouring_triangles_leave_no_gap_and_share_no_pixel():
    generator = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.linspace(-0.35, 0.35, 12), np.linspace(-0.25, 0.25, 9)), axis=-1)
    grid[1:-1, 1:-1] += generator.uniform(-0.01, 0.01, grid[1:-1, 1:-1].shape)
    vertices = np.concatenate([grid.reshape(-1, 2), np.ones((108, 1))], axis=1)
    index = np.arange(108).reshape(9, 12)
    corners = [index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]]
    faces = np.concatenate([np.stack([corners[i] for i in pick], -1).reshape(-1, 3) for pick in ((0, 1, 2), (0, 2, 3))])
    whole, _ = seen(vertices, faces)
    assert whole[5:55, 5:75].all()
    assert np.array_equal(sum(seen(vertices, faces[i : i + 1])[0].astype(int) for i in range(len(faces))), whole)


def test_the_nearer_hand_hides_the_farther_one_whatever_their_order():
    near, far = still(*square(0.5, half=0.05)), still(*square(1.0, half=0.2))
    for hands, nearer, farther in (((near, far), 1, 0), ((far, near), 0, 1)):
        image = render_hands(*hands, CAMERA, 60, 80)[0]
        assert image[30, 40].argmax() == nearer
        assert image[15, 25].argmax() == farther


def test_depth_and_weights_are_correct_in_perspective():
    vertices = np.array([[-0.3, -0.2, 0.6], [0.4, -0.3, 1.5], [0.0, 0.4, 1.0]])
    covered, points = seen(vertices, np.array([[0, 1, 2]]))
    rows, columns = np.nonzero(covered)
    projected = points[covered] @ CAMERA.T
    np.testing.assert_allclose(projected[:, 0] / projected[:, 2], columns + 0.5, atol=1e-6)
    np.testing.assert_allclose(projected[:, 1] / projected[:, 2], rows + 0.5, atol=1e-6)


def test_what_lies_behind_the_camera_or_beside_the_image_is_not_drawn():
    for mesh in (square(-1.0), square(1.0, x=3.0)):
        assert not seen(*mesh)[0].any()


def test_the_hand_holds_every_keypoint_inside_its_surface():
    points = hand_points()[None] + [0, 0.05, 0.6]
    mesh = hand_mesh(points, VALID)
    image = render_hands(NO_HAND, mesh, CAMERA * [[3], [3], [1]], 180, 240)[0]
    projected = points[0] @ (CAMERA * [[3], [3], [1]]).T
    columns, rows = (projected[:, :2] / projected[:, 2:]).astype(int).T
    assert (image[rows, columns].max(axis=1) > 0).all()


def test_a_capsule_reaches_its_radius_around_the_bone_and_no_farther():
    points = np.zeros((1, 21, 3))
    valid = np.zeros((1, 21), dtype=bool)
    points[0, 7], points[0, 8] = (0, 0, 0.5), (LENGTHS[7], 0, 0.5)  # the last bone of the index finger, at adult length
    valid[0, 7:9] = True
    mesh = hand_mesh(points, valid)
    assert BONES[7] == (7, 8)
    used = mesh.vertices[0][np.unique(mesh.faces[mesh.drawn[0]])]
    along = np.clip(used[:, 0], 0, LENGTHS[7])
    distance = np.linalg.norm(used - np.stack([along, 0 * along, 0 * along + 0.5], axis=1), axis=1)
    assert distance.max() == pytest.approx(max(RADII[7], RADII[8]), rel=1e-6)
    assert distance.min() == pytest.approx(min(RADII[7], RADII[8]), rel=1e-6)
    assert len(mesh.faces[mesh.drawn[0]]) * len(BONES) < len(mesh.faces)


def test_thickness_follows_the_size_of_the_hand():
    def spread(scale: float) -> float:
        mesh = hand_mesh(hand_points()[None] * scale, VALID)
        return float(np.ptp(mesh.vertices[0][:, 2]))

    assert spread(0.5) == pytest.approx(0.5 * spread(1.0))


def test_keypoints_that_are_not_valid_are_not_drawn_and_may_hold_anything():
    points = np.repeat(hand_points()[None] + [0, 0, 0.5], 2, axis=0)
    valid = np.ones((2, 21), dtype=bool)
    points[1], valid[1] = np.nan, False
    video = render_hands(hand_mesh(points, valid), hand_mesh(points, valid), CAMERA, 60, 80)
    assert frames_with_hands(video).tolist() == [True, False]
    assert not video[1].any()


def test_the_colours_are_those_of_the_release():
    """Facing the camera: colour x (0.7 + 0.6); left green 0.5 0.8 0.5, right red 0.8 0.4 0.4."""
    mesh = still(*square(1.0))
    middle = np.array([[60.0, 0, 40], [0, 60.0, 30], [0, 0, 1]])
    left = render_hands(mesh, NO_HAND, middle, 60, 80)[0, 30, 40]
    right = render_hands(NO_HAND, mesh, middle, 60, 80)[0, 30, 40]
    np.testing.assert_allclose(left, [166, 255, 166], atol=1)
    np.testing.assert_allclose(right, [255, 133, 133], atol=1)


@pytest.mark.parametrize("angle", [0.4, -0.9])
def test_light_falls_off_by_the_cosine_and_either_winding_is_lit_alike(angle):
    flat, faces = square(0.0, half=0.2)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    for order in (faces, faces[:, ::-1]):
        image = render_hands(NO_HAND, still(flat @ turn.T + [0, 0, 1], order), CAMERA, 60, 80)[0]
        assert image[30, 40, 1] == pytest.approx(255 * 0.4 * (0.7 + 0.6 * np.cos(angle)), abs=1)


def test_a_tracks_hand_video_moves_as_its_keypoints_do():
    track = make_track(height=96, width=144)
    video = render_track(track, 96, 144)
    points = keypoints_camera(track)[:, 21:] @ track.intrinsics.T
    expected = (points[..., 0] / points[..., 2]).mean(axis=1)
    weights = (video.max(axis=3) > 0).sum(axis=1)
    found = (weights * (np.arange(144) + 0.5)).sum(axis=1) / weights.sum(axis=1)
    assert np.abs(found - expected).max() < 4
    assert np.ptp(found) > 20
