"""`dexworld video`: every verb at its smallest size, and what it says about mistakes."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from dexworld import cli
from dexworld.data.video import write_video
from dexworld.data.video_frames import VideoFrames
from dexworld.video.clips.triplet_files import write_triplet
from dexworld.video.clips.triplets import finish_triplets, open_triplets
from dexworld.video.model.dwm import DWM


def run(*arguments) -> None:
    cli.main(["video", *(str(argument) for argument in arguments)])


def mistake(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err


def results(folder) -> dict:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def triplets(square_clips, tmp_path_factory):
    root = tmp_path_factory.mktemp("triplets")
    for clip in square_clips[:4]:
        write_triplet(root, clip)
    finish_triplets(root, {"generator": "test"}, {})
    return root


def saved(model: DWM, folder, goal: str):
    model.save_pretrained(folder, {"training_seeds": [0, 99], "training": {"goal": goal}})
    return folder


@pytest.fixture(scope="module")
def small_model(make_dwm, tmp_path_factory):
    return saved(make_dwm(0.02), tmp_path_factory.mktemp("model"), "interaction")


@pytest.fixture(scope="module")
def handless_model(make_dwm, tmp_path_factory):
    return saved(make_dwm(0.02, condition="none"), tmp_path_factory.mktemp("handless"), "inpainting")


def test_synthesized_clips_are_valid_triplets_and_a_second_run_adds_nothing(tmp_path, capsys):
    small = ["--clips", 2, "--frames", 5, "--height", 32, "--width", 48, "--seed", 900_000, "--workers", 1]
    for _ in range(2):
        run("synthesize", "--output", tmp_path / "clips", *small)
    folder = open_triplets(tmp_path / "clips")
    assert folder.seeds == {"00900000": 900_000, "00900001": 900_001}
    run("validate", "--data", tmp_path / "clips", "--output", tmp_path / "report")
    assert results(tmp_path / "report")["ok"] is True
    assert "2 clips, 0 with errors" in capsys.readouterr().out
    run("episodes", "--data", tmp_path / "clips", "--output", tmp_path / "episodes")
    assert results(tmp_path / "episodes")["episodes"] >= 2
    (tmp_path / "clips" / "videos_hands" / "00900001.mp4").write_bytes(b"damaged")
    with pytest.raises(SystemExit) as ended:
        run("validate", "--data", tmp_path / "clips", "--output", tmp_path / "report")
    assert ended.value.code == 1
    assert "videos_hands/00900001.mp4" in capsys.readouterr().out
    assert results(tmp_path / "report")["ok"] is False


def test_a_fixed_camera_folder_repeats_its_first_frame(tmp_path):
    small = ["--clips", 1, "--frames", 5, "--height", 32, "--width", 48, "--seed", 900_000, "--workers", 1]
    run("synthesize", "--output", tmp_path, "--camera", "fixed", *small)
    clip = open_triplets(tmp_path)[0]
    assert np.abs(clip.static[-1].astype(int) - clip.interaction[0]).mean() < 3


def test_training_from_the_command_line_ends_with_a_model(triplets, tmp_path):
    small = ["--preset", "debug", "--steps", 2, "--batch-size", 2, "--codec-clips", 4, "--seed", 3]
    run("train", "--data", triplets, "--output", tmp_path, *small)
    assert results(tmp_path)["steps"] == 2
    assert DWM.from_pretrained(tmp_path / "model").provenance["training"]["seed"] == 3


REFUSED = [
    (("--preset", "debug", "--clip-shape", 9, 32, 48), "clip000 is 5 frames of 32 x 48, this model takes 9 frames"),
    (("--preset", "mini"), "this model takes 17 frames of 96 x 144"),
    (("--preset", "debug", "--weights", 1, 2), "one positive number for each of 1 data folders"),
    (("--preset", "debug", "--device", "cuda:7"), "device is 'cuda:7', which this machine doesn't have"),
    (("--preset", "debug", "--text-encoder", "no/text"), "no/text"),
    (("--preset", "debug", "--outside-weight", 2, "--prediction", "velocity"), "outside_weight needs residual"),
    (("--preset", "debug", "--perceptual", 1, "--prediction", "velocity"), "perceptual needs residual"),
    (("--preset", "debug", "--validation-data", "no/where"), "no/where"),
]


def test_a_dry_run_says_what_the_five_billion_model_costs_and_refuses_what_training_refuses(capsys, triplets, tmp_path):
    output = "--output", tmp_path / "out", "--dry-run", "True"
    run("train", *output, "--preset", "cogvideox-fun-5b")
    shown = capsys.readouterr().out
    assert "17,550 video + 226 text" in shown
    assert "5.571 B" in shown
    assert "training" in shown
    assert "a dry run estimates a `preset`" in mistake(capsys, "train", *output, "--base", "a/b")
    run("train", *output, "--data", triplets, "--preset", "wan2.1-fun-1.3b", "--clip-shape", 5, 32, 48)
    assert "12 video + 512 text" in capsys.readouterr().out
    for options, said in REFUSED:
        for dry in ("True", "False"):
            assert said in mistake(capsys, "train", "--data", triplets, *output[:3], dry, *options), options
    assert not (tmp_path / "out").exists()


def test_generated_videos_are_written_and_shown(triplets, small_model, tmp_path):
    run("generate", "--data", triplets, "--checkpoint", small_model, "--output", tmp_path, "--clips", 2, "--steps", 2)
    written = results(tmp_path)["videos"]
    assert sorted(written) == ["videos/clip000_0.mp4", "videos/clip001_0.mp4"]
    assert len(VideoFrames(tmp_path / "videos" / "clip000_0.mp4")) == 5
    assert "<video" in (tmp_path / "report.html").read_text()


def test_evaluation_of_a_folder_reports_every_method_with_intervals(triplets, small_model, handless_model, tmp_path):
    run(
        "evaluate", "--data", triplets, "--checkpoint", small_model, "--output", tmp_path,
        "--samples", 2, "--steps", 2, "--compare", f"again={small_model}", "--sdedit", handless_model,
        "--sdedit-strengths", 0.5, "--trade-steps", 2, 3, "--trade-details", 0.5,
    )  # fmt: skip
    methods = results(tmp_path)["methods"]
    assert set(methods) == {
        "static_copy", "static_copy_codec", "codec_truth", "dwm", "dwm_codec", "again_codec", "sdedit_0.5",
        "dwm_steps_2_codec", "dwm_steps_3_codec", "dwm_detail_0.5_codec",
    }  # fmt: skip
    assert methods["dwm_steps_2_codec"]["psnr"] == methods["dwm_codec"]["psnr"] != methods["dwm_steps_3_codec"]["psnr"]
    assert methods["dwm_steps_3_codec"]["spread_inside"] > 0
    found = results(tmp_path)
    assert set(found["differences"]) == {"static_copy_codec", "static_copy", "dwm", "dwm_codec"}
    copies = {name: found["like_for_like"][name] for name in ("dwm", "dwm_codec", "again_codec", "sdedit_0.5")}
    assert copies == {name: "static_copy" + ("_codec" if name != "dwm" else "") for name in copies}
    for row in methods.values():
        assert row["psnr_inside_low"] <= row["psnr_inside"] <= row["psnr_inside_high"]
        assert row["lpips"] == "n/a (weights not given)"
    assert methods["dwm_codec"]["psnr"] == methods["again_codec"]["psnr"]
    assert "<video" in (tmp_path / "report.html").read_text()


def test_the_first_frame_of_a_model_that_has_seen_it_is_not_measured(triplets, small_model, tmp_path, capsys):
    small = "--preset", "debug", "--steps", 1, "--batch-size", 2, "--codec-clips", 4
    run("train", "--data", triplets, "--output", tmp_path / "run", "--reference", "True", *small)
    found = {}
    for shown, options in {"own": (), "none": (), "c8967d": ("--after-first", "True", "--paint", "True")}.items():
        model = "--checkpoint", tmp_path / "run" / "model", "--reference", shown, "--clips", 2, "--samples", 1
        run("evaluate", "--data", triplets, "--output", tmp_path / shown, *model, *options)
        found[shown] = results(tmp_path / shown)
    assert [each["after_first"] for each in found.values()] == [True, False, True]
    copies = [each["methods"]["static_copy"]["psnr_inside"] for each in found.values()]
    assert copies[0] == copies[2] != copies[1]
    painted = found["c8967d"]["methods"]
    assert painted["dwm_codec"]["psnr_inside"] != painted["dwm_unpainted_codec"]["psnr_inside"]
    scene, copy = painted["painted_scene_codec"], painted["static_copy_codec"]
    assert scene["psnr_outside"] == copy["psnr_outside"]
    assert scene["psnr_inside"] != copy["psnr_inside"]
    arguments = "evaluate", "--data", triplets, "--output", tmp_path / "out", "--checkpoint", small_model
    assert "takes no reference" in mistake(capsys, *arguments, "--reference", "c8967d")


def test_an_evaluation_ended_by_a_signal_keeps_its_clips_and_goes_on_to_the_same_figures(
    square_clips, small_model, tmp_path
):
    for clip in (*square_clips, *(replace(clip, name=f"more-{clip.name}") for clip in square_clips[:4])):
        write_triplet(tmp_path / "data", replace(clip, seed=None))
    words = ["--data", tmp_path / "data", "--checkpoint", small_model, "--samples", 2, "--steps", 2, "--device", "cpu"]
    words = ["evaluate", *map(str, words), "--output"]
    ledger = tmp_path / "out" / "clips.jsonl"
    command = [sys.executable, "-c", "from dexworld.cli import main; main()", "video", *words, tmp_path / "out"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not (ledger.exists() and len(ledger.read_bytes().splitlines()) > 1) and process.poll() is None:
        time.sleep(0.02)
    process.terminate()
    assert process.wait(10) == 128 + signal.SIGTERM
    assert process.stderr.read().endswith("dexworld: stopped by SIGTERM; finished files are kept\n")
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # nobody is left of it
    kept = ledger.read_bytes()
    assert 2 <= len(kept.splitlines()) < 17
    run(*words, tmp_path / "out")
    assert ledger.read_bytes().startswith(kept)
    run(*words, tmp_path / "whole")
    found, whole = results(tmp_path / "out"), results(tmp_path / "whole")
    assert {**found, "run": 0} == {**whole, "run": 0}
    assert found["n"] == 16


@pytest.mark.parametrize("verb", ["evaluate", "generate"])
def test_what_a_model_can_t_be_shown_is_named_before_the_first_video(
    capsys, square_clips, small_model, make_dwm, tmp_path, verb, monkeypatch
):
    monkeypatch.setattr("dexworld.video.model.generate.Generator.generate", pytest.fail)
    for index, clip in enumerate(square_clips[:2]):
        parts = {name: getattr(clip, name)[:, :, : 48 - 16 * index] for name in ("interaction", "static", "hands")}
        write_triplet(tmp_path / "data", replace(clip, **parts, track=None, seed=None))
    told = saved(make_dwm(condition="adaln-frame"), tmp_path / "told", "interaction")
    arguments = verb, "--data", tmp_path / "data", "--output", tmp_path / "out"
    said = "clip001 is 5 frames of 32 x 32, this model takes 5 frames of 32 x 48"
    assert said in mistake(capsys, *arguments, "--checkpoint", small_model)
    assert "clip000 has no hand_motions file" in mistake(capsys, *arguments, "--checkpoint", told)
    text = "--text-encoder", tmp_path / "nowhere", "--checkpoint", small_model
    (tmp_path / "data" / "videos" / "clip001.mp4").unlink()
    assert "nowhere" in mistake(capsys, *arguments, *text)
    assert "clips is 0; it must be positive" in mistake(capsys, *arguments, "--clips", 0)
    assert not (tmp_path / "out").exists()


def test_candidates_of_a_folder_are_ranked(square_clips, small_model, tmp_path):
    scene = tmp_path / "scene"
    (scene / "hands").mkdir(parents=True)
    write_video(scene / "static.mp4", square_clips[0].static, 8.0, crf=12)
    for index in range(3):
        write_video(scene / "hands" / f"motion{index}.mp4", square_clips[index].hands, 8.0, crf=12)
    from PIL import Image

    Image.fromarray(square_clips[0].interaction[-1]).save(scene / "goal.png")
    run("select", "--folder", scene, "--checkpoint", small_model, "--output", tmp_path / "out", "--steps", 2)
    found = results(tmp_path / "out")
    assert sorted(found["ranking"]) == ["motion0", "motion1", "motion2"]
    assert found["ranking"][0] == max(found["scores"], key=found["scores"].get)
    assert (tmp_path / "out" / "report.html").exists()


def test_training_scenes_are_refused_before_any_clip_is_simulated(
    square_clips, small_model, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("dexworld.video.clips.synthetic_clips.record_triplets", pytest.fail)
    for verb in ("evaluate", "demo"):
        said = mistake(capsys, verb, "--checkpoint", small_model, "--output", tmp_path, "--seed", 50, "--clips", 3)
        assert "3 of 3 seeds (50, 51, 52)" in said
        assert "among the checkpoint's training seeds" in said
    for clip in square_clips[:2]:
        write_triplet(tmp_path / "mixed", clip)
    finish_triplets(tmp_path / "mixed", {}, {"clip001": 7})
    data = "--data", tmp_path / "mixed", "--checkpoint", small_model
    assert "1 of 1 seeds (7) are" in mistake(capsys, "evaluate", *data, "--output", tmp_path / "out")


def test_a_demo_shows_clips_and_says_what_its_gain_is_against(small_model, tmp_path):
    small = ["--seed", 900_000, "--split", "validation", "--clips", 1, "--workers", 1, "--steps", 2]
    run("demo", "--checkpoint", small_model, "--output", tmp_path, *small)
    assert "against the static video itself" in (tmp_path / "report.html").read_text()
    assert set(results(tmp_path)["clips"]["00900000"]) == {"static_copy", "static_copy_codec", "codec_truth", "dwm"}


def test_evaluation_of_clips_in_which_nothing_happens_does_not_crash(square_clips, small_model, tmp_path):
    still = replace(
        square_clips[0], interaction=square_clips[0].static, hands=np.zeros_like(square_clips[0].hands), seed=None
    )
    write_triplet(tmp_path / "still", still)
    arguments = ("--data", tmp_path / "still", "--checkpoint", small_model, "--output", tmp_path / "out")
    run("evaluate", *arguments, "--samples", 1, "--steps", 2)
    assert results(tmp_path / "out")["methods"]["dwm"]["psnr_inside_n"] == 0


def test_impossible_options_and_empty_folders_are_named_in_one_line(capsys, tmp_path):
    arguments = ("train", "--data", tmp_path, "--output", tmp_path / "out")
    said = mistake(capsys, *arguments, "--hand-dropout", "1.5")
    assert "hand_dropout is 1.5" in said
    assert "Traceback" not in said
    assert "holds no triplets" in mistake(capsys, *arguments)


def test_sdedit_needs_a_model_without_hands_and_comparisons_a_name(small_model, triplets, tmp_path, capsys):
    arguments = ("evaluate", "--data", triplets, "--checkpoint", small_model, "--output", tmp_path)
    assert "needs a model without hands" in mistake(capsys, *arguments, "--sdedit", small_model)
    assert "name=folder" in mistake(capsys, *arguments, "--compare", "folder")


def test_a_full_size_clip_is_brought_to_the_model_s_shape(square_clips, tmp_path):
    clip, parts = square_clips[0], ("interaction", "static", "hands")
    large = {name: getattr(clip, name).repeat(2, axis=1).repeat(2, axis=2) for name in parts}
    track = replace(clip.track, intrinsics=np.diag([2, 2, 1]).astype(np.float32) @ clip.track.intrinsics)
    write_triplet(tmp_path / "large", replace(clip, **large, track=track))
    run(
        "prepare", "triplets", "--data", tmp_path / "large", "--output", tmp_path / "small",
        "--frames", 5, "--height", 32, "--width", 48,
    )  # fmt: skip
    small = open_triplets(tmp_path / "small")[0]
    assert np.abs(small.interaction.astype(int) - clip.interaction).mean() < 8  # compressed twice; 40 for another clip
    np.testing.assert_allclose(small.track.intrinsics, clip.track.intrinsics, rtol=1e-5)
    np.testing.assert_array_equal(small.track.keypoints_world, clip.track.keypoints_world)
