"""What must hold when one file of a dataset is damaged."""

# ruff: noqa: PT017, PT018 (checks of a case, whose outcome is their message)
import logging
import os
import random
import resource
import shutil
import signal
import traceback
import warnings
from pathlib import Path

import fuzz_damage
import numpy as np
from fuzz_damage import ARRAYS, BY_SUFFIX, BYTES, Unfit
from fuzz_layouts import LAYOUTS, OWN, REFUSALS, Finding, Truth, check_batch, check_prepared, equal, look, opened
from numbered_fixtures import encode_brightness, write_numbered_dataset

from dexworld.data.latent_cache import latent_cache, open_cache

SECONDS = 60  # a case takes a hundredth of a second
MEMORY = 1 << 30  # bytes of address space beyond what the process has when it starts
BATCH_EVERY = 3
PREPARED_EVERY = 80  # cases; a preparation takes as long as ten readings
# What must end in an error, unless all that is read is as it was.
PLAIN = {
    "cut off", "missing", "no file", "another format", "frames missing", "frames too many", "no frames",
    "another size", "only sound", "absurd rate", "no JSON",
}  # fmt: skip
# A video of many episodes may go on behind them. Of DROID a few frames may be missing, and its video's rate means
# nothing. A file that nothing lists can't be missed.
BELIEVABLE = {(layout, "frames too many") for layout in ("lerobot", "droid-lerobot", "droid")}
BELIEVABLE |= {("droid", "frames missing"), ("droid", "absurd rate")}
BELIEVABLE |= {(layout, "another size") for layout in ("lerobot", "droid-lerobot")}  # a warning names both sizes
NOT_LISTED = {("robocasa", "missing")}


class SourceCases:
    """Damage to a dataset of episodes."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self.root, self.store = name, folder / name, folder / f"{name}-store"
        LAYOUTS[name](self.root)
        self.truth = Truth(opened(name, self.root))
        self.files = list(self.truth.affected)

    def before(self, number: int) -> object:
        """The dataset opened before it is damaged, for every other case of our own stores."""
        return opened(self.name, self.root) if self.name in OWN and number % 2 else None

    def outcome(self, path: Path, kind: str, number: int, source: object) -> tuple[str, str]:
        """What is found: an error is detected; harmless is what reads as it was, plausible what does not."""
        affected = self.truth.affected[path]
        if self.name in OWN and kind in ARRAYS:  # made anew, checksums and all: for verifying alone to find
            return self._verified(Finding(), path)
        try:
            source = source or opened(self.name, self.root)
        except REFUSALS as error:
            assert affected == set(self.truth.episodes), f"one damaged episode makes the whole unreadable: {error}"
            finding = Finding(complaints=[str(error)])
        else:
            finding = look(source, self.truth, affected)
            if self.name in OWN and number % BATCH_EVERY == 0:
                check_batch(source, self.truth, finding, affected, number)
        for complaint in finding.complaints:
            named = [str(self.root), path.name, *self.truth.episodes]
            assert any(name in complaint for name in named), f"nothing is named: {complaint}"
        if self.name in OWN:
            return self._verified(finding, path)
        if number % PREPARED_EVERY == 0:
            check_prepared(self.name, self.truth, affected, self.store)
            shutil.rmtree(self.store, ignore_errors=True)
        if finding.complaints:
            return "detected", finding.complaints[0]
        fine = not finding.changed or kind not in PLAIN or (self.name, kind) in BELIEVABLE
        assert fine, f"{finding.changed} come out changed, without a complaint"
        return "plausible" if finding.changed else "harmless", ""

    def _verified(self, finding: Finding, path: Path) -> tuple[str, str]:
        """Of our own stores: nothing changed is ever read, and verifying finds what opening and reading did not."""
        assert not finding.changed, f"{finding.changed} come out changed, without a complaint"
        try:
            source = opened(self.name, self.root, verify=True)
        except REFUSALS as error:
            return "detected", str(error)
        if source.quarantined:
            return "detected", str(source.quarantined[0])
        again = Truth(source)
        same = all(self.truth.is_same(name, episode) for name, episode in again.episodes.items())
        assert same and again.frames.keys() == self.truth.frames.keys(), "episodes change; verifying does not see it"
        assert all(equal(frames, self.truth.frames[name]) for name, frames in again.frames.items()), "frames change"
        facts = zip(again.facts, self.truth.facts, strict=True)
        assert np.all([left == right for left, right in facts]), f"{path.name} changes; verifying does not see it"
        return "harmless", ""


class CacheCases:
    """Damage to a latent cache, which is found when the cache is opened or when its checksums are compared."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "latents" / "cache"
        self.dataset = write_numbered_dataset(folder / "latents" / "data", (5, 4))
        latent_cache(self.dataset, encode_brightness, "brightness", self.root)
        self.files = sorted(path for path in self.root.rglob("*") if path.is_file() and path.name != "plan.json")
        self.true = self.before()

    def before(self, number: int = 0) -> list[np.ndarray]:
        """Everything that the cache gives; ValueError where its checksums find damage."""
        cache = open_cache(self.dataset, "brightness", self.root)
        for name, wrong in cache.damaged():
            if wrong:
                raise ValueError(f"{self.root}/{name}")
        rows = cache.labels.take(np.arange(len(cache)))
        per_episode = [getattr(cache.labels, name).copy() for name in ("starts", "intrinsics", "fps")]
        return [cache.latents[np.arange(len(cache))], *(rows[name] for name in rows.dtype.names), *per_episode]

    def outcome(self, path: Path, kind: str, number: int, before: object) -> tuple[str, str]:
        try:
            found = self.before()
        except REFUSALS as error:
            assert str(self.root) in str(error) or path.name in str(error), f"no file is named: {error}"
            return "detected", str(error)
        same = all(equal(one, other) for one, other in zip(found, self.true, strict=True))
        assert same, "latents or labels come out changed, without a complaint"
        return "harmless", ""


class FuzzCase:
    """Damages a file, looks, repairs it: a job of `dexworld.data.parallel.Workers`, which says who hangs or crashes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checks: dict[str, SourceCases | CacheCases] = {}

    def __call__(self, item: tuple[str, int]) -> tuple[str, str, int]:
        """Outcome, detail and the most memory that this process ever used, for a layout and a number."""
        name, number = item
        if name not in self.checks:
            warnings.simplefilter("ignore")
            logging.disable(logging.CRITICAL)
            folder = self.folder / str(os.getpid())
            self.checks[name] = CacheCases(folder) if name == "latents" else SourceCases(folder, name)
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
        signal.alarm(SECONDS)  # a case that hangs ends its process
        outcome, detail = self._outcome(self.checks[name], name, number)
        signal.alarm(0)
        return outcome, detail[-1500:], _peak()

    def _outcome(self, check: SourceCases | CacheCases, name: str, number: int) -> tuple[str, str]:
        draw = random.Random(f"{name} {number}")
        path = draw.choice(check.files)
        kinds = BY_SUFFIX.get(path.suffix, BYTES) if draw.random() < 0.5 else BYTES  # half know the file's format
        kind = draw.choice([kind for kind in kinds if (name, kind) not in NOT_LISTED])
        what, sound = f"{kind} of {path.relative_to(check.root)}: ", path.read_bytes()
        try:
            before = check.before(number)
            kinds[kind](path, draw)
            if path.is_file() and not path.is_symlink() and path.read_bytes() == sound:
                return "unchanged", ""
            outcome, detail = check.outcome(path, kind, number, before)
            return outcome, what + detail
        except Unfit:
            return "unfit", ""
        except AssertionError as error:
            return "wrong", what + (str(error) or traceback.format_exc(limit=-2))
        except Exception:
            return "escaped", what + traceback.format_exc(limit=-4)
        finally:
            fuzz_damage.remove(path)
            path.write_bytes(sound)


def _peak() -> int:
    """Bytes that this process has used at most. `ru_maxrss` would begin with those of the process that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
