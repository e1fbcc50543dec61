"""The examples of data: a reader from outside of the package, prepared, with a column of its own."""

import importlib.util
from pathlib import Path

import numpy as np
import torch

from dexworld.data.readers import LAYOUTS
from dexworld.data.video import write_video

EXAMPLE = Path(__file__).parents[1] / "examples" / "my_reader.py"


def test_a_reader_of_ones_own_brings_its_column_into_windows(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(LAYOUTS, "mine", None)  # taken back after the test
    specification = importlib.util.spec_from_file_location("my_reader", EXAMPLE)
    example = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(example)
    folder = tmp_path / "recordings"
    folder.mkdir()
    for number in range(2):
        write_video(folder / f"{number}.mp4", np.full((9, 32, 48, 3), 60 * number, np.uint8), fps=5.0)
        np.savez(
            folder / f"{number}.npz",
            keypoints_world=np.ones((9, 42, 3)),
            keypoints_valid=np.ones((9, 42), bool),
            world_from_camera=np.tile(np.eye(4), (9, 1, 1)),
            intrinsics=np.eye(3),
            gaze_world=np.arange(27.0).reshape(9, 3) + 100 * number,
        )
    (folder / "2.npz").write_bytes(b"broken")
    window = example.prepared_window(folder, tmp_path / "store", "gaze_world")
    assert "2.npz" in capsys.readouterr().out
    frames = window.rows - 9 * window.clips[:, None]
    torch.testing.assert_close(window.track["gaze_world"][..., 0], 3.0 * frames + 100 * window.clips[:, None])
    torch.testing.assert_close(window.frames.float().mean(dim=(2, 3, 4)), 60.0 * window.clips[:, None].expand(2, 4))
