"""`headrace stream …`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from cli import output
from cli.announce import announce
from cli.availability import AVAILABILITY
from cli.connection import control_plane, list_all
from cli.options import id_argument, id_option
from cli.output import Json, Limit
from cli.stream_head import head
from headrace.v1 import stream_catalog_pb2, stream_pb2
from headrace.v1.stream_catalog_pb2_grpc import StreamCatalogStub

app = typer.Typer()
app.command()(head)
app.command()(announce)

Id = Annotated[int, id_argument("STREAM")]


@app.command("list")
def list_streams(
    deployment: Annotated[int, id_option("--deployment", help="Only for this training.", min=0)] = 0,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """List the recorded streams, newest first."""
    request = stream_catalog_pb2.ListStreamsRequest(deployment_id=deployment)
    with control_plane() as channel:
        found = list_all(StreamCatalogStub(channel).ListStreams, request, limit)
    if as_json:
        output.print_json(found)
        return
    output.print_table(
        ["#id", "#deployment", "#records", "format", "topics", "recorded", "description"],
        [
            (
                each.id, each.deployment_id, _records(each), format_name(each.input_format),
                ", ".join(sorted({span.topic for span in each.ranges} | {*each.open_topics})),
                output.ago(each.create_time), each.description,
            )
            for each in found.streams
        ],
        empty="No stream was announced yet; `headrace send FILE …` and the sinks announce them.",
        more=bool(found.next_page_token),
    )  # fmt: skip


@app.command()
def show(stream: Id, as_json: Json = False) -> None:
    """Show a stream: its offset ranges, its format, and whether Kafka still has the records."""
    with control_plane() as channel:
        found = StreamCatalogStub(channel).GetStream(stream_catalog_pb2.GetStreamRequest(id=stream))
    if as_json:
        output.print_json(found)
        return
    output.print_fields({
        "id": found.id,
        "deployment": found.deployment_id,
        "records": _records(found),
        "ranges": _range_lines(found.ranges),
        "without labels": _range_lines(found.unsupervised_ranges),
        "open topics": ", ".join(found.open_topics),
        "open, without labels": ", ".join(found.unsupervised_open_topics),
        "topic ids": "\n".join(f"{topic} = {found.topic_ids[topic]}" for topic in sorted(found.topic_ids)),
        "in Kafka": AVAILABILITY.get(found.availability, ""),
        "format": format_name(found.input_format),
        "configuration": "\n".join(f"{name} = {found.input_config[name]}" for name in sorted(found.input_config)),
        "validation rate": found.validation_rate,
        "test rate": found.test_rate,
        "description": found.description,
        "restrictions": found.restrictions,
        "dialect": stream_pb2.Dialect.Name(found.dialect).removeprefix("DIALECT_").lower().replace("_", "-"),
        "announced at": f"{found.source.topic}:{found.source.partition}:{found.source.offset}",
        "recorded": output.ago(found.create_time),
    })  # fmt: skip


@app.command()
def replay(
    stream: Id,
    deployment: Annotated[int, id_option("--deployment", help="The training that shall use it.")],
    as_json: Json = False,
) -> None:
    """Announce a recorded stream again for another training; no record is sent again."""
    request = stream_catalog_pb2.ReplayStreamRequest(id=stream, deployment_id=deployment)
    with control_plane() as channel:
        replayed = StreamCatalogStub(channel).ReplayStream(request, timeout=60.0)
    if as_json:
        output.print_json(replayed)
        return
    output.console.print(f"Announced stream {stream} for deployment {deployment}.")


@app.command()
def delete(stream: Id, as_json: Json = False) -> None:
    """Forget a stream. Its records stay in Kafka, and results keep what they were trained on."""
    with control_plane() as channel:
        deleted = StreamCatalogStub(channel).DeleteStream(stream_catalog_pb2.DeleteStreamRequest(id=stream))
    if as_json:
        output.print_json(deleted)
        return
    output.console.print(f"Forgot stream {stream}.")


def _records(stream: stream_pb2.Stream) -> str:
    """Offsets that were announced as they are may be holes, and what has no end has no number."""
    return output.count(stream.record_count) if stream.record_count else "not counted"


def _range_lines(ranges: Iterable[stream_pb2.OffsetRange]) -> str:
    """As control messages have them; the end is exclusive."""
    return "\n".join(f"{one.topic}:{one.partition}:{one.start}:{one.end}" for one in ranges)


def format_name(value: int) -> str:
    """`raw` for DATA_FORMAT_RAW."""
    return stream_pb2.DataFormat.Name(value).removeprefix("DATA_FORMAT_").lower()
