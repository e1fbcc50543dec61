"""Simulated triplets: what a killed recording leaves behind."""

import pytest

from dexworld.video.clips.clip import ClipShape
from dexworld.video.clips.synthetic_clips import SyntheticConfig, record_triplets
from dexworld.video.clips.triplets import open_triplets

SMALL = {"shape": ClipShape(5, 32, 48), "workers": 1}


def killed_after_the_first(names):
    for name in names:
        yield name
        raise KeyboardInterrupt


def test_a_killed_recording_keeps_seeds_and_settings_and_goes_on(tmp_path, caplog):
    config = SyntheticConfig(tmp_path, 2, 900_000, **SMALL)
    with pytest.raises(KeyboardInterrupt):
        record_triplets(config, killed_after_the_first)
    left = open_triplets(tmp_path)
    assert left.seeds == {"00900000": 900_000}
    with pytest.raises(ValueError, match="other settings"):
        record_triplets(SyntheticConfig(tmp_path, 2, 900_000, camera="fixed", **SMALL))
    folder = record_triplets(config)
    assert folder.seeds == {"00900000": 900_000, "00900001": 900_001}
    assert all(folder[index].track.keypoints_valid.any() for index in range(2))
    assert caplog.text == ""  # simulated hands are plausible
