"""What the worker processes compute: the same as one roll-out, and as the simulator's own steps."""

import numpy as np
import pytest
import torch

from dexworld import cli
from dexworld.data.datasets import open_dataset
from dexworld.sim.kitchen.kitchen_env import KitchenEnv
from dexworld.studio.hand_control import HandControl
from dexworld.studio.imagination import Recorded
from dexworld.studio.start_controls import pictured
from dexworld.studio.start_frame import Start, settled
from dexworld.track import Track

SCENE = Start(900_000)
LEFTWARD = (HandControl((0.0, 0.05, 0.0)), HandControl((0.0, 0.1, -0.03)), HandControl((0.0, 0.1, -0.06)))
LONG = (*LEFTWARD, HandControl((0.02, 0.1, -0.06)), HandControl((0.05, 0.1, -0.06)))


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recording")
    one = ["--episodes", "1", "--seed", "900000", "--workers", "1", "allegro", "--frames", "6"]
    cli.main(["collect", "--output", str(folder), *one])
    return folder


def test_steps_one_by_one_are_the_same_as_one_roll_out(imaginer):
    frame = imaginer.frame(SCENE, LONG)
    opened, model = imaginer._opened(SCENE), imaginer.model
    nodes = [imaginer._node(opened, SCENE, LONG[:length]) for length in range(len(LONG) + 1)]
    motion = model.condition(Track.stack([imaginer._track(opened, nodes)]))
    with torch.no_grad():
        context = model.start(nodes[0].latents[None], model.condition(imaginer._track(opened, nodes[:1])))
        whole = model.rollout(context, motion)[0]
        pictures = imaginer.drawing.decode(whole[-1:])
    torch.testing.assert_close(torch.stack([node.latents for node in nodes[1:]]), whole, atol=1e-4, rtol=1e-4)
    assert np.abs(frame.picture.astype(int) - pictures[0].numpy().astype(int)).max() <= 2


def test_a_path_is_the_same_whatever_was_computed_before(imaginer):
    known = imaginer.frame(SCENE, LEFTWARD)
    imaginer._kept.clear()
    np.testing.assert_array_equal(imaginer.frame(SCENE, LEFTWARD).picture, known.picture)


def test_what_changed_and_where_the_hand_is_seen_are_shares(imaginer):
    first, last = imaginer.frame(SCENE, ()), imaginer.frame(SCENE, LEFTWARD, heat=True)
    assert first.change.max() == 0 < last.change.max() <= 1
    assert (first.heat, last.heat.max()) == (None, 1)
    assert last.told_px[6, 0] < first.told_px[6, 0]  # the wrist goes left


def test_what_really_happens_is_what_the_environment_does(imaginer, true_scene):
    joints = [imaginer.frame(SCENE, LEFTWARD[:length]).joints for length in (1, 2)]
    seen = true_scene.picture(900_000, tuple(each.tobytes() for each in joints))
    environment = KitchenEnv()
    settled(environment, 900_000)
    for each in joints:
        observation, *_ = environment.step(each)
    environment.close()
    np.testing.assert_array_equal(seen, observation["image"])
    track = true_scene.track(900_000, tuple(each.tobytes() for each in joints))
    assert np.abs(track.frames.read([2])[0].astype(int) - seen).max() <= 2  # rounding, as the state is set again
    np.testing.assert_allclose(track.columns["keypoints_world"][2], observation["keypoints_world"], atol=1e-5)


def test_a_path_may_follow_a_recording_and_leave_it(imaginer, recording):
    start, episode = Start(folder=str(recording), frame=1), open_dataset(recording)[0]
    followed = imaginer.frame(start, (Recorded(1), Recorded(2)))
    np.testing.assert_allclose(followed.keypoints[21:], episode.keypoints_world[3][21:], atol=1e-6)
    np.testing.assert_array_equal(followed.true, episode.frames.read([3])[0])
    left = imaginer.frame(start, (Recorded(1), Recorded(2), HandControl((0.0, 0.0, 0.05))))
    np.testing.assert_allclose(left.keypoints[21:] - followed.keypoints[21:], [(0.0, 0.0, 0.05)] * 21, atol=1e-6)
    assert left.true is None
    with pytest.raises(ValueError, match="ends at frame 5"):
        imaginer.frame(start, (Recorded(5),))


def test_a_start_that_is_not_there_is_named(imaginer, recording):
    with pytest.raises(ValueError, match="no episode 7"):
        imaginer.begin(Start(folder=str(recording), episode=7))
    with pytest.raises(ValueError, match="no left wrist"):
        imaginer.begin(Start(folder=str(recording), frame=0, hand="left"))


def test_a_picture_of_ones_own_is_seen_as_by_the_kitchens_camera(imaginer, tmp_path):
    from PIL import Image

    Image.new("RGB", (300, 200), (200, 30, 30)).save(tmp_path / "red.png")
    start = pictured(SCENE, (tmp_path / "red.png").read_bytes())
    begun = imaginer.begin(start)
    assert begun.image.shape == (224, 392, 3)
    assert (begun.image == (200, 30, 30)).all()
    assert imaginer.frame(start, LEFTWARD[:1]).joints is None
    with pytest.raises(ValueError, match="no picture that can be read"):
        pictured(SCENE, b"no picture")
