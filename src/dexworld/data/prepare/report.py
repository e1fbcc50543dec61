"""What a preparation did: every episode of the source accounted for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dexworld.data.prepare.disk import DiskEstimate, gigabytes
from dexworld.data.prepare.plan import PreparePlan
from dexworld.data.prepare.work import PackFailed
from dexworld.data.prepared.dataset import PreparedDataset
from dexworld.data.prepared.pack import PackRecord
from dexworld.data.prepared.settings import PrepareSettings


class CountMismatchError(RuntimeError):
    """Episodes that went in and did not come out anywhere; a defect, never to be passed over."""


@dataclass(frozen=True)
class Account:
    """Where every episode of the source is: counted = prepared + quarantined + failed + waiting.

    frames, bytes: of what is prepared. quarantined: (file or id, reason). failed: in packs that this run could not
    write. waiting: in packs that no run has written yet.
    """

    counted: int
    prepared: int
    frames: int
    bytes: int
    quarantined: tuple[tuple[str, str], ...]
    failed: int = 0
    waiting: int = 0

    def __post_init__(self) -> None:
        out = self.prepared + len(self.quarantined) + self.failed + self.waiting
        if out != self.counted:
            raise CountMismatchError(
                f"{self.counted} episodes went in, but {self.prepared} are prepared, {len(self.quarantined)} "
                f"quarantined, {self.failed} failed and {self.waiting} waiting, {out} in all; the store can't be "
                "trusted, delete it and prepare again"
            )


@dataclass(frozen=True)
class PrepareReport:
    """What one run of a preparation did and found.

    account: of all episodes. failed: packs that this run could not write. assembled: whether the store is complete.
    seconds, frames_now: of this run alone. quality: see `quality.compare`; empty when nothing was compared. damaged:
    (id or file, reason) of what is wrong with a finished store; verified: whether every byte of it was read for that.
    """

    destination: Path
    account: Account
    failed: tuple[PackFailed, ...]
    assembled: bool
    estimate: DiskEstimate
    source_bytes: int
    seconds: float
    frames_now: int
    settings: PrepareSettings
    quality: dict[str, Any] = field(default_factory=dict)
    damaged: tuple[tuple[str, str], ...] = ()
    verified: bool = False

    @property
    def ok(self) -> bool:
        """Whether nothing failed that ought to have worked; episodes that are broken in the source don't count."""
        return not self.failed and not self.damaged

    def to_json(self) -> dict[str, Any]:
        """The figures of results.json."""
        account = self.account
        hours = account.frames / (self.settings.fps or 1.0) / 3600
        return {
            "episodes": account.counted,
            "prepared": account.prepared,
            "frames": account.frames,
            "hours": hours,
            "quarantined": len(account.quarantined),
            "failed": account.failed,
            "waiting": account.waiting,
            "assembled": self.assembled,
            "bytes": account.bytes,
            "bytes_per_frame": account.bytes / account.frames if account.frames else None,
            "gigabytes_per_hour": account.bytes / 1e9 / hours if account.frames else None,
            "source_bytes": self.source_bytes,
            "estimated_bytes": self.estimate.bytes,
            "seconds": self.seconds,
            "frames_per_second": self.frames_now / self.seconds if self.frames_now else None,
            "settings": self.settings.to_json(),
            "quality": self.quality,
            "verified": self.verified,
            "damaged": [{"what": what, "reason": reason} for what, reason in self.damaged],
            "quarantine": [{"what": what, "reason": reason} for what, reason in account.quarantined],
            "failures": [{"pack": pack.pack, "ids": list(pack.ids), "reason": pack.reason} for pack in self.failed],
        }

    def text(self, listed: int = 10) -> str:
        """The summary for people, with the first `listed` entries of every list."""
        account = self.account
        lines = [
            f"{account.prepared} of {account.counted} episodes prepared ({account.frames} frames), "
            f"{len(account.quarantined)} quarantined"
            + (f", {account.failed} in packs that failed" if account.failed else "")
            + (f", {account.waiting} not written yet" if account.waiting else "")
        ]
        if account.frames:
            lines.append(
                f"{gigabytes(account.bytes)}, {account.bytes / account.frames:.0f} bytes a frame; "
                f"the source has {gigabytes(self.source_bytes)}"
            )
        if self.quality.get("frames_compared"):
            lines.append(
                f"against the source scaled without encoding: {self.quality['psnr_median_db']:.1f} dB "
                f"({self.quality['psnr_luma_median_db']:.1f} luma), 5th percentile "
                f"{self.quality['psnr_5th_percentile_db']:.1f}"
                + (
                    f"; keypoints at most {self.quality['keypoint_max_px']:.2g} px off"
                    if self.quality["keypoint_max_px"] is not None
                    else ""
                )
            )
        if self.verified:
            lines.append(f"every byte and frame read again: {len(self.damaged) or 'nothing'} damaged")
        lines += _listed("quarantined", account.quarantined, listed)
        lines += _listed("failed", [(f"pack {each.pack}", each.reason) for each in self.failed], listed)
        lines += _listed("damaged", self.damaged, listed)
        return "\n".join(lines)


def _listed(label: str, entries: Sequence[tuple[str, str]], count: int) -> list[str]:
    shown = [f"{label} {what}: {reason}" for what, reason in entries[:count]]
    return shown + ([f"... and {len(entries) - count} more {label}"] if len(entries) > count else [])


def account_of_packs(plan: PreparePlan, records: Sequence[PackRecord], failed: Mapping[int, PackFailed]) -> Account:
    """The account of a store that is not assembled yet, from its packs' records.

    Raises CountMismatchError naming the pack when a record holds other episodes than the plan: fewer, more, or one
    twice.
    """
    planned = {pack.number: pack.ids for pack in plan.packs}
    for record in records:
        found = [episode.id for episode in record.episodes] + [name for name, _ in record.quarantined]
        expected = planned.pop(record.number, ())
        if sorted(found) != sorted(expected):
            wrong = sorted({*found} ^ {*expected}) or sorted(name for name in found if found.count(name) > 1)
            raise CountMismatchError(
                f"pack {record.number} accounts for {len(found)} episodes, {len(expected)} were planned "
                f"(first that differs: {wrong[0]}); its files in staging are damaged, delete them and start again"
            )
    return Account(
        counted=plan.counted,
        prepared=sum(len(record.episodes) for record in records),
        frames=sum(record.frames for record in records),
        bytes=sum(part["bytes"] for record in records for part in (record.video, record.labels) if part),
        quarantined=plan.quarantined + tuple((name, why) for record in records for name, why in record.quarantined),
        failed=sum(len(planned.get(number, ())) for number in failed),
        waiting=sum(len(ids) for number, ids in planned.items() if number not in failed),
    )


def account_of_store(plan: PreparePlan, store: PreparedDataset) -> Account:
    """The account of a finished store. Raises CountMismatchError naming an episode of the plan that it has lost."""
    kept = {*store.ids, *(name for name, _ in store.quarantined)}
    lost = [name for name in plan.ids if name not in kept]
    if lost:
        raise CountMismatchError(
            f"{store.folder} lost {len(lost)} episodes, the first is {lost[0]}; delete it and prepare again"
        )
    files = (path for top in ("data", "meta", "videos") for path in (store.folder / top).rglob("*"))
    return Account(
        counted=plan.counted,
        prepared=len(store),
        frames=sum(store.lengths),
        bytes=sum(path.stat().st_size for path in files if path.is_file()),
        quarantined=store.quarantined,
    )
