"""Streams: JSON lines, server-sent events that resume, downloads, and their ends."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import pytest_asyncio
from google.api import httpbody_pb2

from gateway.server import serving
from gateway.settings import Settings
from headrace.errors import Aborted, DataLoss, NotFound, Unavailable
from headrace.v1 import deployment_pb2, error_pb2, predictions_pb2, result_pb2
from tests.gateway.conftest import Behind
from tests.gateway.inmemory import ControlPlane, controlling

pytestmark = pytest.mark.asyncio(loop_scope="module")

EVENTS = {"accept": "text/event-stream"}


@dataclass
class Event:
    """One server-sent event."""

    name: str = "message"
    id: str = ""
    data: Any = None


@dataclass
class Events:
    """A reader of server-sent events over one response."""

    response: httpx.Response
    comments: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lines = self.response.aiter_lines()

    async def next(self) -> Event | None:
        """The next event; None at the end."""
        event = Event()
        async for line in self._lines:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if not line and event.data is not None:
                return event
            if not line:
                event = Event()
            elif not name:
                self.comments.append(value)
            elif name == "event":
                event.name = value
            elif name == "id":
                event.id = value
            elif name == "data":
                event.data = json.loads(value)
        return None

    async def until(self, name: str) -> list[Event]:
        """Every event up to the next one of this name."""
        found: list[Event] = []
        while True:
            event = await asyncio.wait_for(self.next(), 10)
            assert event is not None, f"the stream ended after {found}"
            found.append(event)
            if event.name == name:
                return found


@dataclass(frozen=True)
class Watched:
    plane: ControlPlane
    http: httpx.AsyncClient


@pytest_asyncio.fixture(loop_scope="module")
async def watched() -> AsyncIterator[Watched]:
    """A gateway in front of a control plane in memory."""
    async with controlling() as plane:
        settings = Settings(listen="127.0.0.1:0", address=f"127.0.0.1:{plane.port}")
        async with serving(settings) as gateway, httpx.AsyncClient(base_url=gateway.url, timeout=20) as http:
            yield Watched(plane, http)


async def test_a_watch_is_json_lines(watched: Watched) -> None:
    deployment = watched.plane.train("keras", "torch")
    watched.plane.epoch(1, 1, {"training": {"loss": 2.5}})
    async with watched.http.stream("GET", f"/v1/deployments/{deployment.id}:watch") as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/x-ndjson"
        lines = response.aiter_lines()
        found = [json.loads(await anext(lines)) for _ in range(3)]
        watched.plane.epoch(2, 1, {"training": {"loss": 2.25}})
        watched.plane.enter(1, deployment_pb2.STATE_FINISHED)
        watched.plane.enter(2, deployment_pb2.STATE_CANCELLED)
        found += [json.loads(line) async for line in lines]
    assert [set(line) for line in found] == [{"result"}] * 6
    assert [line["result"]["sequence"] for line in found] == ["1", "2", "3", "4", "5", "6"]
    assert found[2]["result"]["epoch"]["metrics"]["splits"]["training"]["values"] == {"loss": 2.5}
    assert "progress" not in found[2]["result"]


async def test_events_have_ids_and_an_end(watched: Watched) -> None:
    deployment = watched.plane.train("keras")
    watched.plane.enter(1, deployment_pb2.STATE_FINISHED)
    async with watched.http.stream("GET", f"/v1/deployments/{deployment.id}:watch", headers=EVENTS) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        *found, end = await Events(response).until("end")
    assert [(event.id, event.data["sequence"]) for event in found] == [("1", "1"), ("2", "2")]
    assert found[1].data["result"]["state"] == "STATE_FINISHED"
    assert (end.id, end.data) == ("", {})


async def test_a_client_that_comes_back_misses_nothing_and_sees_nothing_twice(watched: Watched) -> None:
    deployment = watched.plane.train("keras", "torch")
    path = f"/v1/deployments/{deployment.id}:watch"
    seen: list[str] = []
    for number in range(1, 8):
        headers = {**EVENTS, "last-event-id": seen[-1]} if seen else EVENTS
        async with watched.http.stream("GET", path, headers=headers) as response:
            events = Events(response)
            watched.plane.epoch(1, number, {"training": {"loss": 1.0}})
            watched.plane.epoch(2, number, {"training": {"loss": 1.0}})
            while not seen or int(seen[-1]) < watched.plane.events[-1].sequence - 1:
                event = await asyncio.wait_for(events.next(), 10)
                assert event is not None
                seen.append(event.id)
        assert response.status_code == 200
    assert [int(one) for one in seen] == list(range(1, watched.plane.events[-1].sequence))


async def test_coming_back_to_what_has_ended_is_no_content(watched: Watched) -> None:
    deployment = watched.plane.train("keras")
    watched.plane.enter(1, deployment_pb2.STATE_FINISHED)
    path = f"/v1/deployments/{deployment.id}:watch"
    assert (await watched.http.get(path, headers={**EVENTS, "last-event-id": "2"})).status_code == 204
    assert (await watched.http.get(path + "?afterSequence=2", headers=EVENTS)).status_code == 204
    assert (await watched.http.get(path, headers={**EVENTS, "last-event-id": "1"})).status_code == 200


async def test_a_bad_last_event_id_is_refused(watched: Watched) -> None:
    watched.plane.train("keras")
    answer = await watched.http.get("/v1/deployments/1:watch", headers={**EVENTS, "last-event-id": "x"})
    assert (answer.status_code, answer.json()["code"]) == (400, 3)


async def test_a_failure_before_the_first_message_has_its_status(watched: Watched) -> None:
    for headers in ({}, EVENTS):
        answer = await watched.http.get("/v1/deployments/77:watch", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (404, 5)


@pytest.mark.parametrize(
    ("error", "resume"),
    [
        (Unavailable(error_pb2.REASON_SERVICE_UNAVAILABLE, "gone"), True),
        (Aborted(error_pb2.REASON_WATCH_LAGGED, "slow", resume_after=1), True),
        (NotFound(error_pb2.REASON_RESOURCE_NOT_FOUND, "deleted"), False),
    ],
)
async def test_a_failure_in_between_says_whether_to_come_back(behind: Behind, error: Any, resume: bool) -> None:
    behind.echo.answers["WatchResults"] = [result_pb2.ResultEvent(sequence=1, epoch={"number": 1}), error]
    async with behind.http.stream("GET", "/v1/results/1:watch", headers=EVENTS) as response:
        first, failure = await Events(response).until("failure")
    assert (first.id, failure.data["resume"]) == ("1", resume)
    assert failure.data["error"]["details"][0]["reason"] == error.reason_name
    answer = await behind.http.get("/v1/results/1:watch")
    last = json.loads(answer.text.splitlines()[-1])
    assert last["error"]["code"] == error.code


async def test_keep_alives_are_comments(behind: Behind) -> None:
    behind.echo.answers["WatchResults"] = [result_pb2.ResultEvent(sequence=1)]
    behind.echo.answers["WatchPredictions"] = [predictions_pb2.PredictionEvent()]
    behind.echo.silent |= {"WatchResults", "WatchPredictions", "WatchLogs"}
    for path in ("/v1/results/1:watch", "/v1/inferences/1:watch", "/v1/inferences/1:watchLogs"):
        async with behind.http.stream("GET", path, headers=EVENTS) as response:
            lines = response.aiter_lines()
            comments = 0
            async with asyncio.timeout(10):
                while comments < 3:
                    line = await anext(lines)
                    assert not line.startswith(("data", "id", "event")), line
                    comments += line.startswith(":")


async def test_a_client_that_goes_away_ends_the_call(behind: Behind) -> None:
    for headers in ({}, EVENTS):
        behind.echo.cancelled.clear()
        behind.echo.silent.add("WatchResults")
        async with behind.http.stream("GET", "/v1/results/1:watch", headers=headers) as response:
            assert response.status_code == 200
        await asyncio.wait_for(behind.echo.cancelled.wait(), 5)


async def test_many_watchers_leave_room_for_calls(watched: Watched) -> None:
    deployment = watched.plane.train("keras")
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=watched.http.base_url, limits=limits, timeout=20) as many:

        async def watch() -> int:
            return (await many.get(f"/v1/deployments/{deployment.id}:watch", headers=EVENTS)).text.count("data:")

        watches = [asyncio.create_task(watch()) for _ in range(170)]
        async with asyncio.timeout(15):
            while watched.plane.watchers < len(watches):
                assert (await watched.http.get(f"/v1/deployments/{deployment.id}")).status_code == 200
        watched.plane.enter(1, deployment_pb2.STATE_FINISHED)
        counts = await asyncio.gather(*watches)
    assert set(counts) == {3}  # created, finished, the end


async def test_logs_stream_and_end(watched: Watched) -> None:
    deployment = watched.plane.train("keras")
    watched.plane.log("deployment", deployment.id, "train-1-a1", "one", "zwei ü")
    async with watched.http.stream("GET", f"/v1/deployments/{deployment.id}:watchLogs", headers=EVENTS) as response:
        events = Events(response)
        found = [await events.next(), await events.next()]
        watched.plane.log("deployment", deployment.id, "train-1-a1", "three")
        watched.plane.enter(1, deployment_pb2.STATE_FINISHED)
        found += await events.until("end")
    lines = [line for event in found[:-1] if event for line in event.data["lines"]]
    assert lines == ["one", "zwei ü", "three"]
    answer = await watched.http.get(f"/v1/deployments/{deployment.id}:watchLogs?noFollow=true")
    assert len(answer.text.splitlines()) == 3


async def test_a_download_is_the_bytes_with_name_and_size(watched: Watched) -> None:
    watched.plane.train("keras")
    data = bytes(range(256)) * 40
    watched.plane.files[1, "model ü.keras"] = data
    answer = await watched.http.get("/v1/results/1/artifacts/model%20%C3%BC.keras:download")
    assert answer.content == data
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-length"] == str(len(data))
    assert answer.headers["content-disposition"] == "attachment; filename*=utf-8''model%20%C3%BC.keras"
    rest = await watched.http.get("/v1/results/1/artifacts/model%20%C3%BC.keras:download?offset=10000")
    assert rest.content == data[10000:]


async def test_a_download_that_is_made_as_it_is_sent_has_a_name_and_no_size(behind: Behind) -> None:
    first = httpbody_pb2.HttpBody(content_type="application/zip", data=b"some")
    first.extensions.add().Pack(result_pb2.Artifact(name="all.zip"))
    behind.echo.answers["DownloadResult"] = [first, httpbody_pb2.HttpBody(data=b" more")]
    answer = await behind.http.get("/v1/results/1:download")
    assert answer.content == b"some more"
    assert "content-length" not in answer.headers
    assert answer.headers["content-disposition"] == "attachment; filename*=utf-8''all.zip"


async def test_a_download_that_fails_half_way_is_no_whole_file(behind: Behind) -> None:
    behind.echo.answers["DownloadArtifact"] = [
        httpbody_pb2.HttpBody(content_type="application/zip", data=b"half"),
        DataLoss(error_pb2.REASON_DIGEST_MISMATCH, "rotten"),
    ]
    with pytest.raises(httpx.RemoteProtocolError):
        await behind.http.get("/v1/results/1/artifacts/model:download")
    behind.echo.answers["DownloadArtifact"] = [NotFound(error_pb2.REASON_NO_ARTIFACT, "none")]
    assert (await behind.http.get("/v1/results/1/artifacts/model:download")).status_code == 404


async def test_a_gateway_that_stops_lets_its_watchers_come_back() -> None:
    async with controlling() as plane, httpx.AsyncClient(timeout=20) as http:
        plane.train("keras")
        settings = Settings(listen="127.0.0.1:0", address=f"127.0.0.1:{plane.port}")
        closed = asyncio.Event()

        async def watch(response: httpx.Response) -> list[Event]:
            events = Events(response)
            first = await events.next()
            assert first is not None
            closed.set()
            return [first, *await events.until("failure")]

        async with serving(settings) as gateway:
            request = http.build_request("GET", f"{gateway.url}/v1/deployments/1:watch", headers=EVENTS)
            watching = asyncio.create_task(watch(await http.send(request, stream=True)))
            await closed.wait()
        first, failure = await asyncio.wait_for(watching, 5)
    assert (first.id, failure.data["resume"], failure.data["error"]["code"]) == ("1", True, 14)
