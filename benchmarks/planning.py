"""Cost of imagining candidates: the fast rollout against the plain one, and what it holds in memory.

    python benchmarks/planning.py --output outputs/bench/planning

`speedup_3step_d1024`: CPU time of a three-step rollout by the plain forward of the released code over that of the fast
path, both float32 on one thread, as the median of interleaved pairs. The plain forward sends all nine frames through
every linear layer and attends for the last frame only. `speedup_3step_d1024_first` charges the context, which is made
once per plan, to a single rollout.

`peak_mb_context_*`: memory that a rollout of N candidates needs on top of what is loaded, with a short and a long
context. `per_candidate_copy_mb`: what `peak_growth_mb` would be if every candidate held its own keys and values.
"""

import os
import statistics

import torch
import torch.nn.functional as F
from torch import Tensor

from common import cpu_seconds, in_a_process, memory_kb, parser, write_and_print
from dexworld.actions import ACTION_ROWS, HandMotion
from dexworld.hands import NUM_TRACKED
from dexworld.models.attention import attend, merge_heads, split_heads
from dexworld.models.config import PredictorConfig, preset
from dexworld.models.predictor import MODULATIONS, Block, Predictor, modulate, normalise
from dexworld.models.rollout import rollout, start

GRID, IMAGE_SIZE = (8, 14), (224, 392)
STEPS = 3
SHORT_CONTEXT, LONG_CONTEXT = 4, 16  # more than the steps, so that both merge shared and private keys
MEGABYTE = 2.0**20


def make_predictor(config: PredictorConfig, latent_dim: int) -> Predictor:
    """A predictor with random non-zero weights, gates included: a fresh one would give both paths the same zero."""
    generator = torch.Generator().manual_seed(0)
    predictor = Predictor(config, latent_dim, GRID, IMAGE_SIZE, (0.05, 0.05, 0.05)).requires_grad_(False)
    for value in predictor.parameters():
        value.copy_(torch.randn(value.shape, generator=generator) * 0.3 / value.shape[-1] ** 0.5)
    return predictor


def paper_config(dim: int, num_context: int = 8) -> PredictorConfig:
    """One block in the paper's form."""
    return PredictorConfig(
        dim=dim, depth=1, heads=max(1, dim // 64), num_context=num_context, residual=False, embed_actions=False,
        pixel_aligned=False,
    )  # fmt: skip


def make_motion(candidates: int, steps: int) -> HandMotion:
    """Random motion of visible hands."""
    generator = torch.Generator().manual_seed(1)
    deltas = 0.02 * torch.randn(candidates, steps, ACTION_ROWS, 3, generator=generator)
    pixels = torch.rand(candidates, steps + 1, NUM_TRACKED, 3, generator=generator) * torch.tensor([392.0, 224.0, 1.0])
    return HandMotion(deltas, pixels, torch.ones(candidates, steps + 1, NUM_TRACKED, dtype=torch.bool))


def released_rollout(predictor: Predictor, observed: Tensor, motion: HandMotion) -> Tensor:
    """A rollout (N, T, P, D) from one observed frame (P, D) the way the released planner runs its model."""
    size, candidates = predictor.config.num_context, motion.deltas.shape[0]
    frames = [observed.expand(candidates, -1, -1)] * size
    deltas = motion.pad_left(size - 1).deltas
    for step in range(motion.steps):
        window = torch.stack([*frames[-size:], frames[-1]], dim=1)
        condition = predictor.conditions(deltas[:, step : step + size])
        stream = predictor.context(window, slice(0, size + 1))
        x = torch.cat([stream[:, :1], stream[:, :-1]], dim=1)
        for block in predictor.layers:
            x = released_block(block, x, stream, condition)
        shift, scale = predictor.final_modulation(condition)[:, :, None].chunk(2, dim=-1)
        output = predictor.project_out(predictor.final(modulate(normalise(x), shift, scale)))
        frames.append(output[:, -1])
    return torch.stack(frames[size:], dim=1)


def released_block(block: Block, x: Tensor, stream: Tensor, condition: Tensor) -> Tensor:
    """All linear layers on all frames (N, 9, P, D); attention for the last frame's tokens only."""
    m = block.modulation(condition)[:, :, None].chunk(MODULATIONS, dim=-1)

    def last_only(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = merge_heads(attend(*(split_heads(part, block.heads) for part in (query, key, value))))
        return F.pad(output[:, None], (0, 0, 0, 0, x.shape[1] - 1, 0))

    query, key, value = block.self_qkv(modulate(normalise(x), m[0], m[1])).chunk(3, dim=-1)
    x = torch.addcmul(x, m[2], block.self_out(last_only(query[:, -1], key[:, -1], value[:, -1])))
    query = block.cross_query(modulate(normalise(x), m[5], m[6]))
    key, value = block.cross_key_value(modulate(normalise(stream), m[3], m[4])).chunk(2, dim=-1)
    cross = last_only(query[:, -1], key[:, :-1].flatten(1, 2), value[:, :-1].flatten(1, 2))
    x = torch.addcmul(x, m[7], block.cross_out(cross))
    return torch.addcmul(x, m[10], block.mlp(modulate(normalise(x), m[8], m[9])))


def measure_speedup(dim: int, candidates: int, repeats: int) -> dict[str, float]:
    """Plain over fast CPU time of a three-step rollout, and how far their results are apart."""
    predictor = make_predictor(paper_config(dim), latent_dim=dim)
    observed = torch.randn(GRID[0] * GRID[1], dim, generator=torch.Generator().manual_seed(2))
    motion, still = make_motion(candidates, STEPS), make_motion(1, 0)
    context = start(predictor, observed[None, None], still, constant=True)

    def first() -> Tensor:
        return rollout(predictor, start(predictor, observed[None, None], still, constant=True), motion)

    difference = (rollout(predictor, context, motion) - released_rollout(predictor, observed, motion)).abs().max()
    times: dict[str, list[float]] = {"plain": [], "fast": [], "first": []}
    for _ in range(repeats):
        times["plain"].append(cpu_seconds(lambda: released_rollout(predictor, observed, motion)))
        times["fast"].append(cpu_seconds(lambda: rollout(predictor, context, motion)))
        times["first"].append(cpu_seconds(first))
    pairs = zip(times["plain"], times["fast"], times["first"], strict=True)
    ratios = [(plain / fast, plain / cold) for plain, fast, cold in pairs]
    return {
        f"speedup_3step_d{dim}": statistics.median(warm for warm, _ in ratios),
        f"speedup_3step_d{dim}_first": statistics.median(cold for _, cold in ratios),
        f"plain_cpu_s_3step_d{dim}": statistics.median(times["plain"]),
        f"fast_cpu_s_3step_d{dim}": statistics.median(times["fast"]),
        f"max_difference_3step_d{dim}": float(difference),
    }


def measure_tiny(candidates: int, repeats: int) -> dict[str, float]:
    """Candidate-steps per CPU-second of the `tiny` preset, in float32 and in bfloat16."""
    config = preset("tiny")
    predictor = make_predictor(config.predictor, config.encoder.dim)
    observed = torch.randn(GRID[0] * GRID[1], config.encoder.dim, generator=torch.Generator().manual_seed(2))
    motion = make_motion(candidates, STEPS)
    figures = {}
    for name, half in (("float32", False), ("bfloat16", True)):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            context = start(predictor, observed[None, None], make_motion(1, 0), constant=True)
            rollout(predictor, context, motion)
            times = [cpu_seconds(lambda: rollout(predictor, context, motion)) for _ in range(repeats)]  # noqa: B023
        figures[f"tiny_candidate_steps_per_cpu_s_{name}"] = candidates * STEPS / statistics.median(times)
    return figures


def measure_memory(dim: int, candidates: int) -> dict[str, float]:
    """Peak memory of a rollout of many candidates with a short and a long context, each in a fresh process."""
    # Every large block gets pages of its own and gives them back: otherwise fragments of the heap blur the figure.
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"  # read by glibc when a process starts, so not by this one
    contexts = (SHORT_CONTEXT, LONG_CONTEXT)
    peaks = {num_context: in_a_process(rollout_peak, dim, candidates, num_context) for num_context in contexts}
    tokens = GRID[0] * GRID[1]
    copy = candidates * (LONG_CONTEXT - SHORT_CONTEXT) * tokens * 2 * dim * 4 / MEGABYTE
    return {
        "memory_candidates": candidates,
        f"peak_mb_context_{SHORT_CONTEXT}": peaks[SHORT_CONTEXT],
        f"peak_mb_context_{LONG_CONTEXT}": peaks[LONG_CONTEXT],
        "peak_growth_mb": peaks[LONG_CONTEXT] - peaks[SHORT_CONTEXT],
        "per_candidate_copy_mb": copy,
    }


@torch.no_grad()
def rollout_peak(dim: int, candidates: int, num_context: int) -> float:
    """The megabytes that one rollout adds to this process at its peak."""
    torch.set_num_threads(1)
    predictor = make_predictor(paper_config(dim, num_context), latent_dim=dim)
    motion = make_motion(candidates, 2)
    context = start(predictor, torch.randn(1, 1, GRID[0] * GRID[1], dim), make_motion(1, 0), constant=True)
    rollout(predictor, context, motion.index(slice(0, 2)))  # kernels and buffers loaded
    before = memory_kb("VmRSS")
    rollout(predictor, context, motion)
    return (memory_kb("VmHWM") - before) / 1024


def main() -> None:
    arguments = parser(__doc__, "outputs/bench/planning")
    arguments.add_argument("--dim", type=int, default=1024, help="width of the predictor whose speed-up is measured")
    arguments.add_argument("--candidates", type=int, default=4, help="candidates N of the speed-up")
    arguments.add_argument("--repeats", type=int, default=7, help="interleaved pairs; the median counts")
    arguments.add_argument(
        "--memory-dim", type=int, default=128, help="width of the predictor whose memory is measured"
    )
    arguments.add_argument("--memory-candidates", type=int, default=512, help="candidates N of the memory figures")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    with torch.no_grad():
        results = measure_speedup(options.dim, options.candidates, options.repeats)
        results |= measure_tiny(8, options.repeats)
    results |= measure_memory(options.memory_dim, options.memory_candidates)
    write_and_print(options.output, results)


if __name__ == "__main__":
    main()
