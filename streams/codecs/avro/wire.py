"""The wire format of schema registries: a zero byte and the id of the schema before each Avro record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from headrace.errors import FieldViolation, InvalidArgument
from headrace.v1 import error_pb2
from streams.codecs import Array, BadRecord, Decoded, Rows, Spec
from streams.codecs.avro import nulls
from streams.codecs.avro.part import WHAT, AvroPart, configured
from streams.codecs.avro.reader import AvroReader
from streams.codecs.avro.registry import Registered, Registry, UnknownSchema, checked_url
from streams.codecs.avro.schema import Leaf, SchemaError, parse
from streams.codecs.layout import Column, Layout, shapes_config, wrong_config
from streams.codecs.records import Records, sizes_of

HEADER_BYTES = 5
MAX_ID = 2**32 - 1
KEYS = ("wire_format", "registry_url", "data_subject", "label_subject", "data_schema_id", "label_schema_id")
# What a number of one type may become without a loss that Avro's own rules do not allow.
_PROMOTIONS = {"int": {"long", "float", "double"}, "long": {"float", "double"}, "float": {"double"}}


@dataclass(frozen=True)
class Wire:
    """has_header: whether records begin with an id. registry: where ids are looked up; None: they are not."""

    has_header: bool
    registry: Registry | None

    @classmethod
    def of(cls, config: Mapping[str, str], bad: list[FieldViolation]) -> Wire:
        """Of `wire_format` (`plain`, `registry`) and `registry_url`."""
        url = config.get("registry_url", "").strip()
        try:
            registry = Registry(checked_url(url)) if url else None
        except ValueError as error:
            bad.append(FieldViolation("registry_url", str(error)))
            registry = None
        known = ("registry",) if url else ("plain", "registry")
        given = config.get("wire_format", "").strip() or known[0]
        if given not in known:
            description = f"{given!r} is unknown here; the known formats are {', '.join(known)}"
            bad.append(FieldViolation("wire_format", description))
        return cls(given == "registry", registry)


def has_labels(config: Mapping[str, str]) -> bool:
    """Where there is a schema for them."""
    return any(config.get(key, "").strip() for key in ("label_scheme", "label_subject"))


def part(
    wire: Wire, config: Mapping[str, str], prefix: str, bad: list[FieldViolation]
) -> AvroPart | HeaderPart | RegistryPart | None:
    """The samples' part or the labels'. None where the configuration is wrong; then `bad` says how."""
    text = config.get(f"{prefix}_scheme", "").strip()
    inner = AvroPart.from_config(config, prefix, bad) if text or wire.registry is None else None
    if wire.registry is not None:
        problems = len(bad)
        made = RegistryPart(prefix, wire.registry, config, inner)
        return made if len(bad) == problems else None
    schema_id = _schema_id(config, prefix, bad)
    if inner is None or not wire.has_header:
        return inner
    return HeaderPart(prefix, inner, schema_id)


def _schema_id(config: Mapping[str, str], prefix: str, bad: list[FieldViolation]) -> int:
    """What is written where ids are not looked up."""
    text = config.get(f"{prefix}_schema_id", "").strip() or "0"
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= MAX_ID):
        bad.append(FieldViolation(f"{prefix}_schema_id", f"{text[:40]!r} is no id, which is from 0 to {MAX_ID}"))
        return 0
    return int(text)


class HeaderPart:
    """The schema is in the configuration: the header is checked, whatever its id, and left out."""

    def __init__(self, prefix: str, inner: AvroPart, id: int) -> None:
        self._prefix = prefix
        self._inner = inner
        self._id = id

    @property
    def layout(self) -> Layout:
        return self._inner.layout

    @property
    def config(self) -> dict[str, str]:
        return self._inner.config

    def settle(self, rows: Rows) -> None:
        self._inner.settle(rows)

    def decode(self, records: Records) -> Decoded:
        _, good, bad = _headers(records, WHAT[self._prefix])
        chosen = [(records[index] or b"")[HEADER_BYTES:] for index in good.tolist()]
        found = self._inner.reader.decode(chosen, WHAT[self._prefix])
        others = [BadRecord(int(good[one.index]), one.reason) for one in found.bad]
        return Decoded(found.rows, good[found.good], _in_order(bad + others))

    def encode(self, rows: Rows) -> list[bytes]:
        return _with_header(self._id, self._inner.encode(rows))


class RegistryPart:
    """Each record is read by the schema that its id names, and becomes a row of one layout.

    The layout is that of `<prefix>_scheme`, or else of the newest schema of `<prefix>_subject` when the first record is
    read, or else of the first record's. Fields are found by name; what a schema lacks has the default of the layout's
    schema, and what it has more is read and left out.
    """

    def __init__(self, prefix: str, registry: Registry, config: Mapping[str, str], inner: AvroPart | None) -> None:
        self._prefix = prefix
        self._registry = registry
        self._shapes = {key: config[key] for key in (f"{prefix}_reshape", f"{prefix}_shapes") if key in config}
        self._subject = config.get(f"{prefix}_subject", "").strip()
        self._text = config.get(f"{prefix}_scheme", "").strip()
        self._leaves: tuple[Leaf, ...] = inner.leaves if inner is not None else ()
        self._layout = inner.layout if inner is not None else None
        self._readers: dict[int, _Writers] = {}
        self._latest: Registered | None = None

    @property
    def layout(self) -> Layout:
        """Not known before the first record."""
        return self._layout or Layout((Column("", Spec(np.dtype(np.float32), (-1,))),))

    @property
    def config(self) -> dict[str, str]:
        """With the schema that decides the layout: who decodes by it decodes alike, whichever record comes first."""
        if self._layout is None:
            return self._shapes
        return {f"{self._prefix}_scheme": self._text} | shapes_config(self._layout, self._prefix)

    def settle(self, rows: Rows) -> None:
        if self._layout is None:
            try:
                self._take(self._subject_schema().text)
            except SchemaError as error:
                raise wrong_config("AVRO", [FieldViolation(f"{self._prefix}_shapes", str(error))]) from None
        self._layout = self.layout.settled(nulls.without_nulls(self._leaves, rows)[0])

    def decode(self, records: Records) -> Decoded:
        ids, good, bad = _headers(records, WHAT[self._prefix])
        parts: list[tuple[Array, Array]] = []
        for schema_id in dict.fromkeys(ids.tolist()):
            rows, which, others = self._decode_schema(schema_id, records, good[ids == schema_id])
            bad += others
            if len(which):
                parts.append((rows, which))
        if not parts:
            return Decoded(self.layout.empty(), np.empty(0, np.int64), _in_order(bad))
        which = np.concatenate([numbers for _, numbers in parts])
        order = np.argsort(which)
        return Decoded(np.concatenate([rows for rows, _ in parts])[order], which[order], _in_order(bad))

    def _decode_schema(self, id: int, records: Records, which: Array) -> tuple[Array, Array, list[BadRecord]]:
        """The rows of the records with this id, which these are, and the bad ones."""
        try:
            schema = self._schema(id)
        except (UnknownSchema, SchemaError) as error:
            return self.layout.empty(), which[:0], [BadRecord(index, str(error)) for index in which.tolist()]
        chosen = [(records[index] or b"")[HEADER_BYTES:] for index in which.tolist()]
        schema.expect(self.layout)
        arrays, good, bad = schema.reader.columns(chosen, WHAT[self._prefix])
        self._learn(schema)
        others = [BadRecord(int(which[one.index]), f"schema id {id}: {one.reason}") for one in bad]
        try:
            rows = self._assembled(schema, arrays, len(good)) if len(good) else self.layout.empty()
        except SchemaError as error:
            return self.layout.empty(), which[:0], [BadRecord(index, str(error)) for index in which.tolist()]
        return rows, which[good], others

    def _schema(self, id: int) -> _Writers:
        """The schema that the id names. Raises UnknownSchema, SchemaError, Unavailable."""
        if id not in self._readers:
            text = self._registry.schema(id)
            try:
                leaves = parse(text)
                if self._layout is None:
                    self._take(self._subject_schema().text if self._subject else text)
                self._readers[id] = _Writers(id, leaves, self._leaves)
            except SchemaError as error:
                raise SchemaError(f"schema id {id}: {error}") from None
        return self._readers[id]

    def _take(self, text: str) -> None:
        """Let the schema decide the layout. Raises SchemaError."""
        leaves = parse(text)
        try:
            self._layout = configured(leaves, self._shapes, self._prefix)
        except ValueError as error:
            raise SchemaError(str(error)) from None
        self._leaves, self._text = leaves, text

    def _learn(self, schema: _Writers) -> None:
        """The lengths that the schema's records decided."""
        columns = list(self.layout.columns)
        for index, found in schema.settled().items():
            if not columns[index].spec.is_known:
                columns[index] = columns[index].settled(found.shape)
        self._layout = Layout(tuple(columns))

    def _assembled(self, schema: _Writers, arrays: list[Array], count: int) -> Array:
        """The rows of the layout from the columns of the schema."""
        columns = []
        for index, (leaf, column) in enumerate(zip(self._leaves, self.layout.columns, strict=True)):
            place = schema.places[index]
            if place is not None:
                columns.append(arrays[place].reshape(count, *column.spec.shape))
                continue
            default = leaf.default
            assert default is not None, "a schema without it is refused"
            if not column.spec.is_known or default.size != np.prod(column.spec.shape):
                raise SchemaError(
                    f"schema id {schema.id} lacks the field {leaf.name}, whose default is {default.shape}"
                )
            columns.append(np.broadcast_to(default.reshape(column.spec.shape), (count, *column.spec.shape)))
        return self.layout.rows(columns)

    def encode(self, rows: Rows) -> list[bytes]:
        """By the newest schema of the subject, which has to have the fields of the layout."""
        schema = self._subject_schema()
        leaves = parse(schema.text)
        self.settle(rows)
        numbers, absent = nulls.without_nulls(leaves, rows)
        arrays = dict(zip([leaf.name for leaf in self._leaves], self.layout.split(numbers), strict=True))
        if {leaf.name: leaf.kind for leaf in leaves} != {leaf.name: leaf.kind for leaf in self._leaves}:
            raise InvalidArgument(
                error_pb2.REASON_SCHEMA_MISMATCH,
                f"the newest schema of the subject {self._subject} (id {schema.id}) has other fields than the rows",
            )
        return _with_header(schema.id, nulls.encode(leaves, [arrays[leaf.name] for leaf in leaves], absent))

    def _subject_schema(self) -> Registered:
        if not self._subject:
            description = "is needed to write records: it names their schema"
            raise wrong_config("AVRO", [FieldViolation(f"{self._prefix}_subject", description)])
        if self._latest is None:
            try:
                self._latest = self._registry.latest(self._subject)
                parse(self._latest.text)
            except (UnknownSchema, SchemaError) as error:
                raise wrong_config("AVRO", [FieldViolation(f"{self._prefix}_subject", str(error))]) from None
        return self._latest


class _Writers:
    """The schema of an id, and where the fields of the layout are in it."""

    def __init__(self, id: int, leaves: tuple[Leaf, ...], wanted: tuple[Leaf, ...]) -> None:
        """Raises SchemaError where records of this schema cannot become rows of the wanted fields."""
        self.id = id
        self.reader = AvroReader(leaves, Layout(tuple(leaf.column for leaf in leaves)))
        places = {leaf.name: place for place, leaf in enumerate(leaves)}
        self.places = [places.get(leaf.name) for leaf in wanted]
        for leaf, place in zip(wanted, self.places, strict=True):
            if place is None and leaf.default is None:
                raise SchemaError(f"it lacks the field {leaf.name}, which has no default")
            if place is not None and not _becomes(leaves[place], leaf):
                raise SchemaError(f"its field {leaf.name} is {leaves[place].kind}, where the rows have {leaf.kind}")

    def expect(self, layout: Layout) -> None:
        """Take the lengths that the layout knows."""
        columns = list(self.reader.layout.columns)
        changed = False
        for column, place in zip(layout.columns, self.places, strict=True):
            if place is not None and column.spec.is_known and not columns[place].spec.is_known:
                columns[place] = columns[place].settled(column.spec.shape)
                changed = True
        if changed:
            self.reader.layout = Layout(tuple(columns))

    def settled(self) -> dict[int, Spec]:
        """The specs that are known, by the number of the wanted field."""
        columns = self.reader.layout.columns
        specs = {index: columns[place].spec for index, place in enumerate(self.places) if place is not None}
        return {index: spec for index, spec in specs.items() if spec.is_known}


def _becomes(written: Leaf, wanted: Leaf) -> bool:
    """Whether the one's numbers may stand for the other's: by Avro's promotions."""
    if (written.depth, written.size) != (wanted.depth, wanted.size) or written.symbols != wanted.symbols:
        return False
    return written.kind == wanted.kind or wanted.kind in _PROMOTIONS.get(written.kind, ())


def _headers(records: Records, what: str) -> tuple[Array, Array, list[BadRecord]]:
    """The ids of the records that have one, which these are, and the bad ones."""
    sizes = sizes_of(records)
    long = np.flatnonzero(sizes >= HEADER_BYTES)
    heads = b"".join([(records[index] or b"")[:HEADER_BYTES] for index in long.tolist()])
    view = np.frombuffer(heads, np.dtype([("magic", np.uint8), ("id", ">u4")]))
    is_marked = view["magic"] == 0
    good = long[is_marked]
    reasons = {int(index): f"its {what} begins with no zero byte and schema id" for index in long[~is_marked]}
    for index in np.flatnonzero(sizes < HEADER_BYTES).tolist():
        short = f"its {what} has {sizes[index]} bytes, fewer than the {HEADER_BYTES} of the schema id"
        reasons[index] = f"it has no {what}" if sizes[index] < 0 else short
    return view["id"][is_marked].astype(np.int64), good, [BadRecord(index, text) for index, text in reasons.items()]


def _with_header(id: int, records: list[bytes]) -> list[bytes]:
    header = b"\0" + id.to_bytes(4, "big")
    return [header + record for record in records]


def _in_order(bad: list[BadRecord]) -> list[BadRecord]:
    return sorted(bad, key=lambda one: one.index)
