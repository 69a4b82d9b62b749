"""Avro in the wire format of schema registries, against a small server that speaks Confluent's REST API."""

import http.server
import io
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import fastavro
import numpy as np
import pytest

from headrace.errors import InvalidArgument, Unavailable
from headrace.v1.stream_pb2 import DATA_FORMAT_AVRO
from streams.codecs import Codec, codec_for, codec_of


class SchemaServer(http.server.ThreadingHTTPServer):
    """`GET /schemas/ids/{id}`, `GET /subjects/{subject}/versions/latest`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.schemas: dict[int, dict[str, Any]] = {}
        self.subjects: dict[str, int] = {}
        self.redirect = ""
        self.raw: bytes | None = None
        self.status = 200
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, schema: Any, *, subject: str = "", **more: Any) -> int:
        number = len(self.schemas) + 1
        self.schemas[number] = {"schema": json.dumps(schema), **more}
        if subject:
            self.subjects[subject] = number
        return number

    def answer(self, path: str) -> dict[str, Any] | None:
        match path.strip("/").split("/"):
            case ["schemas", "ids", number] if int(number) in self.schemas:
                return self.schemas[int(number)]
            case ["subjects", subject, "versions", "latest"] if subject in self.subjects:
                newest = self.subjects[subject]
                return {"subject": subject, "id": newest, "version": 1, **self.schemas[newest]}
        return None


class _Handler(http.server.BaseHTTPRequestHandler):
    server: SchemaServer

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.server.redirect:
            self.send_response(302)
            self.send_header("Location", self.server.redirect)
            self.end_headers()
            return
        answer = self.server.answer(self.path)
        body = json.dumps(answer or {"error_code": 40403, "message": "Schema not found"}).encode()
        self.send_response(self.server.status if answer is not None else 404)
        self.end_headers()
        self.wfile.write(self.server.raw if self.server.raw is not None else body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[SchemaServer]:
    with SchemaServer() as server:
        thread = threading.Thread(target=server.serve_forever, name="schema-server")
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def schema(*fields: tuple[Any, ...]) -> dict[str, Any]:
    """Of (name, type) or (name, type, default)."""
    names = ("name", "type", "default")
    return {"type": "record", "name": "R", "fields": [dict(zip(names, field, strict=False)) for field in fields]}


def framed(number: int, schema: Any, value: Any) -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(schema), value)
    return b"\0" + number.to_bytes(4, "big") + buffer.getvalue()


def reading(server: SchemaServer, **config: str) -> Codec:
    return codec_for(DATA_FORMAT_AVRO, {"registry_url": server.url, **config})


OLD = schema(("a", "double"), ("b", "int"))
NEW = schema(("b", "int"), ("more", {"type": "array", "items": "float"}), ("a", "float"))


def test_each_record_is_read_by_the_schema_of_its_id(server: SchemaServer) -> None:
    old, new = server.add(OLD), server.add(NEW)
    codec = reading(server)
    assert not codec.sample_spec.is_known
    records = [
        framed(old, OLD, {"a": 1.5, "b": 2}),
        framed(new, NEW, {"b": 3, "more": [1, 2], "a": 4}),
        framed(old, OLD, {"a": 5, "b": 6}),
    ]
    decoded = codec.decode_samples(records)
    assert not decoded.bad
    assert decoded.rows.tolist() == [[1.5, 2], [4, 3], [5, 6]]
    assert [field.name for field in codec.fields] == ["a", "b"]


def test_an_id_is_asked_for_once(server: SchemaServer) -> None:
    number = server.add(OLD)
    codec = reading(server)
    for _ in range(3):
        codec.decode_samples([framed(number, OLD, {"a": 1, "b": 2}), framed(17, OLD, {"a": 1, "b": 2})])
    assert sorted(server.asked) == [f"/schemas/ids/{number}", "/schemas/ids/17"]


def test_who_decodes_by_the_config_later_decodes_alike(server: SchemaServer) -> None:
    old, new = server.add(OLD), server.add(NEW)
    first = reading(server, label_subject="labels")
    records = [framed(old, OLD, {"a": 1.5, "b": 2}), framed(new, NEW, {"b": 3, "more": [1], "a": 4})]
    first.decode_samples(records)
    # This one sees the other schema first.
    later = codec_for(DATA_FORMAT_AVRO, first.config)
    assert later.decode_samples(records[::-1]).rows.tolist() == [[4, 3], [1.5, 2]]
    assert (later.sample_spec, later.fields) == (first.sample_spec, first.fields)
    assert first.config["registry_url"] == server.url


def test_rows_are_those_of_the_newest_schema_of_the_subject_whichever_record_is_first(server: SchemaServer) -> None:
    wider = schema(("a", "double"), ("b", "long"), ("c", "int", 9))
    old, new = server.add(OLD), server.add(wider, subject="digits-value")
    records = [framed(old, OLD, {"a": 1.5, "b": 2}), framed(new, wider, {"a": 2.5, "b": 3, "c": 4})]
    for order in (records, records[::-1]):
        decoded = reading(server, data_subject="digits-value").decode_samples(order)
        assert not decoded.bad
        assert sorted(decoded.rows.tolist()) == [[1.5, 2, 9], [2.5, 3, 4]]
    with pytest.raises(InvalidArgument, match="unknown subject nothing"):
        reading(server, data_subject="nothing").decode_samples(records)


def test_fields_that_a_schema_lacks_have_their_default(server: SchemaServer) -> None:
    wanted = schema(("a", "double"), ("b", "int", 7))
    short, wrong = schema(("a", "double")), schema(("b", "int"))
    ids = [
        server.add(short),
        server.add(wrong),
        server.add(schema(("a", "string"))),
        server.add(schema(("a", "boolean"))),
    ]
    codec = reading(server, data_scheme=json.dumps(wanted))
    records = [framed(ids[0], short, {"a": 1.0}), framed(ids[1], wrong, {"b": 1})]
    records += [
        framed(ids[2], schema(("a", "string")), {"a": "x"}),
        framed(ids[3], schema(("a", "boolean")), {"a": True}),
    ]
    decoded = codec.decode_samples(records)
    assert decoded.rows.tolist() == [[1, 7]]
    reasons = [one.reason for one in decoded.bad]
    assert [one.index for one in decoded.bad] == [1, 2, 3]
    assert "lacks the field a" in reasons[0]
    assert "a: the type string" in reasons[1]
    assert "boolean" in reasons[2]


def test_an_unknown_id_and_a_broken_header_are_bad_records(server: SchemaServer) -> None:
    number = server.add(OLD)
    others = [server.add({}, schemaType="PROTOBUF"), server.add(OLD, references=[{"name": "x"}]), server.add("text")]
    good = framed(number, OLD, {"a": 1, "b": 2})
    bad = [framed(17, OLD, {"a": 1, "b": 2}), b"\1" + good[1:], b"\0\0", b"", None, good + b"x", good[:-1]]
    bad += [b"\0" + other.to_bytes(4, "big") + good[5:] for other in others]
    decoded = reading(server).decode_samples([*bad, good])
    assert decoded.good.tolist() == [len(bad)]
    assert [one.index for one in decoded.bad] == list(range(len(bad)))
    assert decoded.bad[0].reason == "unknown schema id 17"
    assert "PROTOBUF" in decoded.bad[7].reason


def test_a_batch_of_bad_records_decides_nothing(server: SchemaServer) -> None:
    codec = reading(server)
    assert len(codec.decode_samples([framed(17, OLD, {"a": 1, "b": 2})]).bad) == 1
    number = server.add(OLD)
    assert codec.decode_samples([framed(number, OLD, {"a": 1, "b": 2})]).rows.tolist() == [[1, 2]]


@pytest.mark.parametrize("fault", ["gone", "status", "no JSON", "too much", "redirect to a file", "redirect to ftp"])
def test_a_registry_that_does_not_answer_is_no_bad_record(server: SchemaServer, fault: str) -> None:
    number = server.add(OLD)
    codec = reading(server)
    if fault == "gone":
        with socket.create_server(("127.0.0.1", 0)) as unused:
            url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        codec = codec_for(DATA_FORMAT_AVRO, {"registry_url": url})
    server.status = 503 if fault == "status" else 200
    server.raw = {"no JSON": b"<html>", "too much": b" " * 5_000_000}.get(fault)
    server.redirect = {"redirect to a file": "file:///etc/passwd", "redirect to ftp": "ftp://127.0.0.1/x"}.get(
        fault, ""
    )
    record = framed(number, OLD, {"a": 1, "b": 2})
    with pytest.raises(Unavailable) as caught:
        codec.decode_samples([record])
    assert caught.value.reason_name == "SCHEMA_REGISTRY"
    assert caught.value.metadata["url"].startswith("http://127.0.0.1:")
    if fault != "gone":
        server.status, server.raw, server.redirect = 200, None, ""
        assert codec.decode_samples([record]).rows.tolist() == [[1, 2]]


def test_rows_are_written_by_the_newest_schema_of_the_subject(server: SchemaServer) -> None:
    server.add(OLD)
    number = server.add(OLD, subject="digits-value")
    label = server.add("int", subject="digits-key")
    config = {"registry_url": server.url, "data_subject": "digits-value", "label_subject": "digits-key"}
    samples = {"a": np.array([1.5, 2.5]), "b": np.array([3, 4])}
    labels = np.array([0, 1])
    writing = codec_of(DATA_FORMAT_AVRO, samples, labels, config)
    values, keys = writing.encode_samples(samples), writing.encode_labels(labels)
    assert values == [framed(number, OLD, {"a": 1.5, "b": 3}), framed(number, OLD, {"a": 2.5, "b": 4})]
    assert keys == [framed(label, "int", 0), framed(label, "int", 1)]
    later = codec_for(DATA_FORMAT_AVRO, writing.config)
    assert later.decode_samples(values).rows.tolist() == [[1.5, 3], [2.5, 4]]
    assert later.decode_labels(keys).rows.tolist() == [0, 1]


def test_a_subject_that_is_not_there_is_a_wrong_config(server: SchemaServer) -> None:
    config = {"registry_url": server.url, "data_subject": "nothing"}
    with pytest.raises(InvalidArgument) as caught:
        codec_of(DATA_FORMAT_AVRO, np.zeros(2), None, config)
    assert caught.value.reason_name == "INVALID_FORMAT"
    assert [bad.field for bad in caught.value.fields] == ["data_subject"]
    with pytest.raises(InvalidArgument):
        reading(server).encode_samples(np.zeros(2))
