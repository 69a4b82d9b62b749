"""`headrace send …`: a file's rows become the records of a stream."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
from rich.text import Text

from cli import output
from cli.announce import parse_format
from cli.awaited import warn_unless_awaited
from cli.dry_run import show_dry_run
from cli.files import Layout
from cli.home import kafka_address
from cli.options import Delimiter, Kafka, NoHeader, count_option, id_option
from cli.output import Json
from cli.records import FileRecords, Wishes, look_at
from headrace.v1.stream_pb2 import (
    DATA_FORMAT_AVRO,
    DATA_FORMAT_JSON,
    DATA_FORMAT_PROTOBUF,
    DATA_FORMAT_RAW,
    DataFormat,
    StreamAnnouncement,
)
from sinks import AvroSink, JsonSink, ProtobufSink, RawSink

Sink = RawSink | AvroSink | JsonSink | ProtobufSink
SINKS: dict[int, type[Sink]] = {
    DATA_FORMAT_RAW: RawSink,
    DATA_FORMAT_AVRO: AvroSink,
    DATA_FORMAT_JSON: JsonSink,
    DATA_FORMAT_PROTOBUF: ProtobufSink,
}


def send(  # noqa: PLR0913
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV (with a header), JSON lines, NPZ, NPY or Avro.")],
    topic: Annotated[str, typer.Option("--topic", "-t", help="Records go here.")],
    deployment: Annotated[int, id_option("--deployment", "-d", help="The training that waits for them.")],
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", help="Column or array with labels; may be repeated.")
    ] = None,
    samples: Annotated[
        list[str] | None,
        typer.Option("--samples", "-s", help="One of the samples; may be repeated. Default: the others."),
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option("--without", help="A column that is not sent; may be repeated.")
    ] = None,
    data_format: Annotated[str, typer.Option("--format", "-f", help="raw, avro, json or protobuf.")] = "raw",
    data_type: Annotated[str, typer.Option(help="Of the samples, as float32. Default: what fits.")] = "",
    data_reshape: Annotated[str, typer.Option(help='Columns make one array of this shape, as "28 28".')] = "",
    label_type: Annotated[str, typer.Option(help="Of the labels. Default: int32 for whole numbers.")] = "",
    delimiter: Delimiter = ",",
    no_header: NoHeader = False,
    partitions: Annotated[int, count_option(help="Of the topic, if it does not exist yet.", min=1)] = 1,
    validation_rate: Annotated[float, typer.Option(min=0.0, max=0.999, help="Part kept for validation.")] = 0.0,
    test_rate: Annotated[float, typer.Option(min=0.0, max=0.999, help="Part kept for the test.")] = 0.0,
    description: Annotated[str, typer.Option(help="For people. Default: the file's name.")] = "",
    stream_id: Annotated[str, typer.Option(help="Sent again under the same id, it is recorded once.")] = "",
    transactional: Annotated[
        bool, typer.Option("--transactional", help="Readers see nothing before the announcement.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the first records; send nothing.")] = False,
    kafka: Kafka = "",
    as_json: Json = False,
) -> None:
    """Send a file's rows as records, and announce them as the stream of a training once all are confirmed."""
    wanted = StreamAnnouncement(
        deployment_id=deployment, input_format=parse_format(data_format), description=description or file.name,
        validation_rate=validation_rate, test_rate=test_rate,
    )  # fmt: skip
    with output.errors.status(f"Checking {file.name}"):
        records = look_at(
            file,
            _wishes(wanted.input_format, samples, data_type, data_reshape),
            _wishes(wanted.input_format, label, label_type),
            without or [],
            Layout(delimiter, header=not no_header),
        )
    wanted.record_count = len(records)
    sink = SINKS[wanted.input_format](
        kafka_address(kafka), topic, deployment, description=wanted.description,
        validation_rate=validation_rate, test_rate=test_rate, partitions=partitions,
        stream_id=stream_id, transactional=transactional,
    )  # fmt: skip
    if dry_run:
        show_dry_run(records, topic, wanted, as_json=as_json)
        return
    warn_unless_awaited(deployment)
    _send_all(sink, records)
    if as_json:
        output.print_json(sink.announcement)
        return
    output.console.print(
        f"Sent {output.count(len(records))} records to {topic}; announced for deployment {deployment}."
    )


def _wishes(data_format: DataFormat, columns: list[str] | None, data_type: str, reshape: str = "") -> Wishes:
    """Records of RAW are one array; those of the others have fields by name."""
    return Wishes(
        columns or [], data_type, reshape,
        by_name=data_format != DATA_FORMAT_RAW, plain_names=data_format in (DATA_FORMAT_AVRO, DATA_FORMAT_PROTOBUF),
    )  # fmt: skip


def _send_all(sink: Sink, records: FileRecords) -> None:
    with _progress() as progress, sink:
        task = progress.add_task("Sending", total=len(records))
        for batch in records.batches():
            sink.send_batch(batch.samples, batch.labels)
            progress.advance(task, len(batch))


def _progress() -> Progress:
    return Progress(
        "{task.description}", BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn(),
        console=output.errors, transient=True, disable=not output.errors.is_terminal,
    )  # fmt: skip


class _Rate(ProgressColumn):
    """Records a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{output.count(task.speed)}/s" if task.speed else "")
