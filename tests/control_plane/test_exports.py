"""Results in other formats: a control plane and an executor that find each other, a worker that converts in a moment.

What the converters of the frameworks make is tested in tests/frameworks.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import TopicPartition

from cli.broker import free_port
from executors.__main__ import executor
from executors.calibration import ROWS
from executors.settings import Settings
from headrace.errors import HeadraceError, InvalidArgument
from headrace.v1 import deployment_pb2, model_pb2, result_pb2, stream_pb2
from headrace.v1 import result_collector_pb2 as api
from streams.kafka import KafkaSettings
from streams.offsets import parse_ranges
from tests.control_plane.conftest import NOBODY, Plane, StartPlane, new_training
from tests.control_plane.test_artifacts import digest, download, parts, stored_files, upload
from tests.control_plane.test_results import get, reporting, state
from tests.sandbox.workers import start_plain

RANDOM = "import os\ndef model(rows): return os.urandom(8)"
ENDLESS = "def model(rows):\n    while True: pass"
# Its exports hold the samples of the calibration.
SEEN = "def model(rows): return rows.ravel().astype('<i4').tobytes()"
SIGNATURE = model_pb2.Signature(
    inputs=[model_pb2.TensorSpec(name="samples", dtype="float32", shape=[-1, 1])],
    outputs=[model_pb2.TensorSpec(name="scores", dtype="float32", shape=[-1, 3])],
)


class Exporting:
    """A control plane and its executor."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane

    async def finished(self, code: str = RANDOM, stream: stream_pb2.Stream | None = None) -> int:
        """A result whose training has ended, with a model."""
        name = f"model-{hashlib.sha256(code.encode()).hexdigest()[:8]}"
        training = await self.plane.store.write(partial(new_training, name, code=code))
        (result_id,) = training.result_ids
        await upload(self.plane, result_id, b"weights")
        async with reporting(self.plane, result_id) as trainer:
            known = api.Outcome(stream=stream, signature=SIGNATURE, framework_version="plain 1")
            await trainer.send(api.ReportRequest(seq=1, outcome=known))
            await trainer.send(state(2, deployment_pb2.STATE_FINISHED))
        return result_id

    async def export(self, result_id: int, format: str = "onnx", timeout: float = 60) -> result_pb2.Artifact:
        request = api.ExportResultRequest(result_id=result_id, format=format)
        artifact: result_pb2.Artifact = await self.plane.collector.ExportResult(request, timeout=timeout)
        return artifact

    async def failure(self, result_id: int, format: str = "onnx") -> HeadraceError:
        with pytest.raises(HeadraceError) as caught:
            await self.export(result_id, format)
        return caught.value

    async def names(self, result_id: int) -> list[str]:
        return [artifact.name for artifact in (await get(self.plane, result_id)).artifacts]


Start = Callable[..., Awaitable[Exporting]]


@pytest.fixture
async def start(start_plane: StartPlane, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts both; settings of the executor as keywords."""
    async with AsyncExitStack() as stack:

        async def begin(**settings: Any) -> Exporting:
            address = f"127.0.0.1:{free_port()}"
            plane = await start_plane(tensorflow_executor=address)
            known = {"address": plane.address, "home": tmp_path / "executor", **settings}
            await stack.enter_async_context(executor(Settings(address, "tensorflow", **known), start_plain))
            return Exporting(plane)

        yield begin


@pytest.fixture
async def exporting(start: Start) -> Exporting:
    return await start()


async def test_an_export_is_made_once_and_kept_with_the_result(exporting: Exporting, tmp_path: Path) -> None:
    result_id = await exporting.finished()
    first, second = await asyncio.gather(exporting.export(result_id), exporting.export(result_id))
    third = await exporting.export(result_id)
    # The model's answers are random: each conversion would make another file.
    assert first == second == third
    assert (first.name, first.media_type, first.size_bytes) == ("model.onnx", "application/vnd.onnx", 8)
    assert digest(await download(exporting.plane, result_id, "model.onnx")) == first.sha256
    assert await exporting.names(result_id) == ["model.keras", "model.onnx"]
    assert first.sha256 in stored_files(tmp_path)
    assert not list((tmp_path / "executor").glob("validations/*/export"))


async def test_formats_are_kept_side_by_side_and_the_original_is_there_already(exporting: Exporting) -> None:
    result_id = await exporting.finished()
    assert (await exporting.export(result_id, "keras")).name == "model.keras"
    for form in ("onnx", "savedmodel", "tflite"):
        await exporting.export(result_id, form)
    names = ["model.keras", "model.onnx", "model.savedmodel.zip", "model.tflite"]
    assert await exporting.names(result_id) == names
    # The trained model stays the first, by which it is served.
    assert await download(exporting.plane, result_id, "model") == b"weights"


async def test_an_export_goes_on_when_its_caller_does_not_wait(exporting: Exporting) -> None:
    result_id = await exporting.finished()
    with pytest.raises(HeadraceError) as caught:
        await exporting.export(result_id, timeout=0.05)
    assert caught.value.reason_name == "DEADLINE"
    assert (await exporting.export(result_id)).name == "model.onnx"


async def test_an_unknown_format_is_refused_with_those_that_there_are(exporting: Exporting) -> None:
    error = await exporting.failure(await exporting.finished(), "exported_program")
    assert isinstance(error, InvalidArgument)
    assert error.fields[0].field == "format"
    assert "keras, savedmodel, tflite, tflite_int8, onnx" in error.message


async def test_a_training_that_runs_has_no_exports(exporting: Exporting) -> None:
    result_id = (await exporting.plane.training("runs")).result_ids[0]
    error = await exporting.failure(result_id)
    assert (error.reason_name, error.metadata["state"]) == ("WRONG_STATE", "STARTING")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("def model(rows):\n    raise ValueError('not in this format')", "CODE_ERROR"),
        ("import os\ndef model(rows): os._exit(3)", "WORKER_CRASHED"),
        (ENDLESS, "DEADLINE"),
        ("def model(rows): return b'x' * 100", "ARTIFACT_TOO_LARGE"),
    ],
)
async def test_failures_are_typed_and_the_next_export_is_served(start: Start, code: str, reason: str) -> None:
    exporting = await start(export_s=2.0, export_bytes=50)
    result_id = await exporting.finished(code)
    assert (await exporting.failure(result_id)).reason_name == reason
    assert await exporting.names(result_id) == ["model.keras"]
    assert (await exporting.export(await exporting.finished())).size_bytes == 8


async def test_an_executor_that_is_away_is_named(start_plane: StartPlane) -> None:
    exporting = Exporting(await start_plane(tensorflow_executor=NOBODY))
    error = await exporting.failure(await exporting.finished())
    assert (error.reason_name, error.metadata["address"]) == ("SERVICE_UNAVAILABLE", NOBODY)


async def test_a_damaged_model_is_not_converted(exporting: Exporting, tmp_path: Path) -> None:
    result_id = await exporting.finished()
    stored = next(path for path in (tmp_path / "artifacts").rglob("*") if path.is_file())
    stored.write_bytes(b"weightz")
    assert (await exporting.failure(result_id)).reason_name == "DIGEST_MISMATCH"


def numbers_in(kafka: KafkaSettings, topic: str, count: int, partitions: int) -> stream_pb2.Stream:
    """A stream of the numbers from 0 on, one after the other in one partition after the other."""
    producer = kafka.producer()
    each = count // partitions
    for number in range(count):
        value = np.int32(number).tobytes()
        producer.produce(topic, value=value, key=b"\0", partition=number // each)
    assert producer.flush(30) == 0
    return stream_pb2.Stream(
        ranges=parse_ranges(",".join(f"{topic}:{number}:0:{each}" for number in range(partitions))),
        input_format=stream_pb2.DATA_FORMAT_RAW,
        input_config={"data_type": "int32", "data_reshape": "1", "label_type": "uint8", "label_reshape": ""},
        record_count=count,
    )


async def seen(exporting: Exporting, result_id: int) -> list[int]:
    """The numbers that the model was calibrated with."""
    await exporting.export(result_id, "tflite_int8")
    content = await download(exporting.plane, result_id, "model.int8.tflite")
    return sorted(np.frombuffer(content, "<i4").tolist())


async def test_calibration_sees_records_from_all_over_the_stream(
    start: Start, kafka: KafkaSettings, topic: Callable[..., str]
) -> None:
    exporting = await start(kafka=kafka.bootstrap_servers)
    stream = numbers_in(kafka, topic(partitions=2), 4000, 2)
    numbers = await seen(exporting, await exporting.finished(SEEN, stream))
    assert 0.9 * ROWS <= len(set(numbers)) == len(numbers) <= 1.1 * ROWS
    assert max(np.diff([0, *numbers, 4000])) < 250


async def test_calibration_takes_what_is_left_of_a_stream_and_says_when_nothing_is(
    start: Start, kafka: KafkaSettings, topic: Callable[..., str]
) -> None:
    exporting = await start(kafka=kafka.bootstrap_servers)
    name = topic()
    stream = numbers_in(kafka, name, 1000, 1)
    delete_records(kafka, name, 900)
    assert await seen(exporting, await exporting.finished(SEEN, stream)) == list(range(900, 1000))
    delete_records(kafka, name, 1000)
    result_id = await exporting.finished(f"{SEEN}  # again", stream)
    error = await exporting.failure(result_id, "tflite_int8")
    assert error.reason_name == "DATA_EXPIRED"
    assert (error.metadata["topic"], error.metadata["low"]) == (name, "1000")
    # What needs no records is exported all the same.
    assert (await exporting.export(await exporting.finished())).name == "model.onnx"


def delete_records(kafka: KafkaSettings, topic: str, before: int) -> None:
    admin = kafka.admin()
    for deleted in admin.delete_records([TopicPartition(topic, 0, before)]).values():
        deleted.result(10)


async def test_an_upload_that_calls_itself_an_export_replaces_nothing(exporting: Exporting, tmp_path: Path) -> None:
    result_id = await exporting.finished()
    artifact = result_pb2.Artifact(name="model.keras", size_bytes=3, sha256=digest(b"new"))
    header = api.UploadHeader(result_id=result_id, artifact=artifact, is_export=True)
    sent = [api.UploadArtifactRequest(header=header), api.UploadArtifactRequest(chunk=b"new")]
    answered: result_pb2.Artifact = await exporting.plane.collector.UploadArtifact(iter(sent))
    assert answered.sha256 == digest(b"weights")
    assert await download(exporting.plane, result_id) == b"weights"
    assert stored_files(tmp_path) == [digest(b"weights")]


async def test_a_result_that_runs_takes_no_export(exporting: Exporting) -> None:
    result_id = (await exporting.plane.training("runs")).result_ids[0]
    requests = list(parts(result_id, b"new"))
    requests[0].header.is_export = True
    with pytest.raises(HeadraceError) as caught:
        await exporting.plane.collector.UploadArtifact(iter(requests))
    assert caught.value.reason_name == "WRONG_STATE"


async def bundle(exporting: Exporting, result_id: int) -> bytes:
    request = api.DownloadResultRequest(result_id=result_id)
    return b"".join([part.data async for part in exporting.plane.collector.DownloadResult(request)])


async def test_a_download_of_all_has_every_file_and_says_how_to_load_each(exporting: Exporting) -> None:
    result_id = await exporting.finished()
    onnx = await exporting.export(result_id)
    content = await bundle(exporting, result_id)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["README.md", "model.py", "model.keras", "model.onnx"]
        assert archive.read("model.keras") == b"weights"
        assert digest(archive.read("model.onnx")) == onnx.sha256
        assert RANDOM in archive.read("model.py").decode()
        readme = archive.read("README.md").decode()
    for text in ("### model.keras", "### model.onnx", "`samples`", "(batch, 3)", onnx.sha256, "plain 1"):
        assert text in readme
    assert await bundle(exporting, result_id) == content


async def test_a_result_without_a_file_has_nothing_to_download(exporting: Exporting) -> None:
    result_id = (await exporting.plane.training("runs")).result_ids[0]
    with pytest.raises(HeadraceError) as caught:
        await bundle(exporting, result_id)
    assert caught.value.reason_name == "NO_ARTIFACT"


async def test_the_files_of_a_deleted_result_go_with_it(exporting: Exporting, tmp_path: Path) -> None:
    result_id = await exporting.finished()
    await exporting.export(result_id)
    await exporting.plane.collector.DeleteResult(api.DeleteResultRequest(id=result_id))
    assert stored_files(tmp_path) == []
