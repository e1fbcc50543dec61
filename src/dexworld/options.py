"""What JSON files and command lines hold: frozen dataclasses out of nested mappings, and indices."""

import types
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def from_dict(cls: Any, values: dict[str, Any], where: str = "config") -> Any:
    """A dataclass `cls` from a mapping of its fields, nested as `dataclasses.asdict` nests them; lists become tuples.

    Fields that are absent keep their default. Raises ValueError naming fields that are unknown or of the wrong kind.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{where} should hold values by name, not a {type(values).__name__}")
    hints, known = get_type_hints(cls), [each.name for each in fields(cls)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"{where} has unknown fields {', '.join(unknown)}; {cls.__name__} knows {', '.join(known)}")
    missing = [each.name for each in fields(cls) if _required(each) and each.name not in values]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}")
    return cls(**{name: _as(hints[name], value, f"{where}.{name}") for name, value in values.items()})


def check_index(what: str, index: int, count: int, where: str) -> None:
    """Raises ValueError naming what there is, unless 0 <= index < count."""
    if not 0 <= index < count:
        raise ValueError(f"there is no {what} {index} in {where}: it holds {what}s 0 to {count - 1}")


def _required(each: Field) -> bool:
    return each.default is MISSING and each.default_factory is MISSING


def _as(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type `hint` asks for it. A text may list a tuple's items, separated by commas."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        return _as(next(each for each in inner if each is not type(None)), value, where)
    if origin is Literal:
        if value in inner:
            return value
        raise ValueError(f"{where} is {value!r}; choose {' or '.join(map(repr, inner))}")
    if origin is tuple:
        items = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
        kinds = [inner[0]] * len(items) if inner[-1] is Ellipsis else inner
        if len(items) == len(kinds):
            return tuple(_as(kind, item, where) for kind, item in zip(kinds, items, strict=True))
    elif is_dataclass(hint) and isinstance(value, dict):
        return from_dict(hint, value, where)
    elif hint in (str, Path) and isinstance(value, str | int | float):
        return hint(value)
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif not isinstance(hint, type) or type(value) is hint:  # what isn't a plain type is left to the class
        return value
    raise ValueError(f"{where} is {value!r}; it must be {getattr(hint, '__name__', hint)}")
