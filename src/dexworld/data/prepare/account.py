"""What a preparation did: where every episode is after it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dexworld.data.prepare.plan import Pack, PreparePlan
from dexworld.data.store.packs import PackRecord
from dexworld.data.store.prepared_dataset import PreparedDataset
from dexworld.data.store.store_settings import PrepareSettings

LISTED = 10


class CountMismatchError(RuntimeError):
    """Episodes that went in and did not come out anywhere: a defect."""


@dataclass(frozen=True)
class PrepareReport:
    """What one run of a preparation did, and where every episode is.

    counted = prepared + quarantined + failed + waiting: of all runs so far. frames, bytes: of what is prepared.
    quarantined: (file or id, reason). waiting: in packs that no run has written yet. failures: packs that this run
    could not write, and why. assembled: whether the store is complete. seconds, frames_now: of this run alone. damaged:
    (id or file, reason) of what is wrong with a finished store. verified: whether every byte of it was read.
    """

    counted: int
    prepared: int
    frames: int
    bytes: int
    quarantined: tuple[tuple[str, str], ...]
    source_bytes: int
    seconds: float
    frames_now: int
    settings: PrepareSettings
    waiting: int = 0
    failures: tuple[tuple[Pack, str], ...] = ()
    assembled: bool = False
    damaged: tuple[tuple[str, str], ...] = ()
    verified: bool = False

    def __post_init__(self) -> None:
        if self.prepared + len(self.quarantined) + self.failed + self.waiting != self.counted:
            raise CountMismatchError(
                f"{self.counted} episodes went in, but {self.prepared} are prepared, {len(self.quarantined)} "
                f"quarantined, {self.failed} failed and {self.waiting} waiting; delete the store and prepare again"
            )

    @property
    def failed(self) -> int:
        """Episodes in packs that this run could not write."""
        return sum(len(pack.ids) for pack, _ in self.failures)

    @property
    def ok(self) -> bool:
        """Whether nothing failed that ought to have worked; episodes that are broken in the source don't count."""
        return not self.failures and not self.damaged

    def to_json(self) -> dict[str, Any]:
        """The figures of results.json."""
        hours = self.frames / (self.settings.fps or 1.0) / 3600
        figures: dict[str, Any] = {"episodes": self.counted, "prepared": self.prepared}
        figures |= {"frames": self.frames, "hours": hours}
        figures |= {"quarantined": len(self.quarantined), "failed": self.failed, "waiting": self.waiting}
        figures |= {"assembled": self.assembled, "bytes": self.bytes}
        figures |= {"source_bytes": self.source_bytes, "seconds": self.seconds}
        figures["frames_per_second"] = self.frames_now / self.seconds if self.frames_now else None
        figures |= {"settings": self.settings.to_json(), "verified": self.verified}
        for name, entries in (("damaged", self.damaged), ("quarantine", self.quarantined)):
            figures[name] = [{"what": what, "reason": reason} for what, reason in entries]
        failures = [{"pack": pack.number, "ids": list(pack.ids), "reason": why} for pack, why in self.failures]
        return figures | {"failures": failures}

    def text(self) -> str:
        """The summary for people, with the first `LISTED` entries of every list."""
        counts = f"{self.prepared} of {self.counted} episodes prepared ({self.frames} frames), "
        counts += f"{len(self.quarantined)} quarantined"
        counts += f", {self.failed} in packs that failed" if self.failed else ""
        lines = [counts + (f", {self.waiting} not written yet" if self.waiting else "")]
        if self.frames:
            size = f"{self.bytes / 1e6:.1f} MB, {self.bytes / self.frames:.0f} bytes a frame"
            lines.append(f"{size}; the source has {self.source_bytes / 1e6:.1f} MB")
        if self.verified:
            lines.append(f"every byte and frame read again: {len(self.damaged) or 'nothing'} damaged")
        failures = [(str(pack), why) for pack, why in self.failures]
        for label, entries in {"quarantined": self.quarantined, "failed": failures, "damaged": self.damaged}.items():
            lines += [f"{label} {what}: {reason}" for what, reason in entries[:LISTED]]
            lines += [f"... and {len(entries) - LISTED} more {label}"] if len(entries) > LISTED else []
        return "\n".join(lines)


def counts_of_packs(
    plan: PreparePlan, records: Sequence[PackRecord], failures: Sequence[tuple[Pack, str]]
) -> dict[str, Any]:
    """The counts of a store that is not assembled yet, from its packs' records, as fields of a report.

    Raises CountMismatchError naming a pack whose record holds other episodes than the plan.
    """
    unwritten = {pack.number: pack.ids for pack in plan.packs}
    for record in records:
        found = [episode.id for episode in record.episodes] + [name for name, _ in record.quarantined]
        if sorted(found) != sorted(expected := unwritten.pop(record.number, ())):
            raise CountMismatchError(
                f"pack {record.number} accounts for {len(found)} of {len(expected)} planned episodes; delete its files "
                "in staging and start again"
            )
    left_out = tuple((name, why) for record in records for name, why in record.quarantined)
    return {
        "prepared": sum(len(record.episodes) for record in records),
        "frames": sum(record.frames for record in records),
        "bytes": sum(part["bytes"] for record in records for part in (record.video, record.labels) if part),
        "quarantined": plan.quarantined + left_out,
        "waiting": sum(len(ids) for ids in unwritten.values()) - sum(len(pack.ids) for pack, _ in failures),
    }


def counts_of_store(plan: PreparePlan, store: PreparedDataset) -> dict[str, Any]:
    """The counts of a finished store. Raises CountMismatchError naming an episode of the plan that it has lost."""
    kept = {*store.ids, *(name for name, _ in store.quarantined)}
    if lost := [name for name in plan.ids if name not in kept]:
        raise CountMismatchError(f"{store.folder} lost {len(lost)} episodes ({lost[0]} first); prepare it again")
    files = (path for top in ("data", "meta", "videos") for path in (store.folder / top).rglob("*"))
    size = sum(path.stat().st_size for path in files if path.is_file())
    counts = {"prepared": len(store), "frames": sum(store.lengths), "bytes": size}
    return counts | {"quarantined": store.quarantined, "assembled": True}
