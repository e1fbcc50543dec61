"""What a preparation needs and what it did: the disk before the first frame, and where every episode is after it."""

import contextlib
import math
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dexworld.data.prepare.plan import Pack, PreparePlan
from dexworld.data.source import CorruptEpisodeError, Dataset, Source
from dexworld.data.store.encode import RECIPES
from dexworld.data.store.packs import PackRecord
from dexworld.data.store.prepared_dataset import PreparedDataset
from dexworld.data.store.store_settings import PrepareSettings
from dexworld.data.video import VideoError

# Bytes of a stored frame of 398 x 224 at the default rate factor: `python benchmarks/storage.py`, textured clip.
# PER_CRF: the factor on the size for one step of the rate factor.
FRAME_BYTES = {"h264": 7700, "h264-444": 9000, "hevc": 4900, "av1": 5500, "jpeg": 32500}
PER_CRF = {"h264": 0.89, "h264-444": 0.89, "hevc": 0.89, "av1": 0.95, "jpeg": 0.8}
MEASURED_PIXELS = 398 * 224
LABEL_BYTES = 1500  # keypoints, confidences, camera and packet places of a frame, compressed
MARGIN = 1.1
LISTED = 10
SAMPLED = 20  # episodes whose lengths are read when the source doesn't know them


def estimate_store(source: Source, settings: PrepareSettings) -> tuple[int, float]:
    """Frames of `source` and bytes of its store with resolved settings, with what assembling needs on top.

    Reads the lengths of 20 episodes, spread evenly, when the source doesn't know them all.
    """
    if isinstance(source, Dataset):
        frames = sum(source.lengths)
    else:
        lengths = []
        for index in np.unique(np.linspace(0, len(source) - 1, SAMPLED).round().astype(int)):
            with contextlib.suppress(CorruptEpisodeError, VideoError):
                lengths.append(len(source[int(index)]))
        frames = round(len(source) * float(np.mean(lengths))) if lengths else 0
    codec, pixels = settings.codec, math.prod(settings.stored_size)
    steps = 0 if settings.crf is None else settings.crf - RECIPES[codec].crf
    frame_bytes = FRAME_BYTES[codec] * pixels / MEASURED_PIXELS * PER_CRF[codec] ** steps
    return frames, MARGIN * frames * (frame_bytes + LABEL_BYTES)


def check_room(destination: Path, needed: float, what: str) -> None:
    """Raise ValueError with the figures when so many bytes don't fit on the disk of `destination`."""
    folder = next(each for each in (destination, *destination.resolve().parents) if each.exists())
    free = shutil.disk_usage(folder).free
    if math.ceil(needed) > free:
        raise ValueError(
            f"{destination} needs about {_gigabytes(needed)} more ({what}), but {_gigabytes(free)} are free; make "
            "room, choose another disk or codec, or start with --force True"
        )


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


class CountMismatchError(RuntimeError):
    """Episodes that went in and did not come out anywhere: a defect."""


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
                f"quarantined, {self.failed} failed and {self.waiting} waiting; delete the store and prepare again"
            )


@dataclass(frozen=True)
class PrepareReport:
    """What one run of a preparation did and found.

    account: of all episodes. failed: packs that this run could not write, and why. assembled: whether the store is
    complete. seconds, frames_now: of this run alone. quality: see `quality.compare`; empty when nothing was compared.
    damaged: (id or file, reason) of what is wrong with a finished store. verified: whether every byte of it was read.
    """

    account: Account
    failed: tuple[tuple[Pack, str], ...]
    assembled: bool
    estimated_bytes: int
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
        account, frames = self.account, self.account.frames
        hours = frames / (self.settings.fps or 1.0) / 3600
        figures: dict[str, Any] = {"episodes": account.counted, "prepared": account.prepared}
        figures |= {"frames": frames, "hours": hours}
        figures |= {"quarantined": len(account.quarantined), "failed": account.failed, "waiting": account.waiting}
        figures |= {"assembled": self.assembled, "bytes": account.bytes}
        figures |= {
            "bytes_per_frame": account.bytes / frames if frames else None,
            "gigabytes_per_hour": account.bytes / 1e9 / hours if frames else None,
        }
        figures |= {"source_bytes": self.source_bytes, "estimated_bytes": self.estimated_bytes, "seconds": self.seconds}
        figures["frames_per_second"] = self.frames_now / self.seconds if self.frames_now else None
        figures |= {"settings": self.settings.to_json(), "quality": self.quality, "verified": self.verified}
        for name, entries in (("damaged", self.damaged), ("quarantine", account.quarantined)):
            figures[name] = [{"what": what, "reason": reason} for what, reason in entries]
        failures = [{"pack": pack.number, "ids": list(pack.ids), "reason": why} for pack, why in self.failed]
        return figures | {"failures": failures}

    def text(self) -> str:
        """The summary for people, with the first `LISTED` entries of every list."""
        account, quality = self.account, self.quality
        counts = f"{account.prepared} of {account.counted} episodes prepared ({account.frames} frames), "
        counts += f"{len(account.quarantined)} quarantined"
        counts += f", {account.failed} in packs that failed" if account.failed else ""
        lines = [counts + (f", {account.waiting} not written yet" if account.waiting else "")]
        if account.frames:
            size = f"{_gigabytes(account.bytes)}, {account.bytes / account.frames:.0f} bytes a frame"
            lines.append(f"{size}; the source has {_gigabytes(self.source_bytes)}")
        if quality.get("frames_compared"):
            median, luma, low = (quality[f"psnr_{name}_db"] for name in ("median", "luma_median", "5th_percentile"))
            off = quality["keypoint_max_px"]
            keypoints = f"; keypoints at most {off:.2g} px off" if off is not None else ""
            decibels = f"{median:.1f} dB ({luma:.1f} luma), 5th percentile {low:.1f}"
            lines.append(f"against the source scaled without encoding: {decibels}{keypoints}")
        if self.verified:
            lines.append(f"every byte and frame read again: {len(self.damaged) or 'nothing'} damaged")
        lists = {"quarantined": account.quarantined, "failed": self.failed, "damaged": self.damaged}
        for label, entries in lists.items():
            lines += [f"{label} {what}: {reason}" for what, reason in entries[:LISTED]]
            lines += [f"... and {len(entries) - LISTED} more {label}"] if len(entries) > LISTED else []
        return "\n".join(lines)


def account_of_packs(plan: PreparePlan, records: Sequence[PackRecord], failed: Collection[int]) -> Account:
    """The account of a store that is not assembled yet, from its packs' records.

    Raises CountMismatchError naming a pack whose record holds other episodes than the plan.
    """
    planned = {pack.number: pack.ids for pack in plan.packs}
    for record in records:
        found = [episode.id for episode in record.episodes] + [name for name, _ in record.quarantined]
        expected = planned.pop(record.number, ())
        if sorted(found) != sorted(expected):
            wrong = sorted({*found} ^ {*expected}) or sorted(name for name in found if found.count(name) > 1)
            raise CountMismatchError(
                f"pack {record.number} accounts for {len(found)} of {len(expected)} planned episodes (first that "
                f"differs: {wrong[0]}); delete its files in staging and start again"
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
        raise CountMismatchError(f"{store.folder} lost {len(lost)} episodes ({lost[0]} first); prepare it again")
    files = (path for top in ("data", "meta", "videos") for path in (store.folder / top).rglob("*"))
    return Account(
        counted=plan.counted,
        prepared=len(store),
        frames=sum(store.lengths),
        bytes=sum(path.stat().st_size for path in files if path.is_file()),
        quarantined=store.quarantined,
    )
