"""A folder begun with other settings is refused by name; claims of dead processes are free."""

import multiprocessing
import time
from pathlib import Path

import pytest

from dexworld.data.files import Shard, check_same_settings
from dexworld.data.locks import claimed

INDEX = Path("folder/dataset.json")


def refusal(found: dict, now: dict) -> str | None:
    """What the check says; None where it lets the settings pass."""
    try:
        check_same_settings(INDEX, found, now)
    except ValueError as error:
        return str(error)
    return None


def test_equal_settings_pass_and_tuples_are_the_lists_that_the_file_holds():
    found = {"shape": [9, 48], "explore": {"weights": [1.0]}}
    now = {"shape": (9, 48), "explore": {"weights": (1.0,)}}
    assert refusal(found, found) is None
    assert refusal(found, now) is None
    assert refusal(found, now | {"shape": (9, 49)}) == (
        f"{INDEX} was begun with other settings: shape was [9, 48], now [9, 49]; choose another folder, "
        "or delete this one"
    )


def test_every_difference_is_named_with_both_values_however_deep_it_lies():
    found = {"backend": "egl", "explore": {"frames": 4, "weights": [1, 2]}, "old": 1}
    now = {"backend": "ray", "explore": {"frames": 5, "weights": (1, 2)}, "new": None}
    with pytest.raises(ValueError, match="begun with other settings") as raised:
        check_same_settings(INDEX, found, now)
    assert str(raised.value) == (
        f"{INDEX} was begun with other settings: backend was 'egl', now 'ray', explore.frames was 4, now 5, "
        "new was absent, now None, old was 1, now absent; choose another folder, or delete this one"
    )


def test_a_message_stays_short():
    with pytest.raises(ValueError, match=r"a0 was absent.*and 14 more; choose") as raised:
        check_same_settings(INDEX, {}, {f"a{number}": "x" * 500 for number in range(20)})
    assert len(str(raised.value)) < 700


def hold(path, sender):
    with claimed(path) as part:
        sender.send(part.name)
        time.sleep(60)


def test_a_claim_is_refused_while_its_process_lives_and_free_when_it_died(tmp_path):
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    other = context.Process(target=hold, args=(tmp_path / "held", theirs))
    other.start()
    assert ours.recv() == ".held.part"
    with claimed(tmp_path / "held", wait=False) as part:
        assert part is None
    other.kill()
    other.join()
    with claimed(tmp_path / "held", wait=False) as part:
        part.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["held"]


def test_shards_divide_the_items_without_a_rest():
    shares = [Shard(index, 3).of(range(10)) for index in range(3)]
    assert sorted(item for share in shares for item in share) == list(range(10))
    assert [len(share) for share in shares] == [4, 3, 3]


@pytest.mark.parametrize("text", ["1", "3/3", "0/0", "-1/2", "one/two"])
def test_a_shard_that_makes_no_sense_is_refused(text):
    with pytest.raises(ValueError, match="shard"):
        Shard.parse(text)
