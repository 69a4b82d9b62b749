"""`headrace stream announce …`: records that are in Kafka already become a stream."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, cast

import typer

from cli import output
from cli.connection import control_plane
from cli.options import count_option, id_option
from cli.output import Json
from cli.times import parse_span, parse_time
from headrace.v1 import stream_catalog_pb2, stream_pb2
from headrace.v1.stream_catalog_pb2_grpc import StreamCatalogStub
from streams.offsets import parse_ranges

RESOLVE_TIMEOUT_S = 60.0
FORMATS = {
    name.removeprefix("DATA_FORMAT_").lower(): number for name, number in stream_pb2.DataFormat.items() if number
}
Topics = Annotated[list[str] | None, typer.Option("--topic", "-t", help="Records of this topic; may be repeated.")]
Partitions = Annotated[
    list[int] | None,
    count_option("--partition", help="Only this one; may be repeated. Default: all."),
]
Config = Annotated[
    list[str] | None,
    typer.Option("--config", "-c", metavar="NAME=TEXT", help="Of the format; =@FILE takes the text from a file."),
]


def announce(  # noqa: PLR0913
    deployment: Annotated[int, id_option("--deployment", "-d", help="The training that shall use them.")],
    data_format: Annotated[str, typer.Option("--format", "-f", help="raw, avro, json or protobuf.")],
    topic: Topics = None,
    partition: Partitions = None,
    since: Annotated[str, typer.Option("--since", help="Records of the last 90s, 15m, 1h or 2d.")] = "",
    start: Annotated[str, typer.Option("--from", metavar="TIME", help="From this time on, as 10:00.")] = "",
    end: Annotated[str, typer.Option("--to", metavar="TIME", help="Before this time. Default: now.")] = "",
    ranges: Annotated[str, typer.Option("--ranges", help='By offset: "topic:partition:start:end,…".')] = "",
    config: Config = None,
    validation_rate: Annotated[float, typer.Option(min=0.0, max=0.999, help="Part kept for validation.")] = 0.0,
    test_rate: Annotated[float, typer.Option(min=0.0, max=0.999, help="Part kept for the test.")] = 0.0,
    description: Annotated[str, typer.Option("--description", help="For people.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Find the offsets and check; announce nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Announce records that are in Kafka already as the stream of a training; no record is sent again."""
    request = stream_catalog_pb2.AnnounceStreamRequest(
        deployment_id=deployment,
        ranges=parse_ranges(ranges),
        selections=_selections(topic or [], partition or [], since, start, end),
        input_format=parse_format(data_format),
        input_config=dict(parse_setting(setting) for setting in config or []),
        validation_rate=validation_rate,
        test_rate=test_rate,
        description=description,
        validate_only=dry_run,
    )
    if not request.ranges and not request.selections:
        raise typer.BadParameter("say which records: --topic, with or without times, or --ranges")
    with control_plane() as channel:
        announced = StreamCatalogStub(channel).AnnounceStream(request, timeout=RESOLVE_TIMEOUT_S)
    if as_json:
        output.print_json(announced)
    else:
        _print(announced, deployment, dry_run)


def _selections(
    topics: Sequence[str], partitions: Sequence[int], since: str, start: str, end: str
) -> list[stream_catalog_pb2.TopicSelection]:
    if not topics and (partitions or since or start or end):
        raise typer.BadParameter("--partition, --since, --from and --to choose among the records of a --topic")
    if since and start:
        raise typer.BadParameter("--since and --from are two beginnings; give one of them")
    chosen = stream_catalog_pb2.TopicSelection(partitions=partitions)
    if since:
        chosen.since.FromTimedelta(parse_span(since))
    if start:
        chosen.start_time.FromDatetime(parse_time(start))
    if end:
        chosen.end_time.FromDatetime(parse_time(end))
    if start and end and parse_time(end) <= parse_time(start):
        raise typer.BadParameter(f"--to {end} is not after --from {start}")
    selections = []
    for name in topics:
        selections.append(stream_catalog_pb2.TopicSelection(topic=name))
        selections[-1].MergeFrom(chosen)
    return selections


def parse_format(text: str) -> stream_pb2.DataFormat:
    """`raw` is DATA_FORMAT_RAW. Raises BadParameter."""
    if text.lower() not in FORMATS:
        raise typer.BadParameter(f"there is no format {text!r}; choose one of {', '.join(FORMATS)}")
    return cast(stream_pb2.DataFormat, FORMATS[text.lower()])


def parse_setting(text: str) -> tuple[str, str]:
    """`name=text`, or `name=@file` for the text of a file. Raises BadParameter, OSError."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise typer.BadParameter(f"{text!r} is no setting; give one as data_type=uint8")
    if not value.startswith("@"):
        return name, value
    try:
        return name, Path(value[1:]).read_text()
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{value[1:]} is no text; binary data goes into a configuration as base64") from error


def _print(announced: stream_catalog_pb2.AnnounceStreamResponse, deployment: int, dry_run: bool) -> None:
    output.print_table(
        ["topic", "#partition", "#from", "#to (exclusive)", "#offsets"],
        [(one.topic, one.partition, one.start, one.end, output.count(one.end - one.start)) for one in announced.ranges],
        empty="There are no such records.",
    )
    offsets = f"{output.count(announced.offset_count)} offsets"
    if dry_run:
        output.console.print(f"{offsets}; nothing was announced.")
    else:
        output.console.print(f"Announced {offsets} for deployment {deployment}.")
