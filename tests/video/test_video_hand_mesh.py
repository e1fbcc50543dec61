"""The z-buffer rasteriser, the hand built from keypoints, and the hand video."""

import time

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


def sphere(radius: float, depth: float, rings: int = 60) -> tuple[np.ndarray, np.ndarray]:
    angles = np.linspace(0, np.pi, rings), np.linspace(0, 2 * np.pi, 2 * rings, endpoint=False)
    polar, turn = np.meshgrid(*angles, indexing="ij")
    points = np.stack([np.sin(polar) * np.cos(turn), np.sin(polar) * np.sin(turn), np.cos(polar)], axis=-1)
    index = np.arange(polar.size).reshape(polar.shape)
    after = np.roll(index, -1, axis=1)
    corners = [(index[:-1], after[:-1], index[1:]), (after[:-1], after[1:], index[1:])]
    faces = np.concatenate([np.stack(each, axis=-1).reshape(-1, 3) for each in corners])
    return points.reshape(-1, 3) * radius + [0, 0, depth], faces


def test_a_square_covers_exactly_the_pixels_whose_centres_it_holds():
    vertices, faces = square(depth=1.0)  # from pixel 30 to 50 and 20 to 40
    raster = rasterise(vertices, faces, CAMERA, 60, 80)
    expected = np.zeros((60, 80), dtype=bool)
    expected[20:40, 30:50] = True
    assert np.array_equal(raster.covered, expected)
    np.testing.assert_allclose(raster.depth[expected], 1.0, atol=1e-12)
    assert np.isinf(raster.depth[~expected]).all()


def test_neighbouring_triangles_leave_no_gap_and_share_no_pixel():
    generator = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.linspace(-0.35, 0.35, 12), np.linspace(-0.25, 0.25, 9)), axis=-1)
    grid[1:-1, 1:-1] += generator.uniform(-0.01, 0.01, grid[1:-1, 1:-1].shape)
    vertices = np.concatenate([grid.reshape(-1, 2), np.ones((108, 1))], axis=1)
    index = np.arange(108).reshape(9, 12)
    corners = [index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]]
    faces = np.concatenate([np.stack([corners[i] for i in pick], -1).reshape(-1, 3) for pick in ((0, 1, 2), (0, 2, 3))])
    whole = rasterise(vertices, faces, CAMERA, 60, 80)
    assert whole.covered[5:55, 5:75].all()
    alone = sum(rasterise(vertices, faces[i : i + 1], CAMERA, 60, 80).covered.astype(int) for i in range(len(faces)))
    assert np.array_equal(alone, whole.covered.astype(int))


def test_the_nearer_surface_hides_the_farther_one_whatever_their_order():
    near, far = square(0.5, half=0.05), square(1.0, half=0.2)
    vertices = np.concatenate([near[0], far[0]])
    faces = np.concatenate([near[1], far[1] + 4])
    for order in (np.arange(4), np.arange(4)[::-1]):
        raster = rasterise(vertices, faces[order], CAMERA, 60, 80)
        assert raster.depth[30, 40] == pytest.approx(0.5)
        assert raster.depth[15, 25] == pytest.approx(1.0)


def test_depth_and_weights_are_correct_in_perspective():
    vertices = np.array([[-0.3, -0.2, 0.6], [0.4, -0.3, 1.5], [0.0, 0.4, 1.0]])
    raster = rasterise(vertices, np.array([[0, 1, 2]]), CAMERA, 60, 80)
    rows, columns = np.nonzero(raster.covered)
    points = raster.weights[rows, columns] @ vertices
    projected = points @ CAMERA.T
    np.testing.assert_allclose(projected[:, 0] / projected[:, 2], columns + 0.5, atol=1e-6)
    np.testing.assert_allclose(projected[:, 1] / projected[:, 2], rows + 0.5, atol=1e-6)
    np.testing.assert_allclose(points[:, 2], raster.depth[rows, columns], rtol=1e-9)


def test_a_sphere_has_the_depth_of_a_sphere():
    vertices, faces = sphere(0.1, 1.0)
    raster = rasterise(vertices, faces, CAMERA, 60, 80)
    assert raster.depth.min() == pytest.approx(0.9, abs=1e-3)
    assert raster.covered.sum() == pytest.approx(np.pi * 10.05**2, rel=0.02)


def test_what_lies_behind_the_camera_or_beside_the_image_is_not_drawn():
    for vertices, faces in (square(-1.0), square(1.0, x=3.0)):
        assert not rasterise(vertices, faces, CAMERA, 60, 80).covered.any()


@pytest.mark.parametrize(
    ("vertices", "faces", "message"),
    [
        (np.zeros((4, 2)), np.zeros((1, 3), int), "vertices must be"),
        (np.zeros((4, 3)), np.zeros((1, 3)), "integers"),
        (np.zeros((4, 3)), np.array([[0, 1, 4]]), "faces name vertices 0 to 4"),
    ],
)
def test_the_rasteriser_refuses_other_shapes(vertices, faces, message):
    with pytest.raises(ValueError, match=message):
        rasterise(vertices, faces, CAMERA, 60, 80)


def test_the_hand_holds_every_keypoint_inside_its_surface():
    points = hand_points()[None] + [0, 0.05, 0.6]
    mesh = hand_mesh(points, VALID)
    image = render_hands(None, mesh, CAMERA * [[3], [3], [1]], 180, 240)[0]
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
    used = mesh.vertices[0][np.unique(mesh.faces_of(0))]
    along = np.clip(used[:, 0], 0, LENGTHS[7])
    distance = np.linalg.norm(used - np.stack([along, 0 * along, 0 * along + 0.5], axis=1), axis=1)
    assert distance.max() == pytest.approx(max(RADII[7], RADII[8]), rel=1e-6)
    assert distance.min() == pytest.approx(min(RADII[7], RADII[8]), rel=1e-6)
    assert len(mesh.faces_of(0)) * len(BONES) < len(mesh.faces)


def test_thickness_follows_the_size_of_the_hand():
    def spread(scale: float) -> float:
        mesh = hand_mesh(hand_points()[None] * scale, VALID)
        return float(np.ptp(mesh.vertices[0][:, 2]))

    assert spread(0.5) == pytest.approx(0.5 * spread(1.0))


def test_keypoints_that_are_not_valid_are_not_drawn_and_may_hold_anything():
    points = np.repeat(hand_points()[None] + [0, 0, 0.5], 2, axis=0)
    valid = np.ones((2, 21), dtype=bool)
    points[1], valid[1] = np.nan, False
    video = render_hands(hand_mesh(points, valid), None, CAMERA, 60, 80)
    assert frames_with_hands(video).tolist() == [True, False]
    assert not video[1].any()


def test_a_valid_keypoint_that_is_not_a_number_is_named():
    points = np.zeros((2, 21, 3))
    points[1, 4, 2] = np.inf
    with pytest.raises(ValueError, match="keypoint 4 of frame 1"):
        hand_mesh(points, np.ones((2, 21), dtype=bool))
    with pytest.raises(ValueError, match=r"must be \(F, 21, 3\)"):
        hand_mesh(np.zeros((2, 42, 3)), VALID)


def test_the_colours_are_those_of_the_release():
    """Facing the camera: colour x (0.7 + 0.6); left green 0.5 0.8 0.5, right red 0.8 0.4 0.4."""
    vertices, faces = square(1.0)
    mesh = MeshSequence(vertices[None], faces, np.array([True]))
    middle = np.array([[60.0, 0, 40], [0, 60.0, 30], [0, 0, 1]])
    left = render_hands(mesh, None, middle, 60, 80)[0, 30, 40]
    right = render_hands(None, mesh, middle, 60, 80)[0, 30, 40]
    np.testing.assert_allclose(left, [166, 255, 166], atol=1)
    np.testing.assert_allclose(right, [255, 133, 133], atol=1)


def test_light_falls_off_by_the_cosine_and_either_winding_is_lit_alike():
    vertices, faces = sphere(0.1, 1.0)
    images = []
    for order in (faces, faces[:, ::-1]):
        mesh = MeshSequence(vertices[None], np.ascontiguousarray(order), np.array([True]))
        images.append(render_hands(None, mesh, CAMERA * [[4], [4], [1]], 240, 320)[0])
    assert np.abs(images[0].astype(int) - images[1]).max() <= 1
    # at r pixels from the centre the sphere of 10 cm faces away by about asin(r / 40.2)
    column = 160 + 30
    facing = np.cos(np.arcsin(30.5 / 40.2) + np.arctan(0.076))
    assert images[0][120, column, 1] == pytest.approx(255 * 0.4 * (0.7 + 0.6 * facing), abs=4)


def test_hands_hide_each_other():
    near, far = (
        MeshSequence(vertices[None], faces, np.array([True]))
        for vertices, faces in (square(0.5, half=0.05), square(1.0, half=0.1))
    )
    assert render_hands(near, far, CAMERA, 60, 80)[0, 30, 40].argmax() == 1
    assert render_hands(far, near, CAMERA, 60, 80)[0, 30, 40].argmax() == 0


def test_a_tracks_hand_video_moves_as_its_keypoints_do():
    track = make_track(height=96, width=144)
    video = render_track(track, 96, 144)
    points = keypoints_camera(track)[:, 21:] @ track.intrinsics.T
    expected = (points[..., 0] / points[..., 2]).mean(axis=1)
    weights = (video.max(axis=3) > 0).sum(axis=1)
    found = (weights * (np.arange(144) + 0.5)).sum(axis=1) / weights.sum(axis=1)
    assert np.abs(found - expected).max() < 4
    assert np.ptp(found) > 20


def test_two_hands_at_the_models_size_take_a_fraction_of_a_second_for_a_clip():
    track = make_track(frames=17, height=96, width=144)
    render_track(track, 96, 144)
    start = time.process_time()
    render_track(track, 96, 144)
    assert time.process_time() - start < 2.0


def test_meshes_of_other_shapes_are_refused():
    vertices, faces = square(1.0)
    with pytest.raises(ValueError, match="drawn must be bool"):
        MeshSequence(vertices[None], faces, np.ones((2,), dtype=bool))
    with pytest.raises(ValueError, match="there are 4"):
        MeshSequence(vertices[None], faces + 2, np.ones((1,), dtype=bool))
    broken = vertices.copy()
    broken[0] = np.nan
    with pytest.raises(ValueError, match="frame 0 hold NaN"):
        MeshSequence(broken[None], faces, np.ones((1,), dtype=bool))
    with pytest.raises(ValueError, match="one or two hands"):
        render_hands(None, None, CAMERA, 60, 80)
