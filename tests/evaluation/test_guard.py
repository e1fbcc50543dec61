import pytest

from dexworld.evaluation.guard import SeedError, check_seeds

PROVENANCE = {"training_seeds": [[0, 4999], [10_000, 10_999]]}


def test_training_seeds_are_refused_up_to_both_ends_in_any_range_and_form():
    for seed in (0, 4999, 10_000, 10_999):
        with pytest.raises(SeedError, match=f"{seed}.*training seeds"):
            check_seeds([1_000_000, seed], PROVENANCE)
    for seed, recorded in ((1_000_005, [[1_000_000, 1_000_010]]), (7, [0, 10])):
        with pytest.raises(SeedError, match="training seeds"):
            check_seeds([seed], {"training_seeds": recorded})


def test_each_split_takes_its_own_range_only():
    check_seeds(range(1_000_000, 1_000_003), PROVENANCE)
    check_seeds([900_000, 999_999], PROVENANCE, split="validation")
    for split, seeds in (("validation", (899_999, 1_000_000)), ("evaluation", (5_000, 900_000))):
        for seed in seeds:
            with pytest.raises(SeedError, match=f"outside the {split} range.*split='validation'"):
                check_seeds([seed], PROVENANCE, split=split)


@pytest.mark.parametrize("provenance", [{}, {"training_seeds": [[5, 1]]}, {"training_seeds": [["a", "b"]]}])
def test_a_checkpoint_that_cannot_say_what_it_saw_is_refused(provenance):
    with pytest.raises(SeedError, match=r"training.seeds"):
        check_seeds([1_000_000], provenance)


def test_no_seeds_and_unknown_splits_are_refused():
    with pytest.raises(SeedError, match="no seeds"):
        check_seeds([], PROVENANCE)
    with pytest.raises(SeedError, match="split"):
        check_seeds([1_000_000], PROVENANCE, split="test")  # type: ignore[arg-type]
