"""`headrace stream …` against a server of the API that has one stream: what is asked, and what is shown."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import empty_pb2

from cli import main
from headrace.v1 import model_pb2, stream_catalog_pb2, stream_catalog_pb2_grpc, stream_pb2

IMAGES, FIELDS, EMPTY, PARTLY = 1, 2, 3, 4


class _Catalog(stream_catalog_pb2_grpc.StreamCatalogServicer):
    """Remembers what it was asked last."""

    request: Any = None

    def GetStream(self, request: Any, context: grpc.ServicerContext) -> stream_pb2.Stream:
        return stream_pb2.Stream(
            id=request.id, deployment_id=7, availability=stream_pb2.AVAILABILITY_BLOCKED, record_count=90,
            ranges=[stream_pb2.OffsetRange(topic="t", partition=1, start=10, end=100)],
            input_format=stream_pb2.DATA_FORMAT_RAW, topic_ids={"t": "an-id"},
        )  # fmt: skip

    def ListStreams(self, request: Any, context: grpc.ServicerContext) -> stream_catalog_pb2.ListStreamsResponse:
        closed = stream_pb2.Stream(id=1, record_count=1500, ranges=[stream_pb2.OffsetRange(topic="closed", end=1500)])
        open_ended = stream_pb2.Stream(id=2, open_topics=["sensors"], incremental=True)
        return stream_catalog_pb2.ListStreamsResponse(streams=[open_ended, closed])

    def GetStreamHead(self, request: Any, context: grpc.ServicerContext) -> stream_catalog_pb2.GetStreamHeadResponse:
        self.request = request
        partly = _records()
        partly.availability = stream_pb2.AVAILABILITY_PARTLY_EXPIRED
        heads = {IMAGES: _images(), FIELDS: _records(), PARTLY: partly}
        return heads.get(request.id, stream_catalog_pb2.GetStreamHeadResponse())

    def AnnounceStream(self, request: Any, context: grpc.ServicerContext) -> stream_catalog_pb2.AnnounceStreamResponse:
        self.request = request
        one = stream_pb2.OffsetRange(topic="t", partition=0, start=10, end=1510)
        return stream_catalog_pb2.AnnounceStreamResponse(ranges=[one], offset_count=1500)

    def DeleteStream(self, request: Any, context: grpc.ServicerContext) -> empty_pb2.Empty:
        return empty_pb2.Empty()


def _record(offset: int, **values: Any) -> stream_catalog_pb2.StreamRecord:
    record = stream_catalog_pb2.StreamRecord(topic="t", partition=0, offset=offset, **values)
    record.time.FromMilliseconds(1_750_000_000_250)
    return record


def _images() -> stream_catalog_pb2.GetStreamHeadResponse:
    return stream_catalog_pb2.GetStreamHeadResponse(
        sample=model_pb2.TensorSpec(dtype="uint8", shape=[4, 4]),
        label=model_pb2.TensorSpec(dtype="int32"),
        records=[
            _record(5, sample=(np.eye(4) * 16).ravel(), label=[3]),
            _record(6, decode_error="its value has 3 bytes, where uint8 (4, 4) takes 16"),
        ],
    )


def _records() -> stream_catalog_pb2.GetStreamHeadResponse:
    return stream_catalog_pb2.GetStreamHeadResponse(
        sample=model_pb2.TensorSpec(dtype="float64", shape=[4]),
        label=model_pb2.TensorSpec(dtype="float32"),
        fields=[
            model_pb2.TensorSpec(name="age", dtype="int32"),
            model_pb2.TensorSpec(name="pair", dtype="float64", shape=[2]),
            model_pb2.TensorSpec(name="size", dtype="float32"),
        ],
        records=[_record(17, sample=[42, 0.5, 2, 1.75], label=[0.125])],
    )


@pytest.fixture
def catalog(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Catalog]:
    served = _Catalog()
    server = grpc.server(ThreadPoolExecutor(2))
    stream_catalog_pb2_grpc.add_StreamCatalogServicer_to_server(served, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("HEADRACE_ADDRESS", f"127.0.0.1:{port}")
    yield served
    server.stop(0).wait()


def _done(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    code = main.main(["stream", *words])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return printed.out


def test_the_head_of_images_is_pictures(catalog: _Catalog, capsys: pytest.CaptureFixture[str]) -> None:
    shown = _done(capsys, "head", str(IMAGES), "--count", "3")
    assert catalog.request.record_count == 3
    assert "sample uint8 (4, 4), label int32 ()" in shown
    lines = [line.rstrip() for line in shown.splitlines()]
    place = lines.index("3  (0/5)")
    assert lines[place + 1 : place + 5] == ["██", "  ██", "    ██", "      ██"]
    assert "its value has 3 bytes" in shown


def test_the_head_of_images_is_a_table_on_demand(catalog: _Catalog, capsys: pytest.CaptureFixture[str]) -> None:
    shown = _done(capsys, "head", str(IMAGES), "--table")
    assert "16 0 0 0 0 16 0 0 0 0 16 0 0 0 0 16" in shown
    assert "█" not in shown


def test_the_head_of_records_has_fields_by_name(catalog: _Catalog, capsys: pytest.CaptureFixture[str]) -> None:
    header, row = _done(capsys, "head", str(FIELDS)).splitlines()[-2:]
    assert header.split() == ["topic", "partition", "offset", "time", "age", "pair", "size", "label"]
    assert row.split()[:3] == ["t", "0", "17"]
    assert row.split()[-5:] == ["42", "0.5", "2", "1.75", "0.125"]
    assert datetime.fromtimestamp(1_750_000_000.25).isoformat(" ", "milliseconds") in row


def test_the_head_as_json_is_that_of_the_api(catalog: _Catalog, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(_done(capsys, "head", str(FIELDS), "--json"))
    assert document["records"][0]["sample"] == [42, 0.5, 2, 1.75]
    assert [field["name"] for field in document["fields"]] == ["age", "pair", "size"]


def test_a_stream_without_records_is_told(catalog: _Catalog, capsys: pytest.CaptureFixture[str]) -> None:
    shown = _done(capsys, "head", str(EMPTY))
    assert "no records" in shown
    assert "Of the whole stream" not in shown


def test_the_head_of_a_stream_that_has_lost_records_says_so(
    catalog: _Catalog, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = _done(capsys, "head", str(PARTLY))
    assert "0.125" in shown
    assert "Of the whole stream: a part was deleted by retention." in shown


def test_streams_are_listed_with_their_topics_and_numbers(
    catalog: _Catalog, capsys: pytest.CaptureFixture[str]
) -> None:
    open_ended, closed = _done(capsys, "list").splitlines()[1:]
    assert "sensors" in open_ended
    assert "not counted" in open_ended
    assert "closed" in closed
    assert "1,500" in closed


def test_show_tells_availability_in_words(catalog: _Catalog, capsys: pytest.CaptureFixture[str]) -> None:
    shown = _done(capsys, "show", "1")
    assert "hidden by an open transaction" in shown
    assert "t:1:10:100" in shown
    assert "t = an-id" in shown


def test_records_of_a_time_are_announced(catalog: _Catalog, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "schema.avsc").write_text('{"type": "double"}')
    shown = _done(
        capsys, "announce", "--topic", "t", "--topic", "u", "--deployment", "7", "--from", "2026-11-27T10:00:00+00:00",
        "--to", "2026-11-27T11:00:00Z", "--partition", "0", "--partition", "2", "--format", "avro", "--config",
        f"data_scheme=@{tmp_path / 'schema.avsc'}", "--config", "note=a=b", "--validation-rate", "0.25", "--dry-run",
    )  # fmt: skip
    request = catalog.request
    assert [(one.topic, list(one.partitions)) for one in request.selections] == [("t", [0, 2]), ("u", [0, 2])]
    spans = {(one.end_time.ToDatetime() - one.start_time.ToDatetime()) for one in request.selections}
    assert spans == {timedelta(hours=1)}
    assert request.selections[0].start_time.ToJsonString() == "2026-11-27T10:00:00Z"
    assert dict(request.input_config) == {"data_scheme": '{"type": "double"}', "note": "a=b"}
    assert (request.deployment_id, request.input_format, request.validation_rate) == (
        7, stream_pb2.DATA_FORMAT_AVRO, 0.25,
    )  # fmt: skip
    assert request.validate_only
    assert "1,500 offsets; nothing was announced" in shown
    assert "1510" in shown


def test_records_are_announced_since_a_duration_or_by_their_offsets(
    catalog: _Catalog, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = _done(capsys, "announce", "-t", "t", "-d", "7", "--since", "1h30m", "-f", "raw", "-c", "data_type=uint8")
    assert catalog.request.selections[0].since.seconds == 5400
    assert "Announced 1,500 offsets for deployment 7" in shown
    _done(capsys, "announce", "-d", "7", "--ranges", "t:0:0:100,t:1:5:9", "-f", "raw", "-c", "data_type=uint8")
    assert [(one.partition, one.start, one.end) for one in catalog.request.ranges] == [(0, 0, 100), (1, 5, 9)]
    assert not catalog.request.selections
    assert not catalog.request.validate_only


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "--topic"),
        (["--since", "1h"], 2, "of a --topic"),
        (["-t", "t", "--since", "1h", "--from", "10:00"], 2, "two beginnings"),
        (["-t", "t", "--from", "2026-01-02", "--to", "2026-01-01"], 2, "is not after"),
        (["-t", "t", "--since", "soon"], 2, "90s, 15m, 1h or 2d"),
        (["-t", "t", "--config", "uint8"], 2, "data_type=uint8"),
        (["-t", "t", "--config", "data_scheme=@/nowhere"], 1, "/nowhere"),
        (["-t", "t", "--format", "xml"], 2, "raw, avro, json, protobuf"),
        (["--ranges", "t:0:9:1"], 1, "ends before it starts"),
        (["--ranges", "t:0:9"], 1, "topic:partition:start:end"),
    ],
)
def test_a_wrong_choice_is_told_before_anything_is_asked(
    catalog: _Catalog, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    assert main.main(["stream", "announce", "-d", "7", "--format", "raw", *words]) == code
    printed = capsys.readouterr().err
    assert said in printed
    assert "Traceback" not in printed
    assert catalog.request is None


def test_deleted_as_json_is_an_empty_document(catalog: _Catalog, capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(_done(capsys, "delete", "1", "--json")) == {}
