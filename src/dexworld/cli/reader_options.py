"""Options of the readers on the command line: `--reader egodex.split=test` or `--reader options.json`."""

import json
from pathlib import Path
from typing import Any

from dexworld.data.files import read_json
from dexworld.data.readers import ReaderOptions
from dexworld.options import from_dict


def reader_options(settings: tuple[str, ...]) -> ReaderOptions:
    """Options of the readers, from settings of two kinds, later ones over earlier ones.

    LAYOUT.FIELD=VALUE, or LAYOUT.FIELD.FIELD=VALUE (droid.hand.style=official): the value as JSON or as plain text,
    lists also separated by commas. FILE.json: an object {LAYOUT: {FIELD: VALUE}}. Raises ValueError naming the setting
    that does not exist or does not fit, and what there is.
    """
    chosen: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        *groups, field = name.split(".")
        if equals and groups:
            place = chosen
            for group in groups:
                place = place.setdefault(group, {})
                if not isinstance(place, dict):
                    raise ValueError(f"reader option {setting!r}: {group} is set as a whole already")
            place[field.replace("-", "_")] = _value(text)
        elif setting.endswith(".json"):
            for key, values in read_json(Path(setting)).items():
                if not isinstance(values, dict):
                    raise ValueError(f"{setting}: {key} must be an object of options")
                chosen.setdefault(key, {}).update(values)
        else:
            raise ValueError(f"reader option {setting!r} must be LAYOUT.FIELD=VALUE (egodex.split=test) or a .json")
    return from_dict(ReaderOptions, chosen, "reader")


def _value(text: str) -> Any:
    for candidate in (text, f"[{text}]" if "," in text else ""):
        try:
            return json.loads(candidate)
        except json.JSONDecodeError:
            continue
    return text
