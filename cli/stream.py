"""`headrace send …` and `headrace stream …`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from cli import output
from cli.connection import control_plane, list_all
from cli.home import kafka_address
from cli.output import Json, Limit
from cli.records import Records, read_records
from headrace.errors import not_yet
from headrace.v1 import stream_catalog_pb2, stream_pb2
from headrace.v1.stream_catalog_pb2_grpc import StreamCatalogStub
from sinks import RawSink

app = typer.Typer()

ROWS_AT_ONCE = 1000
Id = Annotated[int, typer.Argument(metavar="STREAM", help="Its id.", min=1)]
KafkaOption = Annotated[str, typer.Option("--kafka", metavar="HOST:PORT", help="Default: the platform's of this home.")]


def send(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV (numbers, with a header) or NPZ.")],
    topic: Annotated[str, typer.Option("--topic", "-t", help="Records go here.")],
    deployment: Annotated[int, typer.Option("--deployment", "-d", min=1, help="The training that waits for them.")],
    label: Annotated[str, typer.Option("--label", "-l", help="Column (CSV) or array (NPZ) with the labels.")] = "",
    data_format: Annotated[str, typer.Option("--format", "-f", help="raw.")] = "raw",
    validation_rate: Annotated[float, typer.Option(min=0.0, max=0.999, help="Part kept for validation.")] = 0.0,
    test_rate: Annotated[float, typer.Option(min=0.0, max=0.999, help="Part kept for the test.")] = 0.0,
    kafka: KafkaOption = "",
) -> None:
    """Send a file's rows as records, and announce them as the stream of a training once all are confirmed."""
    if data_format.lower() != "raw":
        raise not_yet(f"the format {data_format!r}", "use --format raw")
    records = read_records(file, label=label)
    with (
        RawSink(
            kafka_address(kafka), topic, deployment,
            description=file.name, validation_rate=validation_rate, test_rate=test_rate,
        ) as sink,
        _progress() as progress,
    ):  # fmt: skip
        _send_all(sink, records, progress)
    output.console.print(
        f"Sent {output.count(len(records))} records to {topic}; announced for deployment {deployment}."
    )


def _send_all(sink: RawSink, records: Records, progress: Progress) -> None:
    task = progress.add_task("Sending", total=len(records))
    for start in range(0, len(records), ROWS_AT_ONCE):
        samples = records.samples[start : start + ROWS_AT_ONCE]
        labels = None if records.labels is None else records.labels[start : start + ROWS_AT_ONCE]
        sink.send_batch(samples, labels)
        progress.advance(task, len(samples))


def _progress() -> Progress:
    return Progress(
        "{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=output.errors, transient=True, disable=not output.errors.is_terminal,
    )  # fmt: skip


@app.command("list")
def list_streams(
    deployment: Annotated[int, typer.Option("--deployment", min=0, help="Only for this training.")] = 0,
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
                each.id, each.deployment_id, output.count(each.record_count), format_name(each.input_format),
                ", ".join(sorted({span.topic for span in each.ranges})), output.ago(each.create_time), each.description,
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
    availability = stream_pb2.Availability.Name(found.availability).removeprefix("AVAILABILITY_").lower()
    output.print_fields({
        "id": found.id,
        "deployment": found.deployment_id,
        "records": output.count(found.record_count),
        "ranges": found.range_string.replace(",", "\n"),
        "in Kafka": availability.replace("_", " "),
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
    deployment: Annotated[int, typer.Option("--deployment", min=1, help="The training that shall use it.")],
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
def delete(stream: Id) -> None:
    """Forget a stream. Its records stay in Kafka, and results keep what they were trained on."""
    with control_plane() as channel:
        StreamCatalogStub(channel).DeleteStream(stream_catalog_pb2.DeleteStreamRequest(id=stream))
    output.console.print(f"Forgot stream {stream}.")


def format_name(value: int) -> str:
    """`raw` for DATA_FORMAT_RAW."""
    return stream_pb2.DataFormat.Name(value).removeprefix("DATA_FORMAT_").lower()
