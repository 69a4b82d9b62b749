"""`headrace stream head …`: the first records of a stream, decoded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC
from typing import Annotated

import numpy as np
import typer

from cli import output
from cli.availability import AVAILABILITY
from cli.connection import control_plane
from cli.options import id_argument
from cli.output import Json
from cli.pictures import is_picture, print_pictures
from cli.record_table import Shown, Values, numbers, print_records
from headrace.v1 import model_pb2, stream_catalog_pb2, stream_pb2
from headrace.v1.stream_catalog_pb2_grpc import StreamCatalogStub

MAX_RECORDS = 100
READ_TIMEOUT_S = 60.0
# There is nothing to add to the records that are shown.
_WHOLE = (stream_pb2.AVAILABILITY_AVAILABLE, stream_pb2.AVAILABILITY_UNSPECIFIED)
Record = stream_catalog_pb2.StreamRecord
Head = stream_catalog_pb2.GetStreamHeadResponse


def head(
    stream: Annotated[int, id_argument("STREAM")],
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=MAX_RECORDS, help="At most so many records.")] = 10,
    table: Annotated[bool, typer.Option("--table", help="Numbers, also where they are pictures.")] = False,
    as_json: Json = False,
) -> None:
    """Show the first records of a stream as a training would see them: a table, or small pictures of images."""
    request = stream_catalog_pb2.GetStreamHeadRequest(id=stream, record_count=count)
    with control_plane() as channel:
        found = StreamCatalogStub(channel).GetStreamHead(request, timeout=READ_TIMEOUT_S)
    if as_json:
        output.print_json(found)
    else:
        print_head(found, table=table)


def print_head(found: Head, *, table: bool = False) -> None:
    """The records on the console, with their type and shape above."""
    if not found.records:
        output.console.print("The stream has no records in Kafka.")
    else:
        _print_records(found, table=table)
    if found.availability not in _WHOLE:
        output.console.print(f"Of the whole stream: {AVAILABILITY[found.availability]}.", markup=False)


def _print_records(found: Head, *, table: bool) -> None:
    label = f", label {_spec(found.label)}" if found.HasField("label") else ""
    output.console.print(f"sample {_spec(found.sample)}{label}\n", markup=False)
    if is_picture(found.sample.shape) and not found.fields and not table:
        _print_pictures(found)
    else:
        _print_table(found, found.records)


def _print_pictures(found: Head) -> None:
    size = math.prod(found.sample.shape)
    good = [record for record in found.records if len(record.sample) == size]
    if good:
        pictures = [np.array(record.sample).reshape(tuple(found.sample.shape)) for record in good]
        print_pictures(output.console, pictures, [_caption(record, found) for record in good])
    if bad := [record for record in found.records if len(record.sample) != size]:
        _print_table(found, bad)


def _caption(record: Record, found: Head) -> str:
    place = f"{record.partition}/{record.offset}"
    return f"{_label(record, found)}  ({place})" if found.HasField("label") else place


def _print_table(found: Head, records: Sequence[Record]) -> None:
    shown = [
        Shown(
            (record.topic, str(record.partition), str(record.offset), _time(record)),
            record.sample_text or record.sample, _label(record, found), record.decode_error,
        )
        for record in records
    ]  # fmt: skip
    about = ("topic", "#partition", "#offset", "time")
    print_records(about, _values(found), shown, labelled=found.HasField("label"))


def _values(found: Head) -> list[Values]:
    """Where each field's numbers are in a sample."""
    values, start = [], 0
    for field in found.fields or [model_pb2.TensorSpec(name="sample", dtype=found.sample.dtype)]:
        stop = start + math.prod(field.shape) if found.fields else math.prod(found.sample.shape)
        values.append(Values(field.name, start, stop, _is_whole(field.dtype)))
        start = stop
    return values


def _label(record: Record, found: Head) -> str:
    return record.label_text or numbers(record.label, whole=_is_whole(found.label.dtype))


def _is_whole(dtype: str) -> bool:
    return dtype.startswith(("int", "uint", "bool"))


def _time(record: Record) -> str:
    if not record.HasField("time"):
        return ""
    here = record.time.ToDatetime(UTC).astimezone().replace(tzinfo=None)
    return here.isoformat(" ", "milliseconds")


def _spec(spec: model_pb2.TensorSpec) -> str:
    return f"{spec.dtype} ({', '.join(map(str, spec.shape))})"
