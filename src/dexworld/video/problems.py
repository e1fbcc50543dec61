"""What a validation reports: the problems, file by file, and what was counted."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: with which file, of which kind, in words, and what to do about it."""

    file: str
    kind: str
    message: str
    fix: str
    severity: Literal["error", "warning"] = "error"


@dataclass(frozen=True)
class ValidationReport:
    """All problems of a triplet folder. counts: totals. clips: figures of each clip by name."""

    root: Path
    problems: tuple[Problem, ...]
    counts: Mapping[str, Any]
    clips: Mapping[str, Any]

    @property
    def ok(self) -> bool:
        """Whether there is no error; warnings may remain."""
        return not self.errors

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that a model can't or mustn't train on."""
        return tuple(problem for problem in self.problems if problem.severity == "error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """The problems that the folder's owner should know of."""
        return tuple(problem for problem in self.problems if problem.severity == "warning")

    def of_kind(self, kind: str) -> tuple[Problem, ...]:
        """The problems of one kind."""
        return tuple(problem for problem in self.problems if problem.kind == kind)

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON values; file names relative to the root where they lie in it."""
        return {
            "ok": self.ok,
            "errors": len(self.errors),
            "warnings": len(self.warnings),
            "kinds": dict(Counter(problem.kind for problem in self.problems).most_common()),
            "counts": dict(self.counts),
            "problems": [asdict(problem) | {"file": self._short(problem.file)} for problem in self.problems],
            "clips": dict(self.clips),
        }

    def table(self, limit: int = 50) -> str:
        """Text for a terminal: the counts, then one line a problem, errors first; beyond `limit` only their number."""
        counts = self.counts
        lines = [
            f"{self.root}: {counts['clips']} clips, {counts['clips_with_errors']} with errors; "
            f"{len(self.errors)} errors, {len(self.warnings)} warnings",
            f"{counts['frames']} frames, {counts['frames_without_hands']} without a hand "
            f"(in {counts['clips_with_frames_without_hands']} clips)",
            *(f"shape {shape}: {count} clips" for shape, count in counts["shapes"].items()),
        ]
        rows = [
            (problem.severity, problem.kind, self._short(problem.file), f"{problem.message}; {problem.fix}")
            for problem in (*self.errors, *self.warnings)
        ]
        widths = [max((len(row[column]) for row in rows[:limit]), default=0) for column in range(3)]
        for row in rows[:limit]:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
            lines.append("  ".join([*cells, row[3]]))
        if len(rows) > limit:
            lines.append(f"... and {len(rows) - limit} more, all of them in the JSON report")
        return "\n".join(lines)

    def _short(self, file: str) -> str:
        path = Path(file)
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else file
