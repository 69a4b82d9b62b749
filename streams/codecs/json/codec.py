"""JSON: a record is a number, an evenly nested array of numbers, or an object of them."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from headrace.errors import FieldViolation, InvalidArgument
from headrace.v1 import error_pb2
from streams.codecs import BadRecord, Decoded, Rows, Spec
from streams.codecs.json.batch import Unlike, columns_of
from streams.codecs.json.record import BadJson, flat_names, parse, row_of, values_of
from streams.codecs.json.text import dumps
from streams.codecs.layout import Column, Layout, checked, object_of, parse_shape, row_shape, wrong_config
from streams.codecs.parts import PartsCodec
from streams.codecs.records import Records

TYPES = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
)  # fmt: skip
AUTO = "auto"
KEYS = ("type", "fields", "reshape", "shapes")
WHAT = {"data": "value", "label": "key (the label)"}


class JsonPart:
    """The form of the records (their fields, or that they have none) is that of the first good one, and stays."""

    def __init__(self, prefix: str, dtype: np.dtype[Any] | None, layout: Layout | None) -> None:
        """dtype: None for that of the first batch. layout: None for that of the first batch."""
        self._prefix = prefix
        self._dtype = dtype
        self._layout = layout

    @classmethod
    def from_config(cls, config: Mapping[str, str], prefix: str, bad: list[FieldViolation]) -> JsonPart:
        """Of `<prefix>_type`, `<prefix>_fields`, `<prefix>_reshape`, `<prefix>_shapes`."""
        dtype = _dtype(config, prefix, bad)
        return cls(prefix, dtype, _layout(config, prefix, dtype, bad))

    @property
    def layout(self) -> Layout:
        """With open lengths until the first batch came."""
        return self._layout or Layout((Column("", Spec(self._known_dtype, (-1,))),))

    @property
    def _known_dtype(self) -> np.dtype[Any]:
        return self._dtype if self._dtype is not None else np.dtype(np.int64)

    @property
    def config(self) -> dict[str, str]:
        config = {f"{self._prefix}_type": self._dtype.name if self._dtype is not None else AUTO}
        return config | (_layout_config(self._layout, self._prefix) if self._layout is not None else {})

    def settle(self, rows: Rows) -> None:
        if self._dtype is None:
            arrays = list(rows.values()) if isinstance(rows, Mapping) else [rows]
            self._dtype = np.result_type(*arrays)
        if self._layout is None or not self._layout.is_known:
            named = rows if isinstance(rows, Mapping) else {"": rows}
            names = [column.name for column in self._layout.columns] if self._layout is not None else list(named)
            if set(names) != set(named):
                raise InvalidArgument(
                    error_pb2.REASON_SCHEMA_MISMATCH,
                    f"the fields are {', '.join(named)}, where the records have {', '.join(names)}",
                )
            shapes = [row_shape(name, named[name]) for name in names]
            self._layout = _layout_of(names, shapes, self._dtype)

    def decode(self, records: Records) -> Decoded:
        self._decide(records)
        if self._layout is None or not self._layout.is_known:
            return self._decode_one_by_one(records)
        try:
            rows = self._layout.rows(columns_of(self._layout, records))
        except Unlike:
            return self._decode_one_by_one(records)
        return Decoded(rows, np.arange(len(records)), [])

    def _decode_one_by_one(self, records: Records) -> Decoded:
        """As soon as one record is unlike the others, to say which and why."""
        good, bad, found = [], [], []
        for index, record in enumerate(records):
            try:
                found.append(row_of(self.layout, record))
                good.append(index)
            except BadJson as error:
                what = WHAT[self._prefix]
                bad.append(BadRecord(index, f"it has no {what}" if record is None else f"its {what}: {error}"))
        if not good:
            return Decoded(self.layout.empty(), np.empty(0, np.int64), bad)
        arrays = [np.stack(column) for column in zip(*found, strict=True)]
        return Decoded(self.layout.rows(arrays), np.array(good, np.int64), bad)

    def _decide(self, records: Records) -> None:
        """What the configuration leaves open, by these records."""
        if self._dtype is not None and self._layout is not None and self._layout.is_known:
            return
        values = [value for record in records if (value := _parsed(record)) is not None]
        names = [column.name for column in self._layout.columns] if self._layout is not None else None
        if names is None:
            names = next((found for value in values if (found := flat_names(value))), None)
        forms = [found for value in values if names is not None and (found := values_of(value, names)) is not None]
        if not forms or names is None:
            return
        if self._dtype is None:
            whole = all(np.array(one).dtype.kind in "biu" for form in forms for one in form)
            self._dtype = np.dtype(np.int64 if whole else np.float32)
        shapes = _most_common([tuple(map(_shape, form)) for form in forms])
        known = [column.spec.shape if column.spec.is_known else None for column in self.layout.columns]
        if shapes is not None:
            if self._layout is not None:
                shapes = tuple(old if old is not None else new for old, new in zip(known, shapes, strict=True))
            self._layout = _layout_of(names, shapes, self._dtype)

    def encode(self, rows: Rows) -> list[bytes]:
        self.settle(rows)
        arrays = self.layout.split(rows)
        for column, array in zip(self.layout.columns, arrays, strict=True):
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                what = f"the field {column.name}" if column.name else "a row"
                raise InvalidArgument(
                    error_pb2.REASON_SCHEMA_MISMATCH, f"{what} has NaN or an infinity, which JSON cannot carry"
                )
        lists = [array.tolist() for array in arrays]
        if not self.layout.is_named:
            return list(map(dumps, lists[0]))
        form = object_of([column.name for column in self.layout.columns])
        return [dumps(form(row)) for row in zip(*lists, strict=True)]


def codec(config: Mapping[str, str]) -> PartsCodec:
    """Of `data_type` (float32), `data_fields`, `data_reshape`, `data_shapes`, and the same of labels.

    The records have labels where a `label_…` key is given: `label_type=auto` decides nothing but that. A label is
    int64 where all of the first batch are whole numbers, else float32.
    """
    bad: list[FieldViolation] = []
    samples = JsonPart.from_config(config, "data", bad)
    has_labels = any(config.get(f"label_{key}", "").strip() for key in KEYS)
    labels = JsonPart.from_config(config, "label", bad) if has_labels else None
    if bad:
        raise wrong_config("JSON", bad, known_types=", ".join(TYPES))
    return PartsCodec(samples, labels)


def inferred(samples: Rows, labels: Rows | None, config: Mapping[str, str]) -> dict[str, str]:
    """The types of such rows, where the configuration has none."""
    given = {"data": samples, "label": labels}
    found: dict[str, str] = {}
    for prefix, rows in given.items():
        if rows is not None and not config.get(f"{prefix}_type", "").strip():
            arrays = list(map(np.asarray, rows.values())) if isinstance(rows, Mapping) else [np.asarray(rows)]
            found[f"{prefix}_type"] = np.result_type(*arrays).name
    return found


def _dtype(config: Mapping[str, str], prefix: str, bad: list[FieldViolation]) -> np.dtype[Any] | None:
    name = config.get(f"{prefix}_type", "").strip() or ("float32" if prefix == "data" else AUTO)
    if name == AUTO and prefix == "label":
        return None
    aliases = {"half": "float16", "float": "float32", "double": "float64"}
    name = aliases.get(name, name)
    if name not in TYPES:
        bad.append(FieldViolation(f"{prefix}_type", f"{name!r} is unknown; the known types are {', '.join(TYPES)}"))
        return np.dtype(np.float32)
    return np.dtype(name)


def _layout(
    config: Mapping[str, str], prefix: str, dtype: np.dtype[Any] | None, bad: list[FieldViolation]
) -> Layout | None:
    """None where neither fields nor a shape are given."""
    try:
        names = _names(config.get(f"{prefix}_fields", ""))
    except ValueError as error:
        bad.append(FieldViolation(f"{prefix}_fields", str(error)))
        return None
    reshape, shapes = config.get(f"{prefix}_reshape", "").strip(), config.get(f"{prefix}_shapes", "").split()
    columns = names or [""]
    if reshape and len(columns) > 1:
        description = f"is for one field; give {prefix}_shapes, such as {' '.join(['-'] * len(columns))[:40]}"
        bad.append(FieldViolation(f"{prefix}_reshape", description))
        return None
    if shapes and len(shapes) != len(columns):
        description = f"there are {len(shapes)} shapes for {len(columns)} fields"
        bad.append(FieldViolation(f"{prefix}_shapes", description))
        return None
    if not names and not reshape and not shapes:
        return None
    try:
        texts = [(reshape, " ")] if reshape else [(text, "x") for text in shapes]
        found = [parse_shape(*text) for text in texts] or [(-1,)] * len(columns)
        return checked(_layout_of(columns, found, dtype if dtype is not None else np.dtype(np.int64)))
    except ValueError as error:
        bad.append(FieldViolation(f"{prefix}_{'reshape' if reshape else 'shapes'}", str(error)))
        return None


def _names(text: str) -> list[str]:
    """Separated by blanks; or a JSON array, for names that have blanks themselves. Raises ValueError."""
    if not text.lstrip().startswith("["):
        names = text.split()
    else:
        try:
            names = json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError("it begins with a bracket, but is no JSON array of names") from None
        if not all(isinstance(name, str) and name for name in names):
            raise ValueError("the names must be texts")
    if len(set(names)) < len(names):
        raise ValueError("a name is there twice")
    prefixes = {name[:at] for name in names for at, letter in enumerate(name) if letter == "."}
    if prefixes & set(names):
        raise ValueError(f"{sorted(prefixes & set(names))[0]} is both a field and an object of fields")
    if len(names) > 4096:
        raise ValueError("there are more than 4096 names")
    return names


def _layout_of(names: Sequence[str], shapes: Sequence[tuple[int, ...]], dtype: np.dtype[Any]) -> Layout:
    return Layout(tuple(Column(name, Spec(dtype, shape)) for name, shape in zip(names, shapes, strict=True)))


def _layout_config(layout: Layout, prefix: str) -> dict[str, str]:
    names = [column.name for column in layout.columns] if layout.is_named else []
    blanks = any(name.split() != [name] or name.startswith("[") for name in names)
    config = {f"{prefix}_fields": json.dumps(names) if blanks else " ".join(names)} if names else {}
    if not layout.is_known:
        return config
    shapes = [column.spec.shape for column in layout.columns]
    if len(shapes) == 1:
        return config | {f"{prefix}_reshape": " ".join(map(str, shapes[0])) or "-"}
    return config | {f"{prefix}_shapes": " ".join("x".join(map(str, shape)) or "-" for shape in shapes)}


def _parsed(record: bytes | None) -> Any:
    try:
        return parse(record)
    except BadJson:
        return None


def _shape(value: Any) -> tuple[int, ...]:
    """Of an evenly nested array, by its first items."""
    shape: list[int] = []
    while isinstance(value, list) and len(shape) < 33:
        shape.append(len(value))
        value = value[0] if value else 0
    return tuple(shape)


def _most_common(shapes: list[tuple[tuple[int, ...], ...]]) -> tuple[tuple[int, ...], ...] | None:
    counts = Counter(form for form in shapes if all(len(one) <= 32 and math.prod(one) > 0 for one in form))
    return max(counts, key=counts.__getitem__) if counts else None
