"""Open-loop figures of a real DexWM, with its own keypoint head and with an evaluator in its place."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from dexworld import cli
from dexworld.actions import ActionConvention, hand_motion
from dexworld.data.recordings import EpisodeWriter
from dexworld.evaluation.atomic import AtomicConfig, atomic_motions, best_frame
from dexworld.evaluation.open_loop import OpenLoopConfig, evaluate_open_loop
from dexworld.models.keypoint_head import EVALUATOR_PRESETS, EvaluatorConfig, KeypointEvaluator
from dexworld.models.latent_readers import chosen_evaluator, encoder_fingerprint
from dexworld.models.latent_space import LatentSpace
from dexworld.models.world_model import build_world_model
from dexworld.report.imagine import imagine
from dexworld.track import ArrayFrames
from kind_fixtures import KINDS, config_of

SHORT, SIX_STEPS = (OpenLoopConfig(steps=steps, resamples=20) for steps in (3, 6))


def figures(model, episodes, **options):
    return evaluate_open_loop(model, episodes, SHORT, **options)


def test_a_reader_that_knows_the_truth_finds_every_visible_keypoint_whatever_the_models_head_says(model, episodes):
    answers = {}  # by the number of the call: predictions, shuffled, copy-last, truth of each episode

    def oracle(latents):
        index = len(answers) // 4
        answers[len(answers)] = latents
        episode = episodes[index]
        labels = (episode.keypoints_world, episode.keypoints_valid, episode.world_from_camera, episode.intrinsics)
        pixels = hand_motion(*(torch.as_tensor(each) for each in labels), ActionConvention()).pixels[1:4, :, :2]
        return pixels, torch.ones(pixels.shape[:-1])

    read = figures(model, episodes, keypoints=oracle)
    assert len(answers) == 8
    assert read["pck20_visible_avg"] == read["pck20_true_latents"] == 100.0
    own = figures(model, episodes)
    assert own["pck20_visible_avg"] < 100.0
    assert own["mse_ratio_0.6s"] == read["mse_ratio_0.6s"]


def test_the_models_own_head_does_not_matter_to_an_evaluators_figures(model, episodes):
    torch.manual_seed(1)
    space = LatentSpace.of(model.config, encoder_fingerprint(model.encoder))
    evaluator = KeypointEvaluator(EvaluatorConfig(space, EVALUATOR_PRESETS["debug"])).eval()
    before = figures(model, episodes, keypoints=evaluator.keypoints)
    kept = {name: value.clone() for name, value in model.keypoint_head.state_dict().items()}
    with torch.no_grad():
        for value in model.keypoint_head.parameters():
            value.normal_()
    after = figures(model, episodes, keypoints=evaluator.keypoints)
    model.keypoint_head.load_state_dict(kept)
    assert after == before


def test_an_evaluator_of_another_encoder_or_trained_on_the_scenes_is_refused(model, tmp_path, capsys):
    model.save_pretrained(tmp_path / "model", {"training_seeds": [[0, 9]]})
    space = LatentSpace.of(model.config, encoder_fingerprint(model.encoder))
    for name, encoder, seeds, message in (
        ("foreign", "f" * 64, [[0, 9]], "reads the latents of encoder ffffffffffff"),
        ("biased", space.encoder, [[900_000, 900_009]], "training seeds"),
    ):
        foreign = LatentSpace(space.dim, space.grid, space.image_size, encoder)
        evaluator = KeypointEvaluator(EvaluatorConfig(foreign, EVALUATOR_PRESETS["debug"]))
        evaluator.save_pretrained(tmp_path / name, {"training_seeds": seeds})
        options = f"--checkpoint {tmp_path / 'model'} --evaluator {tmp_path / name} --output {tmp_path / 'out'}"
        with pytest.raises(SystemExit):
            cli.main(f"evaluate open-loop --seed 900000 --split validation {options}".split())
        assert message in capsys.readouterr().err


def shipped(folder, space, monkeypatch):
    """Let an evaluator of this latent space be the shipped one."""
    KeypointEvaluator(EvaluatorConfig(space, EVALUATOR_PRESETS["debug"])).save_pretrained(
        folder / "assets" / "evaluator", {"training_seeds": [[0, 9]]}
    )
    monkeypatch.setattr("dexworld.models.reference.resources.files", lambda package: folder)


def test_the_shipped_evaluator_reads_every_model_that_has_its_encoder(model, tmp_path, monkeypatch):
    space = LatentSpace.of(model.config, encoder_fingerprint(model.encoder))
    shipped(tmp_path, space, monkeypatch)
    evaluator, reader = chosen_evaluator("auto", model.encoder)
    assert evaluator.config.latents == space
    assert reader == "the evaluator that dexworld ships"
    assert chosen_evaluator("own", model.encoder) == (None, "the model's own head")
    folder = tmp_path / "assets" / "evaluator"
    assert chosen_evaluator(str(folder), model.encoder)[1] == "the evaluator assets/evaluator"


def test_another_encoder_or_an_installation_without_evaluator_leaves_the_models_own_head(model, tmp_path, monkeypatch):
    space = LatentSpace.of(model.config, "f" * 64)
    shipped(tmp_path / "foreign", space, monkeypatch)
    none = "the model's own head (dexworld ships no evaluator for this encoder)"
    assert chosen_evaluator("auto", model.encoder) == (None, none)
    with pytest.raises(ValueError, match="reads the latents of encoder ffff"):
        chosen_evaluator("evaluator", model.encoder)  # asked for by name, it is not replaced in silence
    monkeypatch.setattr("dexworld.models.reference.resources.files", lambda package: tmp_path / "empty")
    assert chosen_evaluator("auto", model.encoder)[1] == "the model's own head (this installation holds no evaluator)"


def test_the_results_say_who_read_the_keypoints(model, episodes, tmp_path, monkeypatch):
    writer = EpisodeWriter(tmp_path / "data", {})
    for number, episode in enumerate(episodes):
        twenty_one = np.arange(21) % 7
        frames = ArrayFrames(episode.frames.read(twenty_one.tolist()))
        writer.write(str(number), replace(episode.at(twenty_one), frames=frames, seed=900_000 + number))
    writer.finish()
    model.save_pretrained(tmp_path / "model", {"training_seeds": [[0, 9]]})
    shipped(tmp_path, LatentSpace.of(model.config, encoder_fingerprint(model.encoder)), monkeypatch)
    options = f"--checkpoint {tmp_path / 'model'} --data {tmp_path / 'data'} --seed 900000 --split validation"
    read = {}
    for name in ("auto", "own"):
        output = tmp_path / name
        cli.main(["evaluate", "open-loop", "--output", str(output), "--evaluator", name, *options.split()])
        read[name] = json.loads((output / "results.json").read_text(encoding="utf-8"))
    assert read["auto"]["keypoints_read_by"] == "the evaluator that dexworld ships"
    assert read["own"]["keypoints_read_by"] == "the model's own head"
    assert read["auto"]["mse_ratio_4s"] == read["own"]["mse_ratio_4s"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_residual_model_predicts_that_nothing_changes(model, episodes, kind):
    encoder, model = model.encoder, build_world_model(config_of(kind, model.config))
    model.encoder = encoder
    figures = evaluate_open_loop(model, episodes, SIX_STEPS)
    assert figures["mse_ratio_1s"] == pytest.approx(1.0, abs=1e-5)
    assert figures["mae_avg"] == pytest.approx(figures["copy_last_mae_avg"], rel=1e-5)
    assert figures["mse_ratio_1.2s"] == pytest.approx(figures["shuffled_mse_ratio_1.2s"], abs=1e-5)
    motions = atomic_motions(episodes[0], best_frame(episodes[0]), AtomicConfig(steps=2), model.condition)
    assert imagine(model, episodes[0], motions, best_frame(episodes[0])).change.max() < 1e-5


def test_a_model_with_weights_answers_to_its_actions(model, episodes):
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.predictor.parameters():
            value.add_(0.05 * torch.randn(value.shape, generator=generator))
    figures = evaluate_open_loop(model, episodes, SIX_STEPS)
    model.load_state_dict(weights)
    assert figures["mse_ratio_1s"] != pytest.approx(figures["shuffled_mse_ratio_1s"], abs=1e-6)


def test_imagination_starts_from_the_frame_as_the_model_holds_it(model, episodes):
    episode = episodes[0]
    frame = best_frame(episode)
    motions = atomic_motions(episode, frame, AtomicConfig(steps=2), model.condition)
    imagined = imagine(model, episode, motions, frame)
    assert imagined.decoded
    assert imagined.images.shape == (8, 3, 224, 392, 3)
    held = model.decode(model.encode(torch.from_numpy(episode.frames.array[frame])[None]))[0].numpy()
    np.testing.assert_array_equal(imagined.images[0, 0], held)
