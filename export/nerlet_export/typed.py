"""Values out of TOML and JSON, held against the annotations of the dataclass they are for."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from nerlet.errors import InputError

Bounds = Mapping[str, tuple[float, float]]  # key -> least and largest value
_Kind = TypeVar("_Kind")
_NAMES: dict[object, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
}


def build(kind: type[_Kind], values: Mapping[str, Any], bounds: Bounds) -> _Kind:
    """Make a dataclass of a table; lists become tuples, and texts paths, where it has those.

    Args:
        kind: The dataclass.
        values: The table.
        bounds: Of its numbers.

    Raises:
        InputError: A key is unknown or missing, or `check_values` refuses a value.
    """
    known = {item.name: item for item in fields(kind)}  # type: ignore[arg-type]  # dataclasses only
    unknown = sorted(values.keys() - known)
    if unknown:
        raise InputError(f"unknown key {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    needed = {
        name for name, item in known.items() if item.default is item.default_factory is MISSING
    }
    missing = sorted(needed - values.keys())
    if missing:
        raise InputError(f"{', '.join(missing)} is missing")
    check_values(kind, values, bounds)
    hints = get_type_hints(kind)
    return kind(**{name: _shape(value, hints[name]) for name, value in values.items()})


def check_values(kind: type, values: Mapping[str, Any], bounds: Bounds) -> None:
    """Check values against the annotations of a dataclass and the bounds of its numbers.

    Raises:
        InputError: A value has another type or is out of bounds; names key, value and what was
            expected.
    """
    hints = get_type_hints(kind)
    for name, value in values.items():
        low, high = bounds.get(name, (-math.inf, math.inf))
        if not _fits(value, hints[name]) or (name in bounds and not low <= value <= high):
            raise InputError(f"{name} is {value!r}, expected {_describe(hints[name], low, high)}")


def _fits(value: object, hint: Any) -> bool:  # noqa: ANN401  (an annotation)
    """Whether a value is what an annotation says; no number is a bool, infinite or NaN."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if hint in (int, float):
        is_number = isinstance(value, int if hint is int else Real) and not isinstance(value, bool)
        return is_number and math.isfinite(value)  # type: ignore[arg-type]  # a number
    if origin is tuple:
        return isinstance(value, list | tuple) and all(_fits(item, inner[0]) for item in value)
    if origin is not None:
        return isinstance(value, Mapping) and all(_fits(v, inner[1]) for v in value.values())
    return isinstance(value, str | Path if hint is Path else hint)


def _shape(value: Any, hint: object) -> Any:  # noqa: ANN401  (a value of any type)
    if hint is Path:
        return Path(value)
    return tuple(value) if get_origin(hint) is tuple else value


def _describe(hint: Any, low: float, high: float) -> str:  # noqa: ANN401  (an annotation)
    origin, inner = get_origin(hint), get_args(hint)
    if origin is tuple:
        return f"a list, each item {_NAMES[inner[0]]}"
    if origin is not None:
        return f"a table, each value {_NAMES[inner[1]]}" if inner[1] in _NAMES else "a table"
    name = _NAMES.get(hint, "a table")
    if math.isfinite(high):
        return f"{name} from {low:g} to {high:g}"
    return f"{name} of at least {low:g}" if math.isfinite(low) else name
