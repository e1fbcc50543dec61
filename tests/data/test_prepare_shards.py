"""Shards and processes that share nothing but a folder."""

import json
import multiprocessing

import pytest
from prepare_fixtures import config_of, content_of, write_source

from dexworld.data.files import Shard
from dexworld.data.prepare.job import prepare

CONTEXT = multiprocessing.get_context("forkserver")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_source(tmp_path_factory.mktemp("shards") / "source")


@pytest.fixture(scope="module")
def undisturbed(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "store"
    prepare(config_of(source, folder))
    return content_of(folder)


def test_two_shards_in_any_order_make_the_store_of_a_single_run(source, undisturbed, tmp_path):
    second = prepare(config_of(source, tmp_path / "store", shard=Shard.parse("1/2")))
    assert (second.assembled, second.account.prepared, second.account.waiting) == (False, 3, 4)
    first = prepare(config_of(source, tmp_path / "store", shard=Shard.parse("0/2")))
    assert first.assembled
    assert content_of(tmp_path / "store") == undisturbed


def test_assembly_can_be_left_to_a_run_of_its_own(source, undisturbed, tmp_path):
    store = tmp_path / "store"
    prepare(config_of(source, store, shard=Shard(0, 2), assemble="never"))
    with pytest.raises(ValueError, match="2 of 4 packs are missing, the first is pack 1"):
        prepare(config_of(source, store, assemble="only"))
    prepare(config_of(source, store, shard=Shard(1, 2), assemble="never"))
    assert not (store / "meta").exists()
    assert prepare(config_of(source, store, assemble="only")).assembled
    assert content_of(store) == undisturbed


def test_processes_with_the_same_shard_at_once_do_no_harm(source, undisturbed, tmp_path):
    config = config_of(source, tmp_path / "store")
    processes = [CONTEXT.Process(target=prepare, args=(config,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    prepare(config)  # the last one to end assembles, unless it saw another's claim
    assert content_of(tmp_path / "store") == undisturbed


def claim(folder, name, host, pid):
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"host": host, "pid": pid}))
    return path


def test_a_pack_that_a_live_process_holds_is_left_to_it(source, tmp_path):
    store = tmp_path / "store"
    prepare(config_of(source, store, shard=Shard(0, 4), assemble="never"))
    held = claim(store / ".claims", "pack-000002", "another-host", 1)
    report = prepare(config_of(source, store))
    assert (report.assembled, report.account.waiting) == (False, 2)
    assert held.exists()
