"""`headrace send`: what a file's rows become in Kafka, and what a dry run says of them without any."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format

from cli import main
from headrace.v1.stream_pb2 import StreamAnnouncement
from streams.codecs import codec_for
from streams.control import CONTROL_TOPIC, decode
from streams.kafka import KafkaSettings, Message, headers_of, log_ends
from streams.offsets import count_offsets
from tests.streams.log import offset_range, read
from tests.support import free_port

CSV = "age,mean size,class\n" + "".join(f"{20 + number},{number}.5,{number % 3}\n" for number in range(50))
OFFSETS = np.arange(50)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text(CSV)
    return path


def _done(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    code = main.main(["send", *words])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return printed.out


def _announced(document: Any) -> StreamAnnouncement:
    return json_format.ParseDict(document, StreamAnnouncement())


def _records(kafka: KafkaSettings, announcement: StreamAnnouncement) -> list[Message]:
    found = [message for one in announcement.ranges for message in read(kafka, one)]
    return sorted(found, key=lambda message: (message.offset(), message.partition()))


@pytest.mark.parametrize("data_format", ["raw", "avro", "json", "protobuf"])
def test_rows_of_a_file_are_records_of_any_format(
    kafka: KafkaSettings, topic: Callable[..., str], rows: Path, capsys: pytest.CaptureFixture[str], data_format: str
) -> None:
    name = topic(partitions=2)
    printed = _done(
        capsys, str(rows), "-t", name, "-d", "7", "--label", "class", "--format", data_format, "--kafka",
        kafka.bootstrap_servers, "--validation-rate", "0.2", "--description", "fifty rows", "--json",
    )  # fmt: skip
    document = json.loads(printed)
    assert (document["deploymentId"], document["recordCount"]) == ("7", "50")
    assert (document["validationRate"], document["description"]) == (0.2, "fifty rows")
    announcement = _announced(document)
    assert count_offsets(announcement.ranges) == 50
    codec = codec_for(announcement.input_format, announcement.input_config)
    messages = _records(kafka, announcement)
    samples = codec.decode_samples([message.value() for message in messages])
    labels = codec.decode_labels([message.key() for message in messages])
    np.testing.assert_array_equal(samples.rows, np.stack([OFFSETS + 20, OFFSETS + 0.5], axis=1))
    np.testing.assert_array_equal(labels.rows.ravel(), OFFSETS % 3)
    names = {"raw": [], "json": ["age", "mean size"]}.get(data_format, ["age", "mean_size"])
    assert [field.name for field in codec.fields] == names


def test_the_announcement_is_on_the_control_topic(
    kafka: KafkaSettings, topic: Callable[..., str], rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = topic()
    words = (str(rows), "-t", name, "-d", "7", "--kafka", kafka.bootstrap_servers, "--stream-id", f"{name}-once")
    assert "Sent 50 records" in _done(capsys, *words, "--transactional", "--partitions", "3")
    end = log_ends(kafka, CONTROL_TOPIC)[0].high
    messages = read(kafka, offset_range(CONTROL_TOPIC, 0, end))
    decoded = [decode(message.key(), headers_of(message), message.value())[0] for message in messages]
    (announcement,) = [one for one in decoded if one.message_id == f"{name}-once"]
    assert announcement.record_count == 50
    assert {one.topic for one in announcement.ranges} == {name}


def test_a_dry_run_shows_what_would_be_sent_and_needs_no_kafka(
    rows: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_KAFKA", f"127.0.0.1:{free_port()}")
    shown = _done(capsys, str(rows), "-t", "t", "-d", "7", "-l", "class", "-f", "avro", "--dry-run")
    header, first = shown.splitlines()[:2]
    assert header.split() == ["topic", "bytes", "key", "age", "mean_size", "label"]
    assert first.split() == ["t", "9", "00", "20", "0.5", "0"]
    assert "data_scheme" in shown
    assert "Nothing was sent" in shown


def test_a_dry_run_of_many_fields_has_a_line_a_field(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "wide.csv"
    names = [f"field{number}" for number in range(30)]
    path.write_text(",".join(names) + "\n" + ",".join(map(str, range(30))) + "\n")
    lines = _done(capsys, str(path), "-t", "t", "-d", "7", "-f", "json", "--dry-run").splitlines()
    assert [line.split() for line in lines if line.startswith("field29")] == [["field29", "29"]]


def test_a_dry_run_as_json_has_announcement_and_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "images.npz", x=np.arange(32, dtype=np.uint8).reshape(2, 4, 4), y=np.array([1, 2], np.uint8))
    printed = _done(capsys, str(tmp_path / "images.npz"), "-t", "t", "-d", "7", "--dry-run", "--json")
    document = json.loads(printed)
    assert document["announcement"]["inputConfig"] == {
        "data_type": "uint8", "data_reshape": "4 4", "label_type": "uint8", "label_reshape": "",
    }  # fmt: skip
    assert document["announcement"]["recordCount"] == "2"
    assert document["records"][1] == {
        "topic": "t", "sizeBytes": 16, "key": "02", "sample": list(range(16, 32)), "label": [2],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--format", "xml"], 2, "raw, avro, json, protobuf"),
        (["--label", "kind"], 1, "it has: age, mean size, class"),
        (["--label-type", "uint7", "--label", "class"], 1, "uint8"),
        (["--validation-rate", "1"], 2, "0.999"),
        (["--validation-rate", "0.5", "--test-rate", "0.5"], 1, "leave nothing to train on"),
        (["--partitions", "0"], 2, "partitions"),
        (["--label", "class", "--samples", "class"], 2, "--label and --samples both name 'class'"),
        (["--label", "class", "--without", "class"], 2, "--label and --without both name 'class'"),
        (["--delimiter", "ab"], 2, "separates no numbers"),
        (["--validation-rate", "0.6", "--test-rate", "0.6", "--dry-run"], 1, "leave nothing to train on"),
        (["--topic", "no topic", "--dry-run"], 1, "topic"),
    ],
)
def test_wrong_options_are_told_in_a_sentence_before_anything_is_sent(
    rows: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    assert main.main(["send", str(rows), "-t", "t", "-d", "7", "--kafka", "127.0.0.1:1", *words]) == code
    printed = capsys.readouterr().err
    assert said in printed
    assert "Traceback" not in printed
