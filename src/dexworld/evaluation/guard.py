"""Keeps figures honest: a model is never evaluated on scenes that it was trained on.

Scene seeds come from three disjoint ranges: training, validation (tuning, choice of a model) and evaluation (figures
that are reported). A checkpoint records its training seeds in `provenance["training_seeds"]` as one [low, high] pair
or a list of such pairs, both ends included.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

VALIDATION_START = 900_000
EVALUATION_START = 1_000_000

Split = Literal["evaluation", "validation"]


class SeedError(ValueError):
    """An evaluation was asked for on seeds that it must not touch."""


def split_of(seed: int) -> Literal["training", "validation", "evaluation"]:
    """What scenes of this seed may be used for."""
    if seed < VALIDATION_START:
        return "training"
    return "validation" if seed < EVALUATION_START else "evaluation"


def check_seeds(seeds: Iterable[int], provenance: Mapping[str, Any], split: Split = "evaluation") -> None:
    """Refuse seeds that the checkpoint was trained on, and seeds outside the range of `split`.

    Raises SeedError with the seeds and what to do; also without seeds, or where the checkpoint doesn't say what it saw.
    """
    seeds = [int(seed) for seed in seeds]
    if split not in ("evaluation", "validation"):
        raise SeedError(f"split is {split!r}; choose 'evaluation' or 'validation'")
    if not seeds:
        raise SeedError("there are no seeds to evaluate on; ask for at least one episode")
    ranges = training_ranges(provenance)
    trained = [seed for seed in seeds if any(low <= seed <= high for low, high in ranges)]
    if trained:
        raise SeedError(
            f"{len(trained)} of {len(seeds)} seeds ({_first(trained)}) are among the checkpoint's training seeds "
            f"{ranges}: the figures would flatter it. Choose seeds of {EVALUATION_START} or more"
        )
    outside = [seed for seed in seeds if split_of(seed) != split]
    if outside:
        allowed = {"evaluation": f"{EVALUATION_START} or more", "validation": f"{VALIDATION_START} to 999999"}[split]
        raise SeedError(
            f"{len(outside)} of {len(seeds)} seeds ({_first(outside)}) are outside the {split} range ({allowed}). "
            "Final figures come from evaluation seeds; tune and choose models with split='validation'"
        )


def training_ranges(provenance: Mapping[str, Any]) -> list[tuple[int, int]]:
    """The [low, high] pairs (both included) of `provenance["training_seeds"]`; SeedError where it is missing or odd."""
    recorded = provenance.get("training_seeds")
    if recorded is None:
        raise SeedError(
            "the checkpoint doesn't record its training seeds (provenance['training_seeds']): save it again with them"
        )
    if len(recorded) == 2 and all(isinstance(end, int) for end in recorded):
        recorded = [recorded]
    for pair in recorded:
        if len(pair) != 2 or not all(isinstance(end, int) for end in pair) or pair[0] > pair[1]:
            raise SeedError(f"provenance['training_seeds'] holds {pair!r}; an entry is [low, high] with low <= high")
    return [(low, high) for low, high in recorded]


def _first(seeds: list[int]) -> str:
    return ", ".join(map(str, seeds[:5])) + (", ..." if len(seeds) > 5 else "")
