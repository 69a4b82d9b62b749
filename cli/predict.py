"""`headrace predict …`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import grpc
import typer

from cli import output
from cli.connection import control_plane, find_inference
from cli.files import Layout
from cli.home import kafka_address
from cli.options import Delimiter, Kafka, NoHeader
from cli.output import Json
from cli.records import Records, read_records
from headrace.errors import DeadlineExceeded, FailedPrecondition, not_yet
from headrace.v1 import error_pb2, inference_pb2, result_collector_pb2, stream_pb2
from headrace.v1.result_collector_pb2_grpc import ResultCollectorStub
from sinks import Answer, InferenceSink

SHOWN_VALUES = 12


def predict(
    inference: Annotated[str, typer.Argument(metavar="INFERENCE", help="Its name or id.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV, JSON lines, NPZ, NPY or Avro.")],
    label: Annotated[str, typer.Option("--label", "-l", help="Column or array with labels, to compare with.")] = "",
    delimiter: Delimiter = ",",
    no_header: NoHeader = False,
    timeout_s: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds without any answer to wait.")] = 30.0,
    kafka: Kafka = "",
    as_json: Json = False,
) -> None:
    """Send the rows of a file to an inference's input topic and print the answers of its output topic."""
    records = read_records(file, label=label, layout=Layout(delimiter, header=not no_header))
    with control_plane() as channel:
        found = find_inference(channel, inference)
        _check_running(found)
        data_format, config = input_encoding(channel, found)
    sink = InferenceSink(
        kafka_address(kafka), found.input_topic, found.output_topic,
        data_format=data_format, input_config=config, answer_timeout_s=timeout_s,
        output_format=found.output_format or stream_pb2.DATA_FORMAT_JSON, output_config=dict(found.output_config),
    )  # fmt: skip
    with sink, output.errors.status(f"Asking {output.count(len(records))} questions"):
        answers, late = _answers(sink, records)
    if as_json:
        values = [None if each is None or each.is_dead_letter else each.values for each in answers]
        output.print_json({"predictions": [{"values": each} for each in values], "seconds": sink.seconds})
    else:
        labels = None if records.labels is None or not label else [each.item() for each in records.labels]
        _print_answers(answers, labels, sink.seconds)
    if late is not None:
        raise DeadlineExceeded(
            error_pb2.REASON_DEADLINE,
            f"{answers.count(None)} of {len(records)} questions have no answer; "
            f"`headrace inference show {found.id}` tells why",
        ) from late


def _answers(sink: InferenceSink, records: Records) -> tuple[list[Answer | None], DeadlineExceeded | None]:
    """The first answer to each record, and the error where some have none."""
    answers: list[Answer | None] = [None] * len(records)
    try:
        for answer in sink.ask(records.samples, range(len(records))):
            number = cast(int, answer.key)
            answers[number] = answers[number] or answer
    except DeadlineExceeded as error:
        return answers, error
    return answers, None


def input_encoding(
    channel: grpc.Channel, inference: inference_pb2.Inference
) -> tuple[stream_pb2.DataFormat, dict[str, str]]:
    """How the inference's questions are encoded: its own setting, else that of the stream it was trained on."""
    if inference.input_format:
        return inference.input_format, dict(inference.input_config)
    request = result_collector_pb2.GetResultRequest(id=inference.result_id)
    stream = ResultCollectorStub(channel).GetResult(request).stream
    return stream.input_format, dict(inference.input_config or stream.input_config)


def _check_running(found: inference_pb2.Inference) -> None:
    if found.input_kafka_cluster or found.output_kafka_cluster:
        raise not_yet("asking on another Kafka cluster", "use InferenceSink there, or POST /v1/inferences/ID:predict")
    if found.state in (inference_pb2.INFERENCE_STATE_STOPPED, inference_pb2.INFERENCE_STATE_FAILED):
        state = output.inference_state_name(found.state)
        raise FailedPrecondition(
            error_pb2.REASON_WRONG_STATE, f"inference {found.id} is {state}, nobody would answer", id=found.id
        )


def _print_answers(answers: Sequence[Answer | None], labels: Sequence[Any] | None, seconds: float) -> None:
    values = [None if each is None or each.is_dead_letter else each.values for each in answers]
    rows = [
        (number, *([labels[number]] if labels is not None else []), best(value), _refusal(answer) or _shown(value))
        for number, (answer, value) in enumerate(zip(answers, values, strict=True))
    ]
    columns = ["#row", *(["#label"] if labels is not None else []), "#answer", "values"]
    output.print_table(columns, rows, empty="The file has no rows.")
    if labels is not None and all(value is not None for value in values):
        right = sum(best(value) == label for value, label in zip(values, labels, strict=True))
        output.console.print(f"{right} of {len(labels)} are right ({right / len(labels):.1%}).")
    if seconds:
        output.console.print(f"{len(values) / seconds:,.0f} rows/s")


def _refusal(answer: Answer | None) -> str:
    return f"{answer.reason}: {answer.message}" if answer is not None and answer.is_dead_letter else ""


def best(values: Any) -> Any:
    """The class with the best score; the value itself where there is only one."""
    if not isinstance(values, list) or not values or isinstance(values[0], list):
        return ""
    return values[0] if len(values) == 1 else max(range(len(values)), key=lambda place: values[place])


def _shown(values: Any) -> str:
    if values is None:
        return "no answer"
    if not isinstance(values, list) or (values and isinstance(values[0], list)):
        return json.dumps(values)[:100]
    more = " …" if len(values) > SHOWN_VALUES else ""
    return " ".join(output.number(value) for value in values[:SHOWN_VALUES]) + more
