"""A folder with other settings is refused by name; claims end with their process."""

import subprocess
import sys
from pathlib import Path

import pytest

from dexworld.data.files import Shard, check_same_settings
from dexworld.data.locks import Claims

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


def test_claims_exclude_live_processes_and_end_with_their_process(tmp_path):
    code = "import sys, pathlib, time; from dexworld.data.locks import Claims; c = Claims(pathlib.Path(sys.argv[1]))"
    code += "; print(c.take('item'), flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "True\n"
        with Claims(tmp_path) as claims:
            assert not claims.take("item")
            assert claims.take("new")
            assert not claims.take("new")
            other.kill()
            other.wait()
            assert claims.take("item")
            claims.release("new")
            assert claims.take("new")
    assert not tmp_path.exists()


def test_shards_divide_the_items_without_a_rest():
    shares = [Shard(index, 3).of(range(10)) for index in range(3)]
    assert sorted(item for share in shares for item in share) == list(range(10))
    assert [len(share) for share in shares] == [4, 3, 3]


@pytest.mark.parametrize("text", ["1", "3/3", "0/0", "-1/2", "one/two"])
def test_a_shard_that_makes_no_sense_is_refused(text):
    with pytest.raises(ValueError, match="shard"):
        Shard.parse(text)
