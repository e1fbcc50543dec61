"""DexWM as the judge of candidates: it imagines the whole clip and is compared where no hand is."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dexworld.models.dexwm import DexWM
from dexworld.models.encoders import PCAEncoder
from dexworld.models.world_model import preset
from dexworld.track import Track
from dexworld.video.judge.dexwm_evaluator import DexWMEvaluator, without_hands
from dexworld.video.judge.goal_image import GoalView

HEIGHT, WIDTH, FRAMES = 96, 144, 17


def picture(seed: int) -> np.ndarray:
    """A smooth random picture."""
    coarse = torch.from_numpy(np.random.default_rng(seed).uniform(0, 255, size=(1, 3, 8, 12)))
    fine = torch.nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bilinear")
    return fine[0].permute(1, 2, 0).to(torch.uint8).numpy()


@pytest.fixture(scope="module")
def model() -> DexWM:
    """A small model with random weights and an encoder fitted on random pictures."""
    torch.manual_seed(0)
    config = preset("clip")
    small = {"predictor": replace(config.predictor, dim=32, depth=1), "encoder": replace(config.encoder, dim=24)}
    config = replace(config, **small)
    built = DexWM(config)
    assert isinstance(built.encoder, PCAEncoder)
    built.encoder.fit([torch.from_numpy(np.stack([picture(seed) for seed in range(8)]))])
    for parameter in built.predictor.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))  # its last layer starts at zero: nothing would move
    return built.eval()


def track(offset: float, frames: int = FRAMES) -> Track:
    points = np.zeros((frames, 42, 3), dtype=np.float32)
    points[..., 0] = np.linspace(0, offset, frames)[:, None] + np.linspace(0, 0.05, 42)
    points[..., 2] = 0.6
    intrinsics = np.array([[120, 0, WIDTH / 2], [0, 120, HEIGHT / 2], [0, 0, 1]], dtype=np.float32)
    columns = {"keypoints_world": points, "keypoints_valid": np.ones((frames, 42), dtype=bool)}
    return Track(np.tile(np.eye(4, dtype=np.float32), (frames, 1, 1)), intrinsics, columns)


def view(*hidden_rows: int) -> GoalView:
    """A goal, the untouched scene, and one hand a candidate that covers some rows of tokens."""
    hidden = np.zeros((len(hidden_rows), HEIGHT, WIDTH), dtype=bool)
    for index, row in enumerate(hidden_rows):
        hidden[index, 12 * row : 12 * row + 12] = True
    return GoalView(picture(1), picture(2), hidden)


def test_a_clip_of_seventeen_frames_takes_four_steps(model):
    motion = DexWMEvaluator(model).motion([track(0.1), track(-0.1)])
    assert motion.deltas.shape[:2] == (2, 4)
    assert motion.deltas[0, :, 0, 0].tolist() == pytest.approx([0.025] * 4, abs=1e-6)
    assert motion.deltas[1, :, 0, 0].tolist() == pytest.approx([-0.025] * 4, abs=1e-6)
    motion = DexWMEvaluator(model, stride=6).motion([track(0.16)])  # a stride that doesn't divide the clip
    assert motion.deltas[0, :, 0, 0].tolist() == pytest.approx([0.06, 0.06, 0.04], abs=1e-6)


def test_imagining_is_the_models_own_rollout_from_the_untouched_scene(model):
    evaluator = DexWMEvaluator(model)
    tracks = [track(0.1), track(-0.2), track(0.0)]
    final, untouched = evaluator.imagine(picture(2), tracks)
    with torch.no_grad():
        start = model.encode(torch.from_numpy(picture(2))[None, None]).expand(3, -1, -1, -1)
        expected = model.unroll(start, evaluator.motion(tracks))[:, -1]
    assert torch.allclose(final, expected, atol=1e-4)
    assert (final[0] - final[1]).abs().max() > 1e-3  # actions matter, even to random weights
    still, _ = evaluator.imagine(picture(2), [without_hands(track(0.1))] * 2)
    assert torch.allclose(still[0], untouched, atol=1e-4)


def test_the_candidate_that_ends_in_the_goal_wins(model):
    scene = view(2, 4, 6)
    goal, static = model.encode(torch.from_numpy(np.stack([scene.goal, scene.static])))
    scores = DexWMEvaluator(model).scores(torch.stack([static, goal, static - goal]), static, scene)
    assert scores.argmax() == 1
    assert scores[0] < scores[1] - 1e-6


def test_under_its_own_hand_no_latent_counts(model):
    scene, untouched = view(2, 4), torch.zeros(96, 24)
    final = torch.randn(1, 96, 24, generator=torch.Generator().manual_seed(0)).repeat(2, 1, 1)
    changed = final.clone()
    changed.view(2, 8, 12, 24)[0, 2] += 5.0
    evaluator = DexWMEvaluator(model)
    scores = evaluator.scores(final, untouched, scene)
    assert np.array_equal(evaluator.scores(changed, untouched, scene), scores)
    assert scores[0] != scores[1]  # each candidate has its own hidden part


def test_what_does_not_fit_the_model_is_refused(model):
    evaluator = DexWMEvaluator(model)
    with pytest.raises(ValueError, match="trained on"):
        evaluator.imagine(np.zeros((64, 96, 3), dtype=np.uint8), [track(0.1)])
    with pytest.raises(ValueError, match="of one length"):
        evaluator.motion([track(0.1), track(0.1, frames=13)])
