"""Results side by side: every property by its name, with its value in each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message

from headrace.v1 import model_pb2
from headrace.v1.result_collector_pb2 import ComparedValue
from headrace.v1.result_pb2 import Result
from headrace.v1.stream_pb2 import DataFormat
from streams.offsets import format_ranges

# The order of splits where people read them.
_SPLITS = ("training", "validation", "test")


def compared(results: Sequence[Result]) -> list[ComparedValue]:
    """What they were made of and what came of it: first model, code and data, then settings, then metrics."""
    made = _rows([_origin(result) for result in results])
    settings = _rows([dict(_flat("settings", result.settings)) for result in results])
    metrics = _rows([_metrics(result) for result in results])
    return [*made, *settings, *sorted(metrics, key=_metric_place)]


def _rows(columns: Sequence[Mapping[str, str]]) -> list[ComparedValue]:
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = []
    for name in names:
        values = [column.get(name, "") for column in columns]
        if any(values):
            rows.append(ComparedValue(name=name, values=values, differs=len(set(values)) > 1))
    return rows


def _origin(result: Result) -> dict[str, str]:
    stream, sizes = result.stream, result.split_sizes
    return {
        "model": result.model_name,
        "version": str(result.version or ""),
        "framework": model_pb2.Framework.Name(result.framework).removeprefix("FRAMEWORK_").lower(),
        "framework_version": result.framework_version,
        "code_sha256": result.code_sha256,
        "stream.ranges": format_ranges(stream.ranges),
        "stream.input_format": DataFormat.Name(stream.input_format).removeprefix("DATA_FORMAT_")
        if stream.input_format
        else "",
        "stream.validation_rate": _number(stream.validation_rate),
        "stream.test_rate": _number(stream.test_rate),
        "rows.training": str(sizes.training or ""),
        "rows.validation": str(sizes.validation or ""),
        "rows.test": str(sizes.test or ""),
        "undecodable": str(result.decode_error_count or ""),
    }


def _flat(prefix: str, message: Message) -> list[tuple[str, str]]:
    """Every field of a message by its path; of those with presence only the ones that are set."""
    found = []
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        path = f"{prefix}.{field.name}"
        if field.containing_oneof is not None:
            if message.HasField(field.name):
                found += [(f"{prefix}.{field.containing_oneof.name}", field.name), *_flat(path, value)]
        elif field.enum_type is not None:
            found.append((path, field.enum_type.values_by_number[value].name))
        elif field.message_type is None:
            found.append((path, str(value)))
        elif field.message_type.full_name.startswith("google.protobuf."):
            found.append((path, MessageToJson(value).strip('"') if message.HasField(field.name) else ""))
        else:
            found += _flat(path, value)
    return found


def _metrics(result: Result) -> dict[str, str]:
    return {
        f"metrics.{split}.{name}": repr(value)
        for split, metrics in result.metrics.splits.items()
        for name, value in metrics.values.items()
    }


def _metric_place(row: ComparedValue) -> tuple[int, str]:
    split = row.name.split(".")[1]
    return _SPLITS.index(split) if split in _SPLITS else len(_SPLITS), row.name


def _number(value: float) -> str:
    """As short as it can be read back; empty for 0."""
    return f"{value:g}" if value else ""
