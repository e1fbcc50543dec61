"""Which frames of a clip make a window: strategies at the level of frame numbers, vectorised, without state.

A window has F slots. Its leading `repeats` slots hold the frame of the slot behind them (a hand that has not moved
yet). Randomness comes in as numbers in [0, 1) (`uniforms`): a window is a pure function of the seed and its number.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

Uniforms = Callable[[int], np.ndarray]  # columns n -> (B, n) float64 in [0, 1), the same ones for the same n
_GOLDEN = 0x9E3779B97F4A7C15


def uniforms(seed: int, numbers: np.ndarray, columns: int, stream: int = 0) -> np.ndarray:
    """(B, columns) float64 in [0, 1): row i is a pure function of (seed, numbers[i], stream), whatever else is asked.

    A counter goes through the SplitMix64 finaliser (Steele, Lea and Flood 2014), three rounds deep.
    """
    key = _mix(np.array([seed], dtype=np.uint64) * np.uint64(_GOLDEN) + np.uint64(stream + 1))
    rows = _mix(key + np.asarray(numbers, dtype=np.uint64) * np.uint64(_GOLDEN))
    counters = (np.arange(columns, dtype=np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN)
    return (_mix(rows[:, None] + counters) >> np.uint64(11)) * 2.0**-53


def _mix(values: np.ndarray) -> np.ndarray:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@dataclass(frozen=True)
class Drawn:
    """Frames of B windows: frames (B, F) int64 numbers within their clip, in the order of time.

    repeats: (B,) leading slots that hold the frame of the slot behind them. stride: (B,) steps from one slot to the
    next in units of the strategy, 0 where the gaps differ.
    """

    frames: np.ndarray
    repeats: np.ndarray
    stride: np.ndarray


class PartStrategy(Protocol):
    """A strategy that cuts a clip into parts and draws one window of F = `frames` slots from each part in an epoch."""

    @property
    def frames(self) -> int:
        """F, the slots of a window."""

    def parts(self, lengths: np.ndarray, fps: np.ndarray) -> np.ndarray:
        """How many windows (E,) an epoch draws from clips of these lengths; 0 leaves a clip out as too short."""

    def draw(self, lengths: np.ndarray, fps: np.ndarray, part: np.ndarray, random: Uniforms) -> Drawn:
        """Windows of clips of `lengths` (B,) frames at `fps` (B,), from part `part` (B,) of each."""


@dataclass(frozen=True)
class PaperSampling:
    """The paper's windows: a target in each of ten equal segments, after frames at random gaps (section 4.1).

    The last slot's frame is uniform in its segment; the slots before it are distinct frames, drawn at random from the
    `seconds` before it and sorted. Near the clip's beginning, the history repeats its first frame.

    frames: slots F, observed and predicted together. history: slots that repeats may fill.
    lead: at least so many repeats in every window (history - 1: all start from a single frame, as planning does).
    """

    frames: int = 9
    history: int = 8
    seconds: float = 4.0
    segments: int = 10
    lead: int = 0

    def __post_init__(self) -> None:
        _check_history(self.frames, self.history)
        if not (self.seconds > 0 and self.segments >= 1):
            raise ValueError(f"seconds and segments must be positive, not {self.seconds} and {self.segments}")
        if not 0 <= self.lead < self.history:
            raise ValueError(f"lead is {self.lead}; it must lie between 0 and history - 1 = {self.history - 1}")

    def parts(self, lengths: np.ndarray, fps: np.ndarray) -> np.ndarray:
        """As many windows (E,) as segments, of clips with two frames or more."""
        return np.where(np.asarray(lengths) >= 2, self.segments, 0)  # a single frame is no window

    def draw(self, lengths: np.ndarray, fps: np.ndarray, part: np.ndarray, random: Uniforms) -> Drawn:
        """A window whose target lies in the given segment of each clip; see `PartStrategy.draw`."""
        reach = np.maximum(np.round(self.seconds * fps).astype(int), 1)
        chance = random(3 + int(reach.max()))  # columns 1 and 2 are free
        last = np.floor((part + chance[:, 0]) * lengths / self.segments).astype(int)
        # Something has to move: a window that is all repeats would teach nothing.
        last = np.minimum(np.maximum(last, self.frames - self.history), lengths - 1)
        available = np.minimum(last, reach)
        kept = np.minimum(self.frames - 1 - self.lead, available)
        chosen = _sorted_subset(last - available, available, kept, chance[:, 3:], self.frames - 1, last)
        repeats = np.minimum(self.frames - 1 - kept, self.history - 1)
        return Drawn(_with_repeats(chosen, last, repeats), repeats, np.zeros(len(last), dtype=int))


@dataclass(frozen=True)
class OfficialSampling:
    """The released code's windows, its edges included, to compare with models trained by it.

    Departures from the paper: ten overlapping 4-second anchors instead of ten segments; frames before the beginning are
    clipped to frame 0 (11 % of all frames at EgoDex's mean length of 265) and count as "no action, no change"; clips no
    longer than the reach use its largest multiple of one eighth. Only the random numbers differ from the release's.

    whole_clip: the multistep phase: one window per clip per epoch, of frames anywhere in it, ending with its last.
    lead: leading slots that repeat the first frame (the multistep phase: num_context - 1).
    """

    frames: int = 9
    seconds: float = 4.0
    anchors: int = 10
    whole_clip: bool = False
    lead: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.lead < self.frames - 1:
            raise ValueError(f"lead is {self.lead}; it must lie between 0 and frames - 2 = {self.frames - 2}")
        if not (self.seconds > 0 and self.anchors >= 1):
            raise ValueError(f"seconds and anchors must be positive, not {self.seconds} and {self.anchors}")

    def parts(self, lengths: np.ndarray, fps: np.ndarray) -> np.ndarray:
        """As many windows (E,) as anchors, or one of a whole clip."""
        return np.where(np.asarray(lengths) >= 2, 1 if self.whole_clip else self.anchors, 0)

    def draw(self, lengths: np.ndarray, fps: np.ndarray, part: np.ndarray, random: Uniforms) -> Drawn:
        """A window before an anchor of each clip, or over all of it; see `PartStrategy.draw`."""
        before = self.frames - 1 - self.lead
        if self.whole_clip:
            last, reach = lengths - 1, lengths - 1
            chance = random(1 + int(reach.max()))
        else:
            reach = np.round(self.seconds * fps).astype(int)
            chance = random(1 + int(reach.max()))
            share = (part + 1) / self.anchors
            earliest = np.floor(reach + share * (lengths - reach)).astype(int) - 1 - reach
            last = earliest + np.floor(chance[:, 0] * reach).astype(int)
            short = np.floor(np.floor((lengths - 1) / (reach / before)) * (reach / before)).astype(int)
            last, reach = np.where(lengths > reach, last, short), np.where(lengths > reach, reach, short)
        kept = np.minimum(before, reach)
        chosen = _sorted_subset(last - reach, reach, kept, chance[:, 1:], self.frames - 1, last)
        frames = np.clip(_with_repeats(chosen, last, self.frames - 1 - kept), 0, lengths[:, None] - 1)
        repeats = np.full(len(last), self.lead)  # only what the release itself leaves out of its loss
        return Drawn(frames, repeats, np.zeros(len(last), dtype=int))


class EveryFrame:
    """Windows of one frame; an epoch brings every frame of every clip once."""

    frames = 1

    def parts(self, lengths: np.ndarray, fps: np.ndarray) -> np.ndarray:
        """As many windows (E,) as frames."""
        return np.asarray(lengths)

    def draw(self, lengths: np.ndarray, fps: np.ndarray, part: np.ndarray, random: Uniforms) -> Drawn:
        """The frames with the given numbers; nothing is random."""
        nothing = np.zeros(len(part), dtype=int)
        return Drawn(np.asarray(part)[:, None], nothing, nothing)


@dataclass(frozen=True)
class StrideSampling:
    """Windows at a constant stride, drawn with replacement: the time step of a window is the one that planning uses.

    Departure from the paper and the release. Frames are drawn by weight: a clip of twice the length gives twice the
    windows.

    frames, history: as in `PaperSampling`; the slots behind the history are always different frames.
    short_history: fraction of windows whose history is partly repeats anyhow (uniformly 1 to history - 1 of them).
    stride_weights: relative frequency of strides 1, 2, ... in steps of 1 / rate_hz seconds.
    moving_object_weight: extra weight of frames in which an object moves; 3 draws them four times as often.
    rate_hz: the base step; with 5, data of 30, 15 and 5 frames per second give windows of the same times. None counts
        in stored frames, whatever their rate.
    """

    frames: int = 8
    history: int = 4
    stride_weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 2.0, 1.0, 1.0, 1.0)
    short_history: float = 0.4
    moving_object_weight: float = 0.0
    rate_hz: float | None = None

    def __post_init__(self) -> None:
        _check_history(self.frames, self.history)
        if not 0.0 <= self.short_history <= 1.0:
            raise ValueError(f"short_history is {self.short_history}; it is a fraction between 0 and 1")
        weights = np.asarray(self.stride_weights, dtype=float)
        if not weights.size or not np.isfinite(weights).all() or (weights < 0).any() or not weights.sum() > 0:
            raise ValueError(f"stride_weights is {self.stride_weights}; give non-negative numbers, not all zero")
        if not 0.0 <= self.moving_object_weight < float("inf"):
            raise ValueError(f"moving_object_weight is {self.moving_object_weight}; it must be 0 or more")
        if self.rate_hz is not None and not self.rate_hz > 0:
            raise ValueError(f"rate_hz is {self.rate_hz}; it must be positive, or None")

    def base(self, fps: np.ndarray) -> np.ndarray:
        """Stored frames of one base step, for clips at `fps` (E,). Raises ValueError for clips slower than it."""
        if self.rate_hz is None:
            return np.ones(len(fps))
        base = np.asarray(fps, dtype=float) / self.rate_hz
        if (base < 1.0 - 1e-9).any():
            raise ValueError(f"clips of {np.min(fps):g} frames per second give no steps of {self.rate_hz:g} Hz")
        return base

    def place(
        self,
        lengths: np.ndarray,
        fps: np.ndarray,
        anchor: np.ndarray,
        stride: np.ndarray,
        repeats: np.ndarray,
        slot: np.ndarray,
    ) -> Drawn:
        """Windows around frame `anchor` (B,) of their clips, shifted into them.

        stride, repeats: (B,) as drawn. slot: (B,) in [0, 1), the place of the anchor among the moving slots. A window
        too long for its clip first repeats its first frame, up to the whole history, then takes a shorter stride.
        """
        base = self.base(fps)
        transitions = np.floor((lengths - 1) / (stride * base)).astype(int)
        repeats = np.clip(self.frames - 1 - transitions, repeats, self.history - 1)
        moving = self.frames - 1 - repeats
        stride = np.minimum(stride, np.maximum(np.floor((lengths - 1) / (moving * base)).astype(int), 1))
        step = stride * base
        before = np.round(np.floor(slot * (moving + 1)) * step).astype(int)
        span = np.round(moving * step).astype(int)
        first = np.clip(anchor - before, 0, np.maximum(lengths - 1 - span, 0))
        slots = np.maximum(np.arange(self.frames) - repeats[:, None], 0)
        # Clips shorter than a window end in repeats of their last frame.
        frames = np.minimum(first[:, None] + np.round(slots * step[:, None]).astype(int), lengths[:, None] - 1)
        return Drawn(frames, repeats, stride)


def _check_history(frames: int, history: int) -> None:
    """Raise ValueError when a window of `frames` slots can't have `history` slots to repeat into."""
    if not 1 <= history < frames:
        raise ValueError(f"history is {history}; it must lie between 1 and frames - 1 = {frames - 1}")


def _sorted_subset(
    lowest: np.ndarray, available: np.ndarray, kept: np.ndarray, keys: np.ndarray, width: int, rest: np.ndarray
) -> np.ndarray:
    """(B, width): `kept` distinct ones of the `available` numbers from `lowest` on, sorted, then `rest`.

    keys: (B, at least max(available)) random numbers, one per candidate: the smallest are taken.
    """
    candidates = np.arange(keys.shape[1])
    keys = np.where(candidates < available[:, None], keys, 2.0)
    order = np.argsort(keys, axis=1, kind="stable")[:, :width]
    order = np.pad(order, ((0, 0), (0, width - order.shape[1])))
    taken = np.arange(width) < kept[:, None]
    numbers = np.where(taken, lowest[:, None] + order, np.iinfo(np.int64).max)
    return np.where(taken, np.sort(numbers, axis=1), rest[:, None])


def _with_repeats(chosen: np.ndarray, last: np.ndarray, repeats: np.ndarray) -> np.ndarray:
    """(B, F) frames: `repeats` copies of the first, the chosen ones, then `last` (more than once if there are few)."""
    sequence = np.concatenate([chosen, last[:, None]], axis=1)
    places = np.clip(np.arange(sequence.shape[1]) - repeats[:, None], 0, None)
    return np.take_along_axis(sequence, places, axis=1)
