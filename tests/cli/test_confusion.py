"""Confusion matrices and places in the queue, as the terminal shows them."""

from __future__ import annotations

import numpy as np
import pytest

from cli.board import Board
from cli.confusion import print_confusion
from headrace.v1 import deployment_pb2, result_pb2


def test_few_classes_are_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_confusion(result_pb2.ConfusionMatrix(labels=["cat", "dog"], counts=[31, 7, 2, 45]))
    header, *rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert header[-2:] == ["cat", "dog"]
    assert rows == [["cat", "31", "7"], ["dog", "2", "45"]]


def test_of_many_classes_the_most_confused_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    counts = np.diag(np.full(30, 9))
    counts[4, 9] = 3
    counts[7, 1] = 1
    labels = [f"c{number}" for number in range(30)]
    print_confusion(result_pb2.ConfusionMatrix(labels=labels, counts=counts.ravel().tolist()))
    said, _, *rows = capsys.readouterr().out.splitlines()
    assert "270 of 274 are right" in said
    assert [row.split() for row in rows] == [["3", "c4", "c9", "25.0%"], ["1", "c7", "c1", "10.0%"]]


def test_a_board_says_why_a_training_waits(capsys: pytest.CaptureFixture[str]) -> None:
    place = deployment_pb2.QueuePlace(place=3, message="3rd of 5 in the queue")
    with Board([result_pb2.Result(id=7, model_name="digits")]) as board:
        board.update(result_pb2.ResultEvent(result_id=7, queue=place))
        assert board.cards[7].queue == "3rd of 5 in the queue"
        started = result_pb2.Result(id=7, model_name="digits", state=deployment_pb2.STATE_STARTING)
        board.update(result_pb2.ResultEvent(result_id=7, result=started))
        assert not board.cards[7].queue
    assert capsys.readouterr().out.splitlines() == ["digits: 3rd of 5 in the queue", "digits: starting"]
