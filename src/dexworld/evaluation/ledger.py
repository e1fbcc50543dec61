"""Results of a long evaluation, item by item, so that one that was stopped goes on where it was."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dexworld.data.files import check_same_settings
from dexworld.errors import naming
from dexworld.evaluation.results import plain


class Ledger:
    """Results by name in a file of JSON lines; the first line holds the settings that they belong to.

    A line that a killed process left unfinished is dropped. Raises ValueError where the file was begun with other
    settings, naming what differs, or where it is damaged.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path, self._found = path, dict[str, Any]()
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_bytes().split(b"\n") if path.exists() else []
        whole = b"".join(line + b"\n" for line in lines[:-1])
        if lines:
            os.truncate(path, len(whole))
        if not whole:
            self._append({"settings": plain(settings, "settings")})
            return
        for number, line in enumerate(lines[:-1]):
            try:
                content = json.loads(line)
                if number == 0:
                    check_same_settings(path, content["settings"], plain(settings, "settings"))
                else:
                    self._found[content["name"]] = content["result"]
            except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
                raise ValueError(f"{path}: line {number + 1} is damaged ({error}); delete the file") from error

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def __getitem__(self, name: str) -> Any:
        return self._found[name]

    def results(self) -> list[Any]:
        """All results, in the order in which they were added."""
        return list(self._found.values())

    def add(self, name: str, result: Any) -> None:
        """Keep the result of an item; ValueError naming a NaN or what JSON can't hold."""
        self._found[name] = plain(result, name)
        self._append({"name": name, "result": self._found[name]})

    def _append(self, content: dict[str, Any]) -> None:
        with naming(self.path), open(self.path, "ab") as file:
            file.write(json.dumps(content).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def results_in(path: Path) -> list[Any]:
    """All results of a ledger that was just written, in the order in which they were added."""
    return [json.loads(line)["result"] for line in path.read_text(encoding="utf-8").splitlines()[1:]]
