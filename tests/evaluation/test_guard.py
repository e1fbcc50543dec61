import pytest

from dexworld.evaluation.guard import SeedError, check_seeds

PROVENANCE = {"training_seeds": [[0, 4999], [10_000, 10_999]]}


def test_evaluation_seeds_pass_and_come_back_as_a_list():
    assert check_seeds(range(1_000_000, 1_000_003), PROVENANCE) == [1_000_000, 1_000_001, 1_000_002]


@pytest.mark.parametrize("seed", [0, 4999, 10_000, 10_999])
def test_training_seeds_are_refused_up_to_both_ends(seed):
    with pytest.raises(SeedError, match=f"{seed}.*training seeds"):
        check_seeds([1_000_000, seed], PROVENANCE)


def test_training_seeds_are_refused_even_where_they_lie_in_the_evaluation_range():
    with pytest.raises(SeedError, match="training seeds"):
        check_seeds([1_000_005], {"training_seeds": [[1_000_000, 1_000_010]]})


def test_seeds_below_a_million_give_no_final_figures():
    with pytest.raises(SeedError, match="validation"):
        check_seeds([5_000], PROVENANCE)
    with pytest.raises(SeedError, match="outside the evaluation range"):
        check_seeds([900_000], PROVENANCE)


def test_validation_takes_its_own_range_only():
    assert check_seeds([900_000, 999_999], PROVENANCE, split="validation") == [900_000, 999_999]
    for seed in (899_999, 1_000_000):
        with pytest.raises(SeedError, match="outside the validation range"):
            check_seeds([seed], PROVENANCE, split="validation")


def test_one_pair_is_as_good_as_a_list_of_pairs():
    with pytest.raises(SeedError, match="training seeds"):
        check_seeds([7], {"training_seeds": [0, 10]})


@pytest.mark.parametrize("provenance", [{}, {"training_seeds": [[5, 1]]}, {"training_seeds": [["a", "b"]]}])
def test_a_checkpoint_that_cannot_say_what_it_saw_is_refused(provenance):
    with pytest.raises(SeedError, match=r"training.seeds"):
        check_seeds([1_000_000], provenance)


def test_no_seeds_and_unknown_splits_are_refused():
    with pytest.raises(SeedError, match="no seeds"):
        check_seeds([], PROVENANCE)
    with pytest.raises(SeedError, match="split"):
        check_seeds([1_000_000], PROVENANCE, split="test")  # type: ignore[arg-type]
