"""Following a training over broken connections: every event once, to the end."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from cli.board import Board, metric_curves
from cli.following import follow
from headrace.client import connect
from headrace.errors import DeadlineExceeded, NotFound
from headrace.v1 import deployment_manager_pb2_grpc, deployment_pb2, result_collector_pb2_grpc, result_pb2

EPOCHS = 7


def _events() -> list[result_pb2.ResultEvent]:
    """What a training of seven epochs stores: states, epochs, the end."""
    events = [result_pb2.ResultEvent(sequence=1, result_id=1)]
    events[0].result.CopyFrom(result_pb2.Result(id=1, model_name="digits", state=deployment_pb2.STATE_TRAINING))
    for number in range(1, EPOCHS + 1):
        event = result_pb2.ResultEvent(sequence=1 + number, result_id=1)
        event.epoch.number = number
        event.epoch.metrics.splits["training"].values["loss"] = 1 / number
        events.append(event)
    last = result_pb2.ResultEvent(sequence=EPOCHS + 2, result_id=1)
    last.result.CopyFrom(result_pb2.Result(id=1, model_name="digits", state=deployment_pb2.STATE_FINISHED, version=3))
    return [*events, last]


class _Collector(result_collector_pb2_grpc.ResultCollectorServicer):
    """Breaks the stream after every second event; sends a keep-alive first, which is no event."""

    def __init__(self) -> None:
        self.calls = 0

    def WatchResults(self, request: Any, context: grpc.ServicerContext) -> Iterator[result_pb2.ResultEvent]:
        self.calls += 1
        if request.deployment_id != 5:
            context.abort(grpc.StatusCode.NOT_FOUND, "there is no such deployment")
        left = [event for event in _events() if event.sequence > request.after_sequence]
        yield result_pb2.ResultEvent(sequence=request.after_sequence)
        yield from left[:2]
        if len(left) > 2:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the server is stopping")


class _Manager(deployment_manager_pb2_grpc.DeploymentManagerServicer):
    def GetDeployment(self, request: Any, context: grpc.ServicerContext) -> deployment_pb2.Deployment:
        return deployment_pb2.Deployment(id=5, state=deployment_pb2.STATE_FINISHED)


@contextmanager
def _serving(collector: _Collector) -> Iterator[grpc.Channel]:
    server = grpc.server(ThreadPoolExecutor(4))
    result_collector_pb2_grpc.add_ResultCollectorServicer_to_server(collector, server)
    deployment_manager_pb2_grpc.add_DeploymentManagerServicer_to_server(_Manager(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with connect(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        server.stop(0).wait()


def test_every_event_comes_once_and_in_order_over_broken_streams() -> None:
    collector = _Collector()
    with _serving(collector) as channel:
        events = list(follow(channel, deployment_id=5))
    assert [event.sequence for event in events] == list(range(1, EPOCHS + 3))
    assert collector.calls == 5


def test_what_does_not_exist_is_not_tried_again() -> None:
    collector = _Collector()
    with _serving(collector) as channel, pytest.raises(NotFound):
        list(follow(channel, deployment_id=6))
    assert collector.calls == 1


def test_a_training_that_does_not_end_in_time_is_told() -> None:
    with _serving(_Collector()) as channel, pytest.raises(DeadlineExceeded):
        list(follow(channel, deployment_id=5, timeout_s=0))


def test_the_board_knows_what_was_told(capsys: pytest.CaptureFixture[str]) -> None:
    with Board([result_pb2.Result(id=1, model_name="digits")]) as board:
        assert not board.has_ended()
        for event in _events():
            board.update(event)
    assert board.has_ended()
    (card,) = board.cards.values()
    assert metric_curves(card.epochs, "loss") == {"training": [1 / number for number in range(1, EPOCHS + 1)]}
    assert card.result.version == 3
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "digits: training"
    assert said[1] == "digits: epoch 1 · training loss 1.0000"
    assert said[-1] == "digits: finished"
