"""What a server counts, as Prometheus' text format and as JSON."""

import threading
from collections import Counter, deque
from typing import Any

import numpy as np

_KEPT = 1000  # latest answers that quantiles are of
_QUANTILES = (0.5, 0.99)


class ServerMetrics:
    """Counts events and times answers; several threads may use it at once."""

    def __init__(self, name: str) -> None:
        self.name, self.counts, self.sessions = name, Counter[str](), 0
        self._seconds: deque[float] = deque(maxlen=_KEPT)
        self._total, self._lock = 0.0, threading.Lock()

    def count(self, event: str, number: int = 1) -> None:
        """Add to the count of an event."""
        with self._lock:
            self.counts[event] += number

    def answered(self, seconds: float) -> None:
        """One more answer that took so long."""
        with self._lock:
            self.counts["answers"] += 1
            self._seconds.append(seconds)
            self._total += seconds

    def latency(self) -> dict[str, Any]:
        """Answers so far, and seconds of the latest thousand by quantile; null before the first."""
        with self._lock:
            seconds = list(self._seconds)
            answers = self.counts["answers"]
        found = np.quantile(seconds, _QUANTILES).tolist() if seconds else [None] * len(_QUANTILES)
        return {"answers": answers} | {
            f"p{100 * each:g}_s": value for each, value in zip(_QUANTILES, found, strict=True)
        }

    def prometheus(self) -> str:
        """The metrics in Prometheus' text format, version 0.0.4."""
        latency, prefix = self.latency(), f"dexworld_{self.name}"
        with self._lock:
            counts, total = sorted(self.counts.items()), self._total
        lines = [f"# TYPE {prefix}_events_total counter"]
        lines += [f'{prefix}_events_total{{event="{event}"}} {number}' for event, number in counts]
        lines += [f"# TYPE {prefix}_sessions gauge", f"{prefix}_sessions {self.sessions}"]
        lines += [f"# TYPE {prefix}_answer_seconds summary"]
        for each in _QUANTILES if latency["answers"] else ():
            lines.append(f'{prefix}_answer_seconds{{quantile="{each}"}} {latency[f"p{100 * each:g}_s"]}')
        lines += [f"{prefix}_answer_seconds_sum {total}", f"{prefix}_answer_seconds_count {latency['answers']}"]
        return "\n".join(lines) + "\n"
