import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

from dexworld.models.picture_metrics import psnr
from dexworld.video.clips.triplet_files import write_triplet
from dexworld.video.clips.triplets import finish_triplets
from dexworld.video.judge.references import through_codec
from dexworld.video.model.pca_codec import PCACodec

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_the_ceiling_of_a_codec_is_what_held_out_clips_keep_through_it(square_clips, tmp_path, monkeypatch):
    folders = {}
    for name, clips in (("data", square_clips[:4]), ("held-out", square_clips[4:6])):
        for clip in clips:
            write_triplet(tmp_path / name, clip)
        folders[name] = finish_triplets(
            tmp_path / name, {"generator": "test"}, {clip.name: clip.seed for clip in clips}
        )
    monkeypatch.syspath_prepend(BENCHMARKS)
    words = [
        "--data",
        tmp_path / "data",
        "--held-out",
        tmp_path / "held-out",
        "--output",
        tmp_path,
        "--channels",
        4,
        16,
    ]
    monkeypatch.setattr(sys, "argv", ["codec_ceiling.py", *map(str, words)])
    importlib.import_module("codec_ceiling").main()
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert (results["clips_fitted"], results["clips_shown"]) == (4, 2)
    few, many = results["channels"]["4"], results["channels"]["16"]
    assert few["psnr_inside"] < many["psnr_inside"]
    codec = PCACodec(16).fit(torch.from_numpy(folders["data"][index].interaction) for index in range(4))
    clips = [folders["held-out"][index] for index in range(2)]
    expected = sum(psnr(through_codec(codec, clip.interaction), clip.interaction) for clip in clips) / 2
    assert many["psnr"] == pytest.approx(expected, abs=0.006)
    assert many["psnr_low"] <= many["psnr"] <= many["psnr_high"]
