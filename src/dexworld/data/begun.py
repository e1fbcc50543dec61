"""A folder goes on with the settings that it was begun with, or not at all; in the same words everywhere."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NAMED = 6  # differences that a message lists
LONGEST = 60  # characters of a value in a message


def check_begun_with(path: Path, found: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raise ValueError naming what differs between the settings that a folder's index holds and those of now.

    path: of the index. found: as JSON gave them. settings: of now; tuples compare equal to the lists that JSON has.
    """
    now = json.loads(json.dumps(dict(settings)))
    if found == now:
        return
    texts = _differences("", found, now)
    more = f" and {len(texts) - NAMED} more" if len(texts) > NAMED else ""
    raise ValueError(
        f"{path} was begun with other settings: {', '.join(texts[:NAMED])}{more}; choose another folder, "
        "or delete this one"
    )


def _differences(prefix: str, found: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`a.b was 1, now 2` for every value that differs, by name."""
    texts = []
    for name in sorted({*found, *now}):
        if name in found and name in now and found[name] == now[name]:
            continue
        if isinstance(found.get(name), dict) and isinstance(now.get(name), dict):
            texts += _differences(f"{prefix}{name}.", found[name], now[name])
        else:
            texts.append(f"{prefix}{name} was {_said(found, name)}, now {_said(now, name)}")
    return texts


def _said(settings: Mapping[str, Any], name: str) -> str:
    text = repr(settings[name]) if name in settings else "absent"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 4]} ..."
