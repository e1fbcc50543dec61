"""Fast rollouts are the plain definition, to rounding."""

import pytest
import torch
from model_fixtures import PAPER_LIKE, TINY_LIKE, random_latents, random_motion, random_predictor, refused, shared_start
from torch import Tensor

from dexworld.actions import HandMotion
from dexworld.models.predictor import Predictor, plain_rollout
from dexworld.models.rollout import Context, rollout, start

BOTH = pytest.mark.parametrize("config", [PAPER_LIKE, TINY_LIKE], ids=["paper-like", "tiny-like"])


def observed_and_candidates(history: int, steps: int) -> tuple[Tensor, HandMotion, HandMotion]:
    """Latents of `history` frames, the motion between them, and three candidates that continue it."""
    observed, candidates = random_motion(1, history - 1, seed=history), random_motion(3, steps, seed=50 + history)
    return random_latents(1, history, seed=history), observed, shared_start(observed.index(0), candidates)


def plain(predictor: Predictor, latents: Tensor, observed: HandMotion, candidates: HandMotion) -> Tensor:
    """The plain rollout of every candidate with its own copy of the history."""
    count = candidates.deltas.shape[0]
    whole = observed.index([0] * count).then(candidates)
    return plain_rollout(predictor, latents.expand(count, -1, -1, -1), whole, candidates.steps)


@BOTH
@pytest.mark.parametrize("history", range(1, 9))
def test_fast_rollout_equals_the_plain_one_for_every_horizon_to_ten(config, history):
    predictor = random_predictor(config)
    latents, observed, candidates = observed_and_candidates(history, steps=10)
    with torch.no_grad():
        expected = plain(predictor, latents, observed, candidates)
        context = start(predictor, latents, observed, constant=True)
        actual = rollout(predictor, context, candidates)
    assert expected.std() > 0.1
    assert (expected[0] - expected[1]).abs().mean() > 0.05  # candidates really differ
    assert (actual - expected).abs().max() < 1e-12  # step t is the end of a rollout of horizon t
    for steps in (1, 3):
        short = rollout(predictor, context, candidates.slice(0, steps))
        assert (short - expected[:, :steps]).abs().max() < 1e-12


@BOTH
def test_rollouts_with_gradients_and_in_small_batches_are_the_same(config):
    predictor = random_predictor(config)
    latents, observed, candidates = observed_and_candidates(2, steps=6)
    context = start(predictor, latents, observed, constant=True)
    with torch.no_grad():
        expected = rollout(predictor, context, candidates)
        batched = rollout(predictor, context, candidates, max_batch=2)
    with_gradients = rollout(predictor, context, candidates)
    assert (batched - expected).abs().max() < 1e-12
    assert with_gradients.requires_grad
    assert (with_gradients - expected).abs().max() < 1e-12


def test_gradients_of_a_rollout_are_those_of_the_plain_one():
    predictor = random_predictor(TINY_LIKE)
    latents, observed, candidates = observed_and_candidates(2, steps=5)
    gradients = []
    for fast in (True, False):
        deltas, pixels = candidates.deltas.clone().requires_grad_(), candidates.pixels.clone().requires_grad_()
        motion = HandMotion(deltas, pixels, candidates.visible)
        if fast:
            predicted = rollout(predictor, start(predictor, latents, observed, constant=True), motion)
        else:
            predicted = plain(predictor, latents, observed, motion)
        predicted.square().sum().backward()
        # The first frame's pixels are the observed ones: only the fast path's copy of them is a candidate's own.
        gradients.append((deltas.grad, pixels.grad[:, 1:]))
    for fast, slow in zip(*gradients, strict=True):
        assert slow.abs().max() > 1e-6
        assert torch.allclose(fast, slow, rtol=1e-9, atol=1e-10)


def test_unrolled_training_gradients_reach_the_weights_as_in_the_plain_rollout():
    gradients = []
    for fast in (True, False):
        predictor = random_predictor(TINY_LIKE)
        latents, motion = random_latents(2, 2, seed=3), random_motion(2, 6, seed=4)
        if fast:
            context = start(predictor, latents, motion.slice(0, 1), constant=False)
            predicted = rollout(predictor, context, motion.slice(1, 6))
        else:
            predicted = plain_rollout(predictor, latents, motion, 5)
        predicted.square().mean().backward()
        gradients.append({name: value.grad for name, value in predictor.named_parameters()})
    for name, fast in gradients[0].items():
        slow = gradients[1][name]
        if fast is None:
            assert slow is None or slow.abs().max() == 0, name
        else:
            assert torch.allclose(fast, slow, rtol=1e-8, atol=1e-11), name


def test_the_context_is_computed_once_and_copies_of_frame_0_keep_their_keys():
    predictor = random_predictor(PAPER_LIKE)
    latents, observed, candidates = observed_and_candidates(1, steps=4)
    context: Context = start(predictor, latents, observed, constant=True)
    with torch.no_grad():
        rollout(predictor, context, candidates)
        first = context.steps[0][0][0]
        rollout(predictor, context, candidates)
    assert context.steps[0][0][0] is first
    for later in context.steps[1:]:
        assert later[0][0].untyped_storage().data_ptr() == first.untyped_storage().data_ptr()


def test_several_contexts_roll_out_as_each_alone():
    predictor = random_predictor(TINY_LIKE)
    latents, observed = random_latents(2, 3, seed=1), random_motion(2, 2, seed=2)
    motion = random_motion(4, 5, seed=3)  # two candidates for each context
    with torch.no_grad():
        together = rollout(predictor, start(predictor, latents, observed, constant=True), motion)
        for index in range(2):
            one, two = slice(index, index + 1), slice(2 * index, 2 * index + 2)
            context = start(predictor, latents[one], observed.index(one), constant=True)
            alone = rollout(predictor, context, motion.index(two))
            assert (together[two] - alone).abs().max() < 1e-12


def test_a_context_refuses_motion_that_does_not_fit_its_frames():
    predictor, still = random_predictor(TINY_LIKE), random_motion(1, 1)
    refused("3 observed frames need 2 transitions", start, predictor, random_latents(1, 3), still, constant=True)
    context = start(predictor, random_latents(2, 1), random_motion(2, 0), constant=True)
    refused("multiple of the 2 contexts", rollout, predictor, context, random_motion(3, 2))
