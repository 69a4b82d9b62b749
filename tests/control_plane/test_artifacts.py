"""Uploads and downloads of a result's files."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from control_plane.store import results
from headrace.chunks import CHUNK_BYTES
from headrace.errors import (
    DataLoss,
    FailedPrecondition,
    HeadraceError,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)
from headrace.v1 import deployment_pb2, result_pb2
from headrace.v1 import result_collector_pb2 as api
from tests.control_plane.conftest import Plane, StartPlane

CONTENT = bytes(range(256)) * 2600  # two chunks and a half


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def an_artifact(content: bytes = CONTENT, name: str = "model.keras") -> result_pb2.Artifact:
    return result_pb2.Artifact(name=name, media_type="application/zip", size_bytes=len(content), sha256=digest(content))


def parts(
    result_id: int,
    content: bytes = CONTENT,
    *,
    artifact: result_pb2.Artifact | None = None,
    offset: int = 0,
    attempt: int = 1,
) -> Iterator[api.UploadArtifactRequest]:
    header = api.UploadHeader(
        result_id=result_id, attempt=attempt, artifact=artifact or an_artifact(content), offset=offset
    )
    yield api.UploadArtifactRequest(header=header)
    for start in range(offset, len(content), CHUNK_BYTES):
        yield api.UploadArtifactRequest(chunk=content[start : start + CHUNK_BYTES])


async def upload(plane: Plane, result_id: int, content: bytes = CONTENT, **more: Any) -> result_pb2.Artifact:
    stored: result_pb2.Artifact = await plane.collector.UploadArtifact(parts(result_id, content, **more))
    return stored


async def download(plane: Plane, result_id: int, name: str = "model.keras", offset: int = 0) -> bytes:
    request = api.DownloadArtifactRequest(result_id=result_id, name=name, offset=offset)
    return b"".join([part.data async for part in plane.collector.DownloadArtifact(request)])


async def held(plane: Plane, result_id: int, content: bytes = CONTENT) -> int:
    answer = await plane.collector.GetUpload(api.GetUploadRequest(result_id=result_id, sha256=digest(content)))
    return int(answer.offset)


def stored_files(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "artifacts").rglob("*") if path.is_file())


@pytest.fixture
async def result_id(plane: Plane) -> int:
    return (await plane.training("a")).result_ids[0]


async def test_what_is_uploaded_is_downloaded(plane: Plane, result_id: int, tmp_path: Path) -> None:
    assert await upload(plane, result_id) == an_artifact()
    assert stored_files(tmp_path) == [digest(CONTENT)]
    assert await download(plane, result_id) == CONTENT
    assert await download(plane, result_id, "model", offset=300_000) == CONTENT[300_000:]
    assert await download(plane, result_id, offset=len(CONTENT)) == b""
    result = await plane.store.read(partial(results.get, result_id))
    assert list(result.artifacts) == [an_artifact()]


async def test_model_is_the_name_of_the_first_artifact(plane: Plane, result_id: int) -> None:
    await upload(plane, result_id)
    await upload(plane, result_id, b"other", artifact=an_artifact(b"other", "model.onnx"))
    assert await download(plane, result_id, "model") == CONTENT
    assert await download(plane, result_id, "model.onnx") == b"other"


async def test_an_empty_file_is_a_file(plane: Plane, result_id: int) -> None:
    await upload(plane, result_id, b"")
    assert await download(plane, result_id) == b""


async def test_an_upload_goes_on_where_it_broke_off(plane: Plane, result_id: int, tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[api.UploadArtifactRequest]:
        for part in list(parts(result_id))[:3]:
            yield part
        await asyncio.Event().wait()

    uploading = asyncio.ensure_future(plane.collector.UploadArtifact(broken()))
    async with asyncio.timeout(10):
        while await held(plane, result_id) < 2 * CHUNK_BYTES:
            await asyncio.sleep(0.01)
    uploading.cancel()
    assert stored_files(tmp_path) == []
    offset = await held(plane, result_id)
    await upload(plane, result_id, offset=offset)
    assert await download(plane, result_id) == CONTENT
    assert await held(plane, result_id) == len(CONTENT)
    assert list((tmp_path / "uploads").iterdir()) == []


async def test_a_second_call_takes_an_upload_over(plane: Plane, result_id: int) -> None:
    """The first one's connection is gone, but the server does not know yet."""
    stuck_ends = asyncio.Event()

    async def stuck() -> AsyncIterator[api.UploadArtifactRequest]:
        first, chunk, *rest = parts(result_id)
        yield first
        yield chunk
        await stuck_ends.wait()
        for part in rest:
            yield part

    uploading = asyncio.ensure_future(plane.collector.UploadArtifact(stuck()))
    async with asyncio.timeout(10):
        while await held(plane, result_id) < CHUNK_BYTES:
            await asyncio.sleep(0.01)
    await upload(plane, result_id, offset=CHUNK_BYTES)
    stuck_ends.set()
    with pytest.raises(HeadraceError):
        await uploading
    assert await download(plane, result_id) == CONTENT


async def test_bytes_that_are_not_the_promised_are_refused_and_forgotten(
    plane: Plane, result_id: int, tmp_path: Path
) -> None:
    wrong = bytes(len(CONTENT))
    with pytest.raises(DataLoss) as caught:
        await upload(plane, result_id, wrong, artifact=an_artifact())
    assert caught.value.reason_name == "DIGEST_MISMATCH"
    assert caught.value.metadata["promised_sha256"] == digest(CONTENT)
    assert caught.value.metadata["sha256"] == digest(wrong)
    assert stored_files(tmp_path) == []
    assert await held(plane, result_id) == 0
    with pytest.raises(NotFound) as missing:
        await download(plane, result_id)
    assert missing.value.reason_name == "NO_ARTIFACT"
    await upload(plane, result_id)
    assert await download(plane, result_id) == CONTENT


async def test_too_few_bytes_are_refused(plane: Plane, result_id: int) -> None:
    with pytest.raises(DataLoss):
        await upload(plane, result_id, CONTENT[:-1], artifact=an_artifact())


async def test_too_many_bytes_are_refused_as_they_come(plane: Plane, result_id: int) -> None:
    with pytest.raises(InvalidArgument):
        await upload(plane, result_id, CONTENT + b"x", artifact=an_artifact())


async def test_an_upload_cannot_begin_beyond_what_is_held(plane: Plane, result_id: int) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        await upload(plane, result_id, offset=5)
    assert caught.value.metadata["held_bytes"] == "0"


async def test_an_older_attempt_cannot_upload(plane: Plane, result_id: int) -> None:
    await plane.store.write(partial(results.start_attempt, result_id))
    with pytest.raises(FailedPrecondition) as caught:
        await upload(plane, result_id)
    assert caught.value.reason_name == "FENCED"


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "model", ".hidden", "a/b", "x" * 200])
async def test_a_bad_name_is_refused(plane: Plane, result_id: int, name: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await upload(plane, result_id, artifact=an_artifact(name=name))
    assert [bad.field for bad in caught.value.fields] == ["header.artifact.name"]


@pytest.mark.parametrize("sha256", ["", "../../x", "A" * 64, "a" * 63])
async def test_a_bad_digest_is_refused(plane: Plane, result_id: int, sha256: str) -> None:
    artifact = an_artifact()
    artifact.sha256 = sha256
    with pytest.raises(InvalidArgument):
        await upload(plane, result_id, artifact=artifact)
    with pytest.raises(InvalidArgument):
        await plane.collector.GetUpload(api.GetUploadRequest(result_id=result_id, sha256=sha256))


async def test_an_upload_without_a_header_is_refused(plane: Plane) -> None:
    for requests in ([], [api.UploadArtifactRequest(chunk=b"x")]):
        with pytest.raises(InvalidArgument) as caught:
            await plane.collector.UploadArtifact(iter(requests))
        assert caught.value.reason_name == "MALFORMED_REQUEST"


async def test_the_same_bytes_are_stored_once_and_kept_until_nobody_has_them(plane: Plane, tmp_path: Path) -> None:
    deployment = await plane.training("a", "b")
    for one in deployment.result_ids:
        await upload(plane, one)
    assert stored_files(tmp_path) == [digest(CONTENT)]
    first, second = deployment.result_ids
    for one in (first, second):
        await plane.store.write(partial(results.set_state, one, deployment_pb2.STATE_FINISHED))
    await plane.collector.DeleteResult(api.DeleteResultRequest(id=first))
    assert await download(plane, second) == CONTENT
    await plane.collector.DeleteResult(api.DeleteResultRequest(id=second))
    assert stored_files(tmp_path) == []


async def test_a_file_that_is_gone_is_a_loss_of_data(plane: Plane, result_id: int, tmp_path: Path) -> None:
    await upload(plane, result_id)
    (tmp_path / "artifacts" / digest(CONTENT)[:2] / digest(CONTENT)).unlink()
    with pytest.raises(DataLoss) as caught:
        await download(plane, result_id)
    assert caught.value.metadata["sha256"] == digest(CONTENT)


async def test_an_offset_outside_the_file_is_refused(plane: Plane, result_id: int) -> None:
    await upload(plane, result_id)
    for offset in (-1, len(CONTENT) + 1):
        with pytest.raises(InvalidArgument):
            await download(plane, result_id, offset=offset)


async def test_artifacts_may_live_wherever_fsspec_reaches(start_plane: StartPlane) -> None:
    plane = await start_plane(artifacts="memory://artifacts")
    (result_id,) = (await plane.training("a")).result_ids
    await upload(plane, result_id)
    assert await download(plane, result_id, offset=10) == CONTENT[10:]
    await plane.store.write(partial(results.set_state, result_id, deployment_pb2.STATE_FINISHED))
    await plane.collector.DeleteResult(api.DeleteResultRequest(id=result_id))
    assert await held(plane, (await plane.training("b")).result_ids[0]) == 0


async def test_a_full_disk_is_named(plane: Plane, result_id: int, tmp_path: Path) -> None:
    """/dev/full takes no byte."""
    uploads = tmp_path / "uploads"
    uploads.mkdir(exist_ok=True)
    (uploads / f"{result_id}-{digest(CONTENT)}.part").symlink_to("/dev/full")
    with pytest.raises(ResourceExhausted) as caught:
        await upload(plane, result_id)
    assert caught.value.reason_name == "DISK_FULL"
