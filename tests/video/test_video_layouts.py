"""The layouts of TRUMANS' renderers and of the release's lists."""

from pathlib import Path

import pytest
from triplet_fixtures import write_clips

from dexworld.video.clips.clip import ClipShape
from dexworld.video.clips.layouts import open_layout
from dexworld.video.clips.triplet_files import TripletError
from dexworld.video.clips.triplets import finish_triplets, open_triplets
from dexworld.video.real.prepare_clips import ReshapeConfig, reshape_triplets
from dexworld.video.real.source_video import ClipRules

SCENE = "1a1e205b-3f54/2023-02-09@14-04-02"
LINE = f"trumans/ego_render_fov90/{SCENE}/videos/00008.mp4\n"


@pytest.fixture
def trumans(tmp_path) -> Path:
    """One clip as the three renderers leave it, below ego_render_fov90."""
    root = tmp_path / "data" / "trumans" / "ego_render_fov90"
    write_clips(root, f"{SCENE}/00008", track=None)
    for below, part in (("sequences", "videos_static"), ("processed2", "videos_hands")):
        (root / SCENE / below).mkdir()
        (root / SCENE / part).rename(root / SCENE / below / part)
    (tmp_path / "test.txt").write_text(LINE, encoding="utf-8")
    return root


@pytest.mark.parametrize("level", [0, 1, 2])
def test_the_renderers_three_places_are_read_by_list_from_any_level(trumans, tmp_path, level):
    root = [trumans, trumans.parent, trumans.parent.parent][level]
    folder = open_layout(root, tmp_path / "test.txt")
    assert folder.names == (f"trumans/ego_render_fov90/{SCENE}/00008",)
    assert folder[0].hands.max() > 200
    with pytest.raises(TripletError, match="files of 1 triplets are missing"):
        open_triplets(trumans)


def test_without_a_list_all_interaction_videos_are_found(trumans):
    assert open_layout(trumans).names == (f"{SCENE}/00008",)
    (trumans / SCENE / "sequences" / "videos").mkdir()
    (trumans / SCENE / "videos" / "00008.mp4").rename(trumans / SCENE / "sequences" / "videos" / "00008.mp4")
    folder = open_layout(trumans)
    assert folder.names == (f"{SCENE}/00008",)
    assert folder.files[f"{SCENE}/00008"].interaction.parent.parent.name == "sequences"


def test_a_collected_file_comes_before_the_renderers(trumans):
    (trumans / SCENE / "videos_static").mkdir()
    (trumans / SCENE / "videos_static" / "00008.mp4").write_bytes(b"collected")
    assert open_layout(trumans).files[f"{SCENE}/00008"].static.read_bytes() == b"collected"


def test_what_a_list_names_and_the_disk_lacks_is_named(trumans, tmp_path):
    (tmp_path / "test.txt").write_text(LINE + LINE.replace("00008", "00009"), encoding="utf-8")
    with pytest.raises(TripletError, match=r"4 files of 2 triplets are missing: .*videos/00009\.mp4"):
        open_layout(trumans, tmp_path / "test.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(TripletError, match="holds no triplets"):
        open_layout(tmp_path / "empty")


def test_reshaped_clips_keep_the_seeds_of_their_scenes(tmp_path):
    write_clips(tmp_path / "source", "kitchen/a")
    finish_triplets(tmp_path / "source", {"maker": "test"}, {"kitchen/a": 900_007})
    assert open_layout(tmp_path / "source").settings == {"maker": "test"}
    config = ReshapeConfig(tmp_path / "source", tmp_path / "small", rules=ClipRules(ClipShape(5, 32, 48)))
    assert reshape_triplets(config).folder.seeds == {"kitchen/a": 900_007}


@pytest.mark.parametrize("root", ["", "taste_rob", "taste_rob/DoubleHand/Kitchen"])
def test_taste_robs_clips_and_seeds_are_found_from_any_level_of_a_list_s_path(tmp_path, root):
    write_clips(tmp_path / "taste_rob", "DoubleHand/Kitchen/58178")
    finish_triplets(tmp_path / "taste_rob", {}, {"DoubleHand/Kitchen/58178": 7})
    (tmp_path / "test.txt").write_text("taste_rob/DoubleHand/Kitchen/videos/58178.mp4\n", encoding="utf-8")
    assert open_triplets(tmp_path, "test.txt").names == ("taste_rob/DoubleHand/Kitchen/58178",)
    folder = open_layout(tmp_path / root, tmp_path / "test.txt")
    assert folder[0].interaction.shape == (9, 48, 64, 3)
    assert list(folder.seeds.values()) == [7]


def test_reshaping_does_not_add_another_split_s_scenes(tmp_path):
    for name, seed in (("train", 7), ("held_out", 900_007)):
        write_clips(tmp_path / name, name)
        finish_triplets(tmp_path / name, {}, {name: seed})
    rules = ClipRules(ClipShape(5, 32, 48))
    reshape_triplets(ReshapeConfig(tmp_path / "train", tmp_path / "small", rules=rules))
    with pytest.raises(ValueError, match=r"training \(seed 7\) and validation"):
        reshape_triplets(ReshapeConfig(tmp_path / "held_out", tmp_path / "small", rules=rules))
