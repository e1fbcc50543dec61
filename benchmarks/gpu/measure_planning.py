"""Seconds of a plan with the paper's largest model, beside the least that they could be, and beside the plain forward.

The limit is the operations of an exact roll-out at the rate of a product of matrices that was measured here.
"""

import numpy as np
import torch

from dexworld.models.config import DexWMConfig
from dexworld.models.dexwm import DexWM
from dexworld.models.rollout import rollout, start
from dexworld.models.world_model import BFloat16Rollouts
from dexworld.planning.mpc import MPCPolicy
from dexworld.planning.presets import PlannerOptions, task_preset
from dexworld.robots.franka_allegro import FrankaAllegro
from dexworld.robots.observation import Observation
from dexworld.training.cost import head_flops
from jobs import Figures, Slice
from measure_training import paper_model
from planning import make_motion, released_rollout
from training_setup import lively, random_encoder

HORIZON = 3
PLAIN_CANDIDATES = 32  # of the plain forward, whose nine frames of each need memory
MODEL_SIZE = "xl"


def rollout_flops(config: DexWMConfig, steps: int) -> float:
    """Operations of an exact roll-out of so many candidate-steps; what all candidates share is not counted.

    Of each predicted frame: its tokens through the blocks, their keys and values for later frames, attention within the
    frame and to `num_context` frames before it. A multiply and an add are two.
    """
    d, tokens, own = config.predictor.dim, config.grid[0] * config.grid[1], config.predictor
    block = (6 + 2 * own.mlp_ratio) * d * d + 2 * d * d + 2 * tokens * d * (1 + own.num_context)
    ends = d * d + (0 if config.encoder.dim == d else 2 * config.encoder.dim * d)
    return steps * (2.0 * tokens * (own.depth * block + ends) + head_flops(config))


def policy_of(now: Slice, model: DexWM, planner: str, **changes: int) -> MPCPolicy:
    """A planner preset with its own budget, its roll-outs in bfloat16; rehearsed with four candidates."""
    small = now.size({}, {"samples": 4, "elites": 4, "model_budget": 4, "iterations": 2})
    chosen = PlannerOptions(**{"max_batch": now.size(128, 4), "horizon": HORIZON} | small | changes)
    preset = chosen.applied(task_preset(planner, "reach"))
    return preset.policy(BFloat16Rollouts(model), FrankaAllegro(), device=now.machine.device)


def observation_of(size: tuple[int, int]) -> tuple[Observation, np.ndarray]:
    """Random pictures of (height, width), now and as the goal, and a robot at rest a metre before the camera."""
    pictures = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    joints = FrankaAllegro().limits.mean(dim=1).numpy()
    camera = np.array([[1.0, 0, 0, 0.5], [0, 0, 1, -1.0], [0, -1, 0, 0.5], [0, 0, 0, 1]])
    lens = np.array([[300.0, 0, size[1] / 2], [0, 300.0, size[0] / 2], [0, 0, 1]])
    return Observation(pictures[0], joints, camera, lens, np.eye(4), joints), pictures[1]


def plan_seconds(planner: str, now: Slice) -> Figures:
    """Seconds of the first plan of an episode, pictures to joint targets, against the exact limit."""
    config = random_encoder(paper_model(now, MODEL_SIZE), now.work / "encoders", whole=True)
    torch.manual_seed(0)
    model = lively(DexWM(config).to(now.machine.device)).eval().requires_grad_(False)
    (seen, goal), short = observation_of(config.image_size), policy_of(now, model, planner, iterations=1)

    def plan(policy: MPCPolicy) -> None:
        policy.reset(goal, seed=0)
        policy.act(seen)

    policy = policy_of(now, model, planner)
    seconds = now.machine.seconds(lambda: plan(policy), repeats=1, warm=lambda: plan(short))
    steps = policy.statistics[-1].model_candidates * HORIZON
    flops = rollout_flops(config, steps)
    limit = flops / (now.matmul_tflops * 1e12)
    return {
        "seconds_a_plan": seconds,
        "pflop": flops / 1e15,
        "exact_limit_s": limit,
        "times_the_limit": seconds / limit,
        "candidate_steps_per_second": steps / seconds,
        "peak_memory_gib": now.machine.peak_gib,
        "time_shares": now.machine.time_shares(lambda: plan(short)),  # of one population
    }


def plain_forward(now: Slice) -> Figures:
    """The released planner's forward of nine frames against the fast roll-out, on the same candidates, in bfloat16."""
    machine, candidates = now.machine, now.size(PLAIN_CANDIDATES, 2)
    config = random_encoder(paper_model(now, MODEL_SIZE), now.work / "encoders", whole=False)
    torch.manual_seed(0)
    predictor = lively(DexWM(config).to(machine.device)).predictor.eval().requires_grad_(False)
    observed = torch.randn(predictor.tokens, config.encoder.dim, device=machine.device)
    motion = make_motion(candidates, HORIZON).to(machine.device)
    with torch.no_grad(), torch.autocast(machine.device.type, torch.bfloat16):
        still = make_motion(1, 0).to(machine.device)
        context = start(predictor, observed[None, None], still, constant=True)
        plain = machine.seconds(lambda: released_rollout(predictor, observed, motion), repeats=now.size(3, 1))
        fast = machine.seconds(lambda: rollout(predictor, context, motion), repeats=now.size(3, 1))
    steps = candidates * HORIZON
    whole = 512 * 10 * HORIZON / steps
    return {
        "plain_ms_per_candidate_step": 1e3 * plain / steps,
        "fast_ms_per_candidate_step": 1e3 * fast / steps,
        "plain_over_fast": plain / fast,
        "plain_s_of_a_plan_of_10_x_512": plain * whole,
        "encoder": "of neither; the release encodes nine frames a candidate-step besides",
        "candidates": candidates,
    }
