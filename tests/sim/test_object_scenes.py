"""Pushes and static pairs: one seed one recording, objects that move, and points that say what the picture shows."""

import numpy as np
import pytest
from sim_recordings import bytes_of

from dexworld.data.datasets import open_dataset
from dexworld.evaluation.open_loop_metrics import object_pixels
from dexworld.sim.collect_scenes import SceneRange, collect_objects
from dexworld.sim.kitchen.kitchen_scene import EGO_CAMERA
from dexworld.sim.kitchen.kitchen_simulation import MAX_OBJECTS
from dexworld.sim.kitchen.object_scenes import POINTS, PairConfig, Points, PushConfig, record_pairs, record_pushes

SEED = 900_003
PUSHES, PAIRS = PushConfig(frames=7), PairConfig(frames=3)


@pytest.fixture(scope="module")
def pushes():
    return record_pushes(SEED, PUSHES)


def test_hands_move_objects_and_points_go_with_them(pushes):
    motion, points = pushes["object_motion"], pushes["points"]
    assert (pushes.fps, len(pushes), points.shape[1:]) == (1.0, 7, (POINTS, 2))
    assert motion.max() > 0.02
    centres, _ = object_pixels(pushes.tensors())
    np.testing.assert_allclose(points[:, :MAX_OBJECTS], centres, atol=1e-3)
    moved = np.nanmax(np.linalg.norm(np.diff(points, axis=0), axis=-1), axis=0)
    assert np.nanmax(moved[:MAX_OBJECTS]) > 1.0
    np.testing.assert_allclose(moved[2 * MAX_OBJECTS :], 0.0, atol=1e-6)  # those of the counter


def test_objects_that_the_scene_lacks_have_no_points(pushes):
    missing = np.isnan(pushes["object_positions"][0, :, 0])
    unknown = np.isnan(pushes["points"][..., 0])
    assert (unknown[:, : 2 * MAX_OBJECTS] == np.tile(missing, 2)).all()
    assert not (pushes["points_visible"] & unknown).any()


def test_one_seed_is_one_recording(pushes):
    again = record_pushes(SEED, PUSHES)
    for name in pushes.columns:
        np.testing.assert_array_equal(again[name], pushes[name])


def test_grasps_lift_an_object_and_its_points_go_with_the_hand():
    track = record_pushes(SEED + 1, PushConfig(frames=9, grasps=1.0))
    heights = track["object_positions"][..., 2] - track["object_positions"][:1, :, 2]
    lifted = np.nan_to_num(heights).max(axis=0).argmax()
    assert np.nanmax(heights) > 0.03
    assert np.ptp(track["points"][:, lifted], axis=0).max() > 5.0


def test_a_centre_is_visible_where_the_picture_shows_its_object(simulation):
    simulation.move(simulation.joint_targets, 0.3)
    points, rng = Points(simulation, np.random.default_rng(0)), np.random.default_rng(1)
    seen = []
    for _ in range(6):
        pose = simulation.joint_targets + rng.normal(0, 0.25, len(simulation.joint_targets))
        simulation.move(np.clip(pose, *simulation.joint_limits.T), 0.5)
        row, ids = points.row(), simulation.renderer.segmentation(simulation.data, EGO_CAMERA)
        bodies = np.where(ids >= 0, simulation.model.geom_bodyid[ids], -1)
        for index, body in enumerate(simulation.objects):
            u, v = row["points"][index]
            patch = bodies[int(v) - 1 : int(v) + 2, int(u) - 1 : int(u) + 2]
            if (patch == body).all() or not (patch == body).any():  # not at an edge
                seen.append(row["points_visible"][index] == (patch == body).all())
    assert len(seen) > 6
    assert np.mean(seen) == 1.0


def test_static_pairs_set_objects_down_elsewhere_and_apart():
    pairs = record_pairs(SEED, PAIRS)
    positions = pairs["object_positions"]
    there = np.isfinite(positions[0, :, 0])
    assert np.linalg.norm(positions[1] - positions[0], axis=-1)[there].max() > 0.02
    for spots in positions[:, there, :2]:
        distances = np.linalg.norm(spots[:, None] - spots[None], axis=-1)
        assert (distances + np.eye(len(spots)) > 0.04).all()
    assert not pairs["object_touched"].any()


@pytest.mark.parametrize("recording", [PushConfig(frames=3), PairConfig(frames=2)])
def test_a_collection_goes_on_where_it_was_killed(tmp_path, recording):
    scenes = SceneRange(tmp_path, 2, SEED, 1)
    collect_objects(scenes, recording)
    before = bytes_of(tmp_path / "episodes")
    (tmp_path / "episodes" / f"{SEED:08d}.npz").unlink()
    dataset = collect_objects(scenes, recording)
    assert bytes_of(tmp_path / "episodes") == before
    assert dataset.counts["frames_in_which_objects_moved"] >= 0
    assert open_dataset(tmp_path)[0]["points"].shape == (recording.frames, POINTS, 2)


@pytest.mark.parametrize(("kind", "field", "value"), [(PushConfig, "straight", 1.5), (PairConfig, "spread", 0.0)])
def test_settings_that_make_no_recording_are_refused(kind, field, value):
    with pytest.raises(ValueError, match=field):
        kind(**{field: value})
