import h5py
import numpy as np
import pytest
from egodex_fixtures import make_clip, write_clip

from dexworld.data.inspection import InspectConfig
from dexworld.data.readers import KINDS, LAYOUTS, ReaderOptions, kind_of, open_source
from dexworld.data.readers.droid_episode import DroidOptions
from dexworld.data.readers.egodex import EgoDexOptions
from dexworld.data.readers.gripper_hand import GripperHand
from dexworld.data.readers.lerobot import KeypointMapping, LeRobotOptions
from dexworld.data.source import Dataset, Source


@pytest.fixture(scope="module")
def egodex(tmp_path_factory):
    folder = tmp_path_factory.mktemp("egodex")
    write_clip(folder / "part1" / "fold", 0, make_clip(seed=1, length=6))
    write_clip(folder / "test" / "fold", 0, make_clip(seed=2, length=6))
    return folder


def test_a_folder_of_egodex_is_found_out_and_opened_with_its_options(egodex):
    assert kind_of(egodex) == "egodex"
    everything = open_source(egodex)
    assert isinstance(everything, Source)
    assert everything.ids == ("part1.fold.0", "test.fold.0")
    chosen = open_source(str(egodex), options=ReaderOptions(egodex=EgoDexOptions(split="test", min_confidence=1.0)))
    assert chosen.ids == ("test.fold.0",)
    assert not chosen[0].keypoints_valid.any()
    assert everything[1].keypoints_valid.all()


def test_a_folder_with_several_marks_is_read_as_the_most_particular(egodex, tmp_path, write_dataset):
    write_dataset(tmp_path, [3])
    write_clip(tmp_path / "part1" / "fold", 0, make_clip(seed=1, length=6))
    assert kind_of(tmp_path) == "episodes"
    assert isinstance(open_source(tmp_path), Dataset)
    assert open_source(tmp_path, kind="egodex").kind == "egodex"
    order = list(LAYOUTS)
    assert order.index("prepared") < order.index("droid-lerobot") < order.index("lerobot")
    assert order.index("egodex") < order.index("robocasa")


def test_a_named_kind_is_opened_as_such_and_says_what_is_missing(egodex, tmp_path):
    assert open_source(egodex, kind="egodex").ids == open_source(egodex).ids
    for kind in LAYOUTS:
        (tmp_path / kind).mkdir()
        with pytest.raises((FileNotFoundError, ValueError), match=kind):  # the message names the folder
            open_source(tmp_path / kind, kind=kind)


def test_a_folder_of_no_known_layout_is_told_what_each_needs(tmp_path):
    with h5py.File(tmp_path / "data.hdf5", "w") as file:
        file["data"] = np.zeros(3)
    (tmp_path / "clip.mp4").touch()
    with pytest.raises(ValueError, match="no layout that is known") as caught:
        open_source(tmp_path)
    for kind, layout in LAYOUTS.items():
        assert f"{kind}: {layout.needs}" in str(caught.value)


def test_a_missing_folder_and_an_unknown_kind_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no .*nowhere"):
        open_source(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no kind 'ego4d' of dataset; choose from auto, episodes, prepared"):
        open_source(tmp_path, kind="ego4d")
    ours = {"auto", "episodes", "prepared", "robot-run"}
    assert set(KINDS) == ours | {"egodex", "droid", "droid-lerobot", "robocasa", "lerobot"}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (lambda: EgoDexOptions(min_confidence=1.5), "min_confidence is 1.5"),
        (lambda: EgoDexOptions(min_confidence=float("nan")), "min_confidence is nan"),
        (lambda: EgoDexOptions(max_episodes=0), "max_episodes is 0"),
        (lambda: DroidOptions(max_episodes=0), "max_episodes is 0"),
        (lambda: DroidOptions(camera="head"), "camera is 'head'"),
        (lambda: DroidOptions(outcome="both"), "outcome is 'both'"),
        (lambda: DroidOptions(intrinsics=(1.0, 2.0, 3.0, float("nan"))), "intrinsics is"),
        (lambda: GripperHand(style="binary"), "style is 'binary'"),
        (lambda: LeRobotOptions(intrinsics=(0.0, 1.0, 2.0, 3.0)), "positive fx and fy"),
        (lambda: KeypointMapping("hand", points=("leftElbow",)), "leftElbow are no keypoints"),
        (lambda: InspectConfig(episodes=-1), "episodes"),
        (lambda: InspectConfig(decode="some"), "decode"),
        (lambda: InspectConfig(workers=-1), "workers"),
        (lambda: InspectConfig(seed=-1), "seed"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        options()
