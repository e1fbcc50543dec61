"""Options of the readers on the command line: `--reader egodex.split=test` or `--reader options.json`."""

import json
import types
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from dexworld.data.files import read_json
from dexworld.data.readers import ReaderOptions


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
    return _made(ReaderOptions, chosen, "reader")


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _made(kind: Any, values: dict[str, Any], where: str) -> Any:
    """A dataclass from a mapping of its fields."""
    hints, known = get_type_hints(kind), [each.name for each in fields(kind)]
    for name in values:
        if name not in known:
            raise ValueError(f"{where}.{name} doesn't exist; {where} has {', '.join(known)}")
    return kind(**{name: _fitted(hints[name], value, f"{where}.{name}") for name, value in values.items()})


def _fitted(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type `hint` asks for it; ValueError when it can't be that."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        return _fitted(next(each for each in inner if each is not type(None)), value, where)
    if origin is Literal and value in inner:
        return value
    if origin is tuple:
        items = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
        kinds = [inner[0]] * len(items) if inner[-1] is Ellipsis else inner
        if len(items) == len(kinds):
            return tuple(_fitted(kind, item, where) for kind, item in zip(kinds, items, strict=True))
    elif is_dataclass(hint) and isinstance(value, dict):
        return _made(hint, value, where)
    elif hint in (str, Path) and isinstance(value, str | int | float):
        return hint(value)
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif isinstance(hint, type) and type(value) is hint:
        return value
    wanted = f"one of {', '.join(map(str, inner))}" if origin is Literal else getattr(hint, "__name__", str(hint))
    raise ValueError(f"{where} is {value!r}; it must be {wanted}")
