"""What `headrace send` would send: the first records, and what would be announced. No Kafka is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cli import output
from cli.files import Array
from cli.record_table import Shown, Values, numbers, print_records
from cli.records import Batch, FileRecords
from headrace.v1.stream_pb2 import DataFormat, StreamAnnouncement
from streams.codecs import Codec, codec_of

SHOWN_RECORDS = 10
SHOWN_KEY_BYTES = 16


def show_dry_run(records: FileRecords, topic: str, wanted: StreamAnnouncement, *, as_json: bool = False) -> None:
    """Encode the first records as a sink does, decode them as a training does, and print both.

    Completes `wanted` by the input_config that would be announced.
    """
    batch = next(iter(records.batches())).first(SHOWN_RECORDS)
    codec = codec_of(wanted.input_format, batch.samples, batch.labels)
    values, keys = _encoded(codec, batch)
    samples, labels = (
        codec.decode_samples(values).rows,
        codec.decode_labels(keys).rows if batch.labels is not None else None,
    )
    wanted.input_config.update(codec.config)
    if as_json:
        output.print_json(_document(topic, wanted, values, keys, samples, labels))
        return
    shown = [
        Shown((topic, str(len(value)), _hexadecimal(key)), _flat(row), _label(labels, place))
        for place, (value, key, row) in enumerate(zip(values, keys, samples, strict=True))
    ]
    print_records(("topic", "#bytes", "key"), _fields(codec), shown, labelled=labels is not None)
    output.console.print()
    _print_announcement(wanted)


def _encoded(codec: Codec, batch: Batch) -> tuple[list[bytes], list[bytes | None]]:
    values = codec.encode_samples(batch.samples)
    if batch.labels is None:
        return values, [None] * len(values)
    return values, list(codec.encode_labels(batch.labels))


def _fields(codec: Codec) -> list[Values]:
    if codec.fields:
        return [Values(one.name, one.start, one.stop, one.spec.dtype.kind in "biu") for one in codec.fields]
    spec = codec.sample_spec
    return [Values("sample", 0, int(np.prod(spec.shape)), spec.dtype.kind in "biu")]


def _label(labels: Array | None, place: int) -> str:
    return "" if labels is None else numbers(_flat(labels[place]), whole=labels.dtype.kind in "biu")


def _flat(row: Any) -> Sequence[float]:
    values: list[float] = np.asarray(row).ravel().tolist()
    return values


def _hexadecimal(key: bytes | None) -> str:
    if key is None:
        return "none"
    return key[:SHOWN_KEY_BYTES].hex() + ("…" if len(key) > SHOWN_KEY_BYTES else "")


def _print_announcement(wanted: StreamAnnouncement) -> None:
    output.print_fields({
        "records": output.count(wanted.record_count),
        "deployment": wanted.deployment_id,
        "format": DataFormat.Name(wanted.input_format).removeprefix("DATA_FORMAT_").lower(),
        "configuration": "\n".join(f"{name} = {wanted.input_config[name]}" for name in sorted(wanted.input_config)),
        "validation rate": f"{wanted.validation_rate:g}",
        "test rate": f"{wanted.test_rate:g}",
        "description": wanted.description,
    })  # fmt: skip
    output.console.print("Nothing was sent.")


def _document(
    topic: str,
    wanted: StreamAnnouncement,
    values: Sequence[bytes],
    keys: Sequence[bytes | None],
    samples: Array,
    labels: Array | None,
) -> dict[str, Any]:
    records = [
        {
            "topic": topic,
            "sizeBytes": len(value),
            "key": None if key is None else key.hex(),
            "sample": _flat(row),
            "label": [] if labels is None else _flat(labels[place]),
        }
        for place, (value, key, row) in enumerate(zip(values, keys, samples, strict=True))
    ]
    return {"announcement": output.to_dict(wanted), "records": records}
