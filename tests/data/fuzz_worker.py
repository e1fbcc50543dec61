"""One process's share of the damaged datasets: prints a line of JSON before and after every case.

    python fuzz_worker.py FOLDER LAYOUT,LAYOUT,... CASES_OF_EACH FIRST

A case that hangs ends the process by SIGALRM, one that takes too much memory meets a limit; whoever started this one
sees which case it was, and goes on behind it.
"""

# ruff: noqa: PT017, PT018 (checks of a case, whose outcome is their message)
import contextlib
import json
import logging
import random
import resource
import shutil
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path

import fuzz_damage
import fuzz_layouts
import numpy as np
from fuzz_damage import BY_SUFFIX, BYTES, Unfit
from fuzz_layouts import LAYOUTS, REFUSALS, Finding, Layout, Truth, check_batch, equal, look, truth_of

import conftest
from dexworld.data.latent_cache import latent_cache, open_cache

SECONDS = 60  # wall clock; a case takes a hundredth of a second
MEMORY = 1 << 30  # bytes of address space beyond what the process has when it starts
BATCH_EVERY = 3
PREPARED_EVERY = 80  # cases; a preparation takes as long as ten readings
# What must end in an error, unless all that is read is as it was.
PLAIN = {
    "cut off", "empty", "missing", "a folder", "a link to nothing", "a link to itself", "another format", "forbidden",
    "frames missing", "frames too many", "no frames", "another size", "only sound", "absurd rate", "no JSON",
}  # fmt: skip
# A video of many episodes may go on behind them. Of DROID a few frames may be missing, and its video's rate means
# nothing. A file that nothing lists can't be missed.
BELIEVABLE = {(layout, "frames too many") for layout in ("lerobot", "droid-lerobot", "droid")}
BELIEVABLE |= {("droid", "frames missing"), ("droid", "absurd rate")}
NOT_LISTED = {("robocasa", "missing")}
REWRITTEN = {"missing key", "bad array"}  # our own files made anew, checksums and all: for verifying alone to find


def main(folder: Path, names: list[str], count: int, first: int) -> None:
    """Cases `first` to the last of all; case n is number n % count of layout names[n // count]."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process even inside a library's loop
    for place, name in enumerate(names):
        start = max(0, first - place * count)
        if start < count:
            run(CacheCases(folder) if name == "latents" else SourceCases(folder, name), name, range(start, count))
    tell(peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, seconds=time.process_time())


def run(check: "SourceCases | CacheCases", name: str, numbers: range) -> None:
    """Damage, look, repair, for every number."""
    limit_memory()
    for number in numbers:
        draw = random.Random(f"{name} {number}")
        path, kind, damage = chosen(name, check.files, draw)
        place = path.relative_to(check.root).as_posix()
        tell(layout=name, number=number, place=place, kind=kind)
        sound = path.read_bytes()
        signal.alarm(SECONDS)
        try:
            opened = check.before(number)
            damage(path, draw)
            unchanged = path.is_file() and not path.is_symlink() and path.read_bytes() == sound
            outcome, detail = ("unchanged", "") if unchanged else check.outcome(path, kind, number, opened)
        except Unfit:
            outcome, detail = "unfit", ""
        except AssertionError as error:
            outcome, detail = "wrong", str(error) or traceback.format_exc(limit=-2)
        except BaseException:
            outcome, detail = "escaped", traceback.format_exc(limit=-4)
        signal.alarm(0)
        with contextlib.suppress(FileNotFoundError):
            fuzz_damage.remove(path)
        path.write_bytes(sound)
        tell(layout=name, number=number, outcome=outcome, detail=detail[-1500:])


def chosen(name: str, files: list[Path], draw: random.Random) -> tuple[Path, str, fuzz_damage.Damage]:
    """A file and a damage; half of them know the file's format."""
    path = draw.choice(files)
    special = BY_SUFFIX.get(path.suffix, {})
    kinds = special if special and draw.random() < 0.5 else BYTES
    kind = draw.choice([kind for kind in kinds if (name, kind) not in NOT_LISTED])
    return path, kind, kinds[kind]


def limit_memory() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))


def tell(**line: object) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


class SourceCases:
    """Damage to a dataset of episodes."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self.folder, self.root = name, folder, folder / name
        self.layout: Layout = LAYOUTS[name]
        self.layout.write(self.root)
        self.truth: Truth = truth_of(self.layout, self.root)
        self.files = list(self.truth.affected)

    def before(self, number: int) -> object:
        """The dataset opened before it is damaged, for every other case of our own stores."""
        return self.layout.open(self.root) if self.layout.own and number % 2 else None

    def outcome(self, path: Path, kind: str, number: int, opened: object) -> tuple[str, str]:
        affected = self.truth.affected[path]
        is_index = affected == set(self.truth.episodes)
        if self.layout.own and kind in REWRITTEN:
            return self._verified(Finding(), path)
        try:
            source = opened or self.layout.open(self.root)
        except REFUSALS as error:
            assert is_index, f"one damaged episode makes the whole unreadable: {error}"
            source, finding = None, Finding(complaints=[str(error)])
        else:
            finding = look(source, self.truth, self.root, affected, number % BATCH_EVERY == 1)
            if number % BATCH_EVERY == 0:
                check_batch(source, self.truth, finding, affected, number)
        for complaint in finding.complaints:
            named = [str(self.root), path.name, *self.truth.episodes]
            assert any(name in complaint for name in named), f"nothing is named: {complaint}"
        if number % PREPARED_EVERY == 0 and not self.layout.own:
            store = self.folder / f"{self.name}-store"
            fuzz_layouts.check_prepared(self.root, self.truth, affected, store, self.name)
            shutil.rmtree(store, ignore_errors=True)
        if self.layout.verify is not None:
            return self._verified(finding, path)
        if finding.complaints:
            return "detected", finding.complaints[0]
        if finding.changed:
            fine = kind not in PLAIN or (self.name, kind) in BELIEVABLE
            assert fine, f"{finding.changed} come out changed, without a complaint"
            return "plausible", ""
        return "harmless", ""

    def _verified(self, finding: Finding, path: Path) -> tuple[str, str]:
        """Of our own stores: nothing changed is ever read, and verifying finds what opening and reading did not."""
        assert not finding.changed, f"{finding.changed} come out changed, without a complaint"
        try:
            source = self.layout.verify(self.root)
        except REFUSALS as error:
            return "detected", str(error)
        if source.quarantined:
            return "detected", str(source.quarantined[0])
        again = look(source, self.truth, self.root, set(self.truth.episodes))
        assert not again.changed and not again.complaints, f"not found by verifying: {again.changed}"
        same = np.all([left == right for left, right in zip(again.facts, self.truth.facts, strict=True)])
        assert same, f"{path.name} tells something else, and verifying does not see it"
        return "harmless", ""


class CacheCases:
    """Damage to a latent cache, which is found when the cache is opened or when its checksums are compared."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "latents" / "cache"
        self.dataset = conftest.write_numbered_dataset(folder / "latents" / "data", (5, 4))
        latent_cache(self.dataset, conftest.encode_brightness, "brightness", self.root)
        self.files = sorted(path for path in self.root.rglob("*") if path.is_file() and path.name != "plan.json")
        self.true = self._held()

    def _held(self) -> list[np.ndarray]:
        """Everything that the cache gives; ValueError where its checksums find damage."""
        cache = open_cache(self.dataset, "brightness", self.root)
        for name, wrong in cache.damaged():
            if wrong:
                raise ValueError(f"{self.root}/{name}")
        rows = cache.labels.take(np.arange(len(cache)))
        per_episode = [getattr(cache.labels, name).copy() for name in ("starts", "intrinsics", "fps")]
        return [np.asarray(cache.latents), *(rows[name] for name in rows.dtype.names), *per_episode]

    def before(self, number: int) -> None:
        return None

    def outcome(self, path: Path, kind: str, number: int, opened: None) -> tuple[str, str]:
        try:
            found = self._held()
        except REFUSALS as error:
            assert str(self.root) in str(error) or path.name in str(error), f"no file is named: {error}"
            return "detected", str(error)
        same = all(equal(one, other) for one, other in zip(found, self.true, strict=True))
        assert same, "latents or labels come out changed, without a complaint"
        return "harmless", ""


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2].split(","), int(sys.argv[3]), int(sys.argv[4]))
