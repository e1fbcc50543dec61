"""Latents on disk: when they are written again, and which clips are refused or remarked on."""

import logging
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dexworld.video.clips.triplet_files import write_triplet
from dexworld.video.clips.triplets import finish_triplets, open_triplets
from dexworld.video.model.clip_latents import encode_folder, latent_file


@pytest.fixture
def folder(square_clips, tmp_path):
    for clip in square_clips[:2]:
        write_triplet(tmp_path, clip)
    return finish_triplets(tmp_path, {"generator": "test"}, {})


def encoded_now(folder, model) -> list[int]:
    """Indices of the clips that a further encoding works on."""
    (latents,) = (folder.root / "latents").iterdir()
    paths = [latent_file(latents, name) for name in folder.names]
    before = [path.stat().st_ino for path in paths]
    encode_folder(folder, model)
    return [index for index, path in enumerate(paths) if path.stat().st_ino != before[index]]


def moved_in_time(path, seconds):
    stamp = path.stat().st_mtime_ns + int(seconds * 1e9)
    os.utime(path, ns=(stamp, stamp))


def test_latents_are_written_once_and_again_when_a_video_has_other_contents(make_dwm, folder, square_clips):
    model = make_dwm()
    encoded = encode_folder(folder, model)
    assert encoded_now(folder, model) == []
    moved_in_time(folder.files["clip000"].static, 60)  # newer, and still the same
    assert encoded_now(folder, model) == []
    other = replace(square_clips[3], name="clip001")
    write_triplet(folder.root, other)
    for path in (*folder.files["clip001"].required, folder.files["clip001"].motion):
        moved_in_time(path, -3600)  # older than its latents, as after a copy that keeps times
    assert encoded_now(folder, model) == [1]
    torch.testing.assert_close(encoded[1].static, model.encode(folder[1].static[None])[0])


def test_latents_of_clips_that_can_t_be_written_lie_in_a_cache_folder(make_dwm, folder, tmp_path, monkeypatch):
    model = make_dwm()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    (tmp_path / "xdg").mkdir()
    beside = encode_folder(folder, model).folder
    monkeypatch.setattr(os, "access", lambda path, mode: "xdg" in str(path))
    assert encode_folder(folder, model).folder == beside  # whole already: read where it lies
    latent_file(beside, "clip001").unlink()
    for cache, root in ((None, tmp_path / "xdg" / "dexworld" / "latents"), (tmp_path / "mine", tmp_path / "mine")):
        assert encode_folder(folder, model, cache).folder.is_relative_to(root)
    assert not latent_file(beside, "clip001").exists()


def test_latents_that_lack_a_video_or_are_damaged_are_encoded_again(make_dwm, folder):
    model = make_dwm()
    path = latent_file(encode_folder(folder, model).folder, "clip001")
    save_file({name: value for name, value in load_file(path).items() if name != "silhouette"}, path)
    assert encoded_now(folder, model) == [1]
    path.write_bytes(path.read_bytes()[:50])
    assert encoded_now(folder, model) == [1]


def test_a_clip_whose_hand_video_shows_no_hand_is_refused_unless_the_folder_is_of_navigation(
    make_dwm, square_clips, tmp_path
):
    empty = replace(square_clips[0], hands=np.zeros_like(square_clips[0].hands), interaction=square_clips[0].static)
    model = make_dwm()
    for settings in ({}, {"navigation": True}):
        root = tmp_path / str(len(settings))
        write_triplet(root, empty)
        folder = finish_triplets(root, settings, {})
        if settings:
            assert len(encode_folder(folder, model)) == 1
        else:
            with pytest.raises(ValueError, match="hand video of clip000 shows no hand in any frame"):
                encode_folder(folder, model)


def test_clips_of_another_rate_are_encoded_with_a_warning(make_dwm, square_clips, tmp_path, caplog):
    model = make_dwm()
    for clip in square_clips[:2]:
        write_triplet(tmp_path, replace(clip, fps=8 / 3))
    for _ in range(2):  # also when they are encoded already
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            encode_folder(open_triplets(tmp_path), model)
        assert "not at 8 fps" in caplog.text
        assert "clip000: 2.66667 fps" in caplog.text
