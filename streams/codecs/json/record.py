"""One JSON record, strictly: what makes it a row, or why it is none."""

from __future__ import annotations

import json
import math
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from streams.codecs import Array, Spec
from streams.codecs.layout import MAX_FIELDS, Layout

MAX_RECORD_BYTES = 2**20
MAX_DEPTH = 64


class BadJson(ValueError):
    """The record is no row; the text says why."""


def parse(record: bytes | None) -> Any:
    """Raises BadJson for what is no JSON, too long, nested too deeply, or has NaN or a name twice."""
    if record is None:
        raise BadJson("it is missing")
    if len(record) > MAX_RECORD_BYTES:
        raise BadJson(f"it has {len(record)} bytes; JSON records may have {MAX_RECORD_BYTES}")
    if _depth(record) > MAX_DEPTH:
        raise BadJson(f"it is nested more than {MAX_DEPTH} deep")
    if record.startswith(BOM_UTF8):
        raise BadJson("it begins with a byte order mark, which JSON has none of; write UTF-8 without it")
    try:
        return _DECODE(record.decode())
    except BadJson:
        raise
    except (ValueError, RecursionError) as error:
        raise BadJson(f"it is no JSON: {str(error)[:200]}") from None


def row_of(layout: Layout, record: bytes | None) -> list[Array]:
    """The record's values in the layout's types and shapes. Raises BadJson."""
    value = parse(record)
    if not layout.is_named:
        if isinstance(value, dict):
            raise BadJson("it is an object, where others are numbers or arrays")
        return [_numbers("it", value, layout.columns[0].spec)]
    names = [column.name for column in layout.columns]
    found = dict(_leaves(value)) if isinstance(value, dict) else None
    if found is None:
        raise BadJson(f"it is no object with the fields {_some(names)}")
    if missing := [name for name in names if name not in found]:
        raise BadJson(f"it lacks the fields {_some(missing)}")
    if extra := [name for name in found if name not in set(names)]:
        raise BadJson(f"it has the unknown fields {_some(extra)}")
    return [_numbers(f"the field {column.name}", found[column.name], column.spec) for column in layout.columns]


def flat_names(value: Any) -> list[str] | None:
    """The fields of an object, those of objects in it joined by dots; [""] for numbers and arrays; None for others."""
    if not isinstance(value, dict):
        return [""] if isinstance(value, (int, float, list)) else None
    try:
        names = [name for name, _ in _leaves(value)]
    except BadJson:
        return None
    return names if names and len(names) <= MAX_FIELDS and "" not in names else None


def values_of(value: Any, names: Sequence[str]) -> list[Any] | None:
    """The values of these fields; None where it has other ones, or what is no number."""
    try:
        found = dict(_leaves(value)) if isinstance(value, dict) else {"": value}
        if set(found) != set(names):
            return None
        return [_checked(name, found[name]) for name in names]
    except BadJson:
        return None


def _leaves(value: dict[str, Any], path: str | None = None) -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if "." in key:
            raise BadJson(f"the name {key[:100]!r} has a dot, which stands between the names of objects in objects")
        name = key if path is None else f"{path}.{key}"  # a key may be empty
        if isinstance(inner, dict):
            yield from _leaves(inner, name)
        else:
            yield name, inner


def _numbers(what: str, value: Any, spec: Spec) -> Array:
    """The value in the spec's type and shape."""
    array = _exact(what, _checked(what, value), spec)
    if not spec.is_known:
        raise BadJson(f"{what} is empty, or unlike the others")
    if not may_become(array.shape, spec.shape):
        raise BadJson(f"{what} has the shape {array.shape}, where others have {spec.shape}")
    return array.reshape(spec.shape)


def may_become(given: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """A flat array may stand for a nested one, and the other way round."""
    return given == wanted or (
        1 in (len(given), len(wanted)) and min(len(given), len(wanted)) > 0 and math.prod(given) == math.prod(wanted)
    )


def _exact(what: str, value: Any, spec: Spec) -> Array:
    """Through Python's own numbers, which lose nothing."""
    given = np.array(value, object)
    flat = given.reshape(-1).tolist()
    if spec.dtype.kind in "iub":
        low, high = (0, 1) if spec.dtype.kind == "b" else (np.iinfo(spec.dtype).min, np.iinfo(spec.dtype).max)
        for number in flat:
            if (
                number != number
                or number in (math.inf, -math.inf)
                or int(number) != number
                or not low <= number <= high
            ):
                raise BadJson(f"{what[:100]} has {str(number)[:40]}, which {spec.dtype.name} cannot hold")
        return np.array(list(map(int, flat)), spec.dtype).reshape(given.shape)
    try:
        with np.errstate(over="ignore"):
            array = np.array(list(map(float, flat)), np.float64).astype(spec.dtype)
    except OverflowError:
        array = np.array([np.inf])
    if not np.isfinite(array).all():
        raise BadJson(f"{what} has a number that {spec.dtype.name} cannot hold")
    return array.reshape(given.shape)


def _checked(what: str, value: Any) -> Any:
    """A number, or an evenly nested array of them."""
    if isinstance(value, (bool, int, float)):
        return value
    if not isinstance(value, list):
        kinds = {str: "a text", dict: "an object", type(None): "null"}
        raise BadJson(f"{what} is {kinds[type(value)]}, where a number or an array of numbers belongs")
    level = [value]
    for _ in range(MAX_DEPTH):
        if len(set(map(len, level))) > 1:
            raise BadJson(f"{what} is unevenly nested")
        items = [item for one in level for item in one]
        kinds_found = set(map(type, items))
        if kinds_found <= {bool, int, float}:
            return value
        if kinds_found != {list}:
            raise BadJson(
                f"{what} has other things than numbers in it: {_some(sorted(k.__name__ for k in kinds_found))}"
            )
        level = items
    raise BadJson(f"{what} is nested too deeply")


def _depth(record: bytes) -> int:
    """How deep brackets are nested; those in names count too."""
    if record.count(b"[") + record.count(b"{") <= MAX_DEPTH:
        return 0
    data = np.frombuffer(record, np.uint8)
    opening = (data == ord("[")) | (data == ord("{"))
    closing = (data == ord("]")) | (data == ord("}"))
    return int((opening.astype(np.int64) - closing).cumsum().max(initial=0))


def _some(names: Sequence[str]) -> str:
    text = ", ".join(name[:60] for name in names[:5])
    return text + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise BadJson(f"the name {next(name for name in names if names.count(name) > 1)[:60]} is there twice")
    return found


def _refuse(constant: str) -> Any:
    raise BadJson(f"it has {constant}, which is no JSON")


_DECODE = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse).decode
