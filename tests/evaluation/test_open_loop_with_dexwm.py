import numpy as np
import pytest
import torch

from dexworld.evaluation.open_loop import OpenLoopConfig, evaluate_open_loop
from dexworld.report.atomic import AtomicConfig, atomic_motions, best_frame
from dexworld.report.imagine import imagine

SHORT = OpenLoopConfig(steps=6, resamples=20)


def test_a_new_residual_model_predicts_that_nothing_changes(model, episodes):
    figures = evaluate_open_loop(model, episodes, SHORT)
    assert figures["mse_ratio_1s"] == pytest.approx(1.0, abs=1e-5)
    assert figures["mae_avg"] == pytest.approx(figures["copy_last_mae_avg"], rel=1e-5)
    assert figures["mse_ratio_1.2s"] == pytest.approx(figures["shuffled_mse_ratio_1.2s"], abs=1e-5)


def test_a_model_with_weights_answers_to_its_actions(model, episodes):
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.predictor.parameters():
            value.add_(0.05 * torch.randn(value.shape, generator=generator))
    figures = evaluate_open_loop(model, episodes, SHORT)
    model.load_state_dict(weights)
    assert figures["mse_ratio_1s"] != pytest.approx(figures["shuffled_mse_ratio_1s"], abs=1e-6)


def test_imagination_starts_from_the_frame_as_the_model_holds_it(model, episodes):
    episode = episodes[0]
    frame = best_frame(episode)
    motions = atomic_motions(episode, frame, AtomicConfig(steps=2), model.config.action_convention)
    imagined = imagine(model, episode, motions, frame)
    assert imagined.decoded
    assert imagined.images.shape == (8, 3, 224, 392, 3)
    held = model.decode(model.encode(torch.from_numpy(episode.frames.array[frame])[None]))[0].numpy()
    np.testing.assert_array_equal(imagined.images[0, 0], held)
