"""Robot datasets with bits flipped, bytes zeroed, ends cut off and files swapped: named errors or true values.

Runs a few dozen damaged copies of each layout; `DEXWORLD_DAMAGED_FILES=2000` runs as many of each.
"""

import os
import random
import shutil
from collections.abc import Callable

import droid_fixtures
import droid_lerobot_fixtures
import numpy as np
import pytest
import robocasa_fixtures

from dexworld.data.readers.droid import DroidOptions, open_droid
from dexworld.data.readers.droid_lerobot import open_droid_lerobot
from dexworld.data.readers.robocasa import open_robocasa
from dexworld.data.source import CorruptEpisodeError
from dexworld.data.video import VideoError

COPIES = int(os.environ.get("DEXWORLD_DAMAGED_FILES", "20"))


def write_droid(folder) -> None:
    told = droid_fixtures.write_episode(folder, rows=8, intrinsics=True)
    for serial in (droid_fixtures.WRIST, droid_fixtures.EXT1):  # only the chosen camera's video is read
        (told.folder / "recordings" / "MP4" / f"{serial}.mp4").unlink()


def write_robocasa(folder) -> None:
    robocasa_fixtures.write_file(folder / "a.hdf5", (4,))


def write_lerobot(folder) -> None:
    droid_lerobot_fixtures.write_dataset(folder, (4, 5))
    for camera in ("exterior_1_left", "wrist_left"):
        shutil.rmtree(folder / f"videos/observation.images.{camera}")


LAYOUTS: dict[str, tuple[Callable, Callable]] = {
    "droid": (write_droid, lambda folder: open_droid(folder, DroidOptions(camera="ext2"))),
    "robocasa": (write_robocasa, open_robocasa),
    "droid-lerobot": (write_lerobot, lambda folder: open_droid_lerobot(folder, DroidOptions(camera="ext2"))),
}


def damaged(content: bytes, other: bytes, draw: random.Random) -> bytes:
    """`content` with one kind of damage; `other` is another file's."""
    changed, kind = bytearray(content), draw.choice(["bits", "bits", "start", "zeros", "cut", "swap", "empty"])
    if kind in ("bits", "start"):  # headers stand at the start
        for _ in range(draw.choice([1, 4, 30])):
            changed[draw.randrange(len(changed) if kind == "bits" else min(len(changed), 3000))] ^= 1 << draw.randrange(
                8
            )
    elif kind == "zeros":
        start = draw.randrange(len(changed))
        changed[start : start + draw.randrange(1, 400)] = bytes(len(changed[start : start + 399]))
    return {"cut": content[: draw.randrange(len(content))], "swap": other, "empty": b""}.get(kind, bytes(changed))


def read_all(source, complaints: list[str]) -> int:
    """Read what can be read and check that it is true to the writer's scale; the number of episodes that could."""
    whole = 0
    complaints += [reason for _, reason in source.quarantined]
    for index in range(len(source)):
        try:
            source.files(index)
            episode = source[index]
            frames = episode.frames.read(list(range(len(episode))))
            source.annotations(index)
        except (CorruptEpisodeError, VideoError) as error:
            complaints.append(str(error))
            continue
        whole += 1
        assert frames.shape == (len(episode), *episode.frames.size, 3)
        assert np.abs(episode.keypoints_world).max() < 150
        assert np.abs(np.linalg.det(episode.world_from_camera[:, :3, :3]) - 1).max() < 1e-3
        for name, values in episode.columns.items():
            assert name == "hand_poses_world" or np.isfinite(values).all()
    return whole


@pytest.mark.parametrize("kind", LAYOUTS)
def test_damage_ends_in_a_named_error_or_changes_nothing_that_could_not_be_true(kind, tmp_path):
    write, opened = LAYOUTS[kind]
    write(tmp_path / "sound")
    files = sorted(path for path in (tmp_path / "sound").rglob("*") if path.is_file())
    contents = [path.read_bytes() for path in files]
    complaints: list[str] = []
    assert read_all(opened(tmp_path / "sound"), complaints) >= 1
    assert complaints == []
    draw = random.Random(kind)
    for number in range(COPIES):
        folder = tmp_path / f"{number}"
        shutil.copytree(tmp_path / "sound", folder)
        place = draw.randrange(len(files))
        path = folder / files[place].relative_to(tmp_path / "sound")
        path.write_bytes(damaged(contents[place], draw.choice(contents), draw))
        try:
            source = opened(folder)
            read_all(source, complaints)
        except (ValueError, FileNotFoundError) as error:  # a dataset whose index is damaged can't be opened
            complaints.append(str(error))
        shutil.rmtree(folder)
    assert len(complaints) > COPIES / 5
    assert all(str(tmp_path) in complaint for complaint in complaints)  # each names its file
