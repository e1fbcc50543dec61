"""Keeps a run in one file, which `dexworld prepare` takes among the files of a folder."""

from pathlib import Path
from threading import Lock
from typing import Any, Self

from dexworld_client.packing import packed


class Recorder:
    """A new file, `path` with the suffix `.run`, of messages: each its length, four bytes little-endian, and its bytes.

    The first is `run`: `fps` and facts, such as the task; then come frames and chunks. A file that ends too early is
    read as far as it goes. Several threads may write. Raises FileExistsError rather than write over a run.
    """

    def __init__(self, path: Path | str, fps: float = 5.0, **facts: Any) -> None:
        path = Path(path).with_suffix(".run")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.fps, self._file, self._lock = fps, path.open("xb", buffering=0), Lock()
        self.write(run={"fps": fps} | facts)

    def write(self, **message: Any) -> None:
        """Add a message of what `packed` takes."""
        data = packed(message)
        with self._lock:
            self._file.write(len(data).to_bytes(4, "little") + data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
