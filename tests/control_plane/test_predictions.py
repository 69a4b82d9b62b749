"""Answers of inferences, through real topics. The inferencer here is a thread that sums its samples."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import Any

import numpy as np
import pytest
from google.protobuf import duration_pb2, json_format, struct_pb2

from control_plane.answers import prediction_of, source_of
from control_plane.kafka_clusters import Clusters
from control_plane.store import inferences, reports, results
from control_plane.tails import Tails
from headrace.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from headrace.v1 import deployment_pb2, inference_pb2, stream_pb2
from headrace.v1 import predictions_pb2 as api
from headrace.v1.result_collector_pb2 import Outcome, ReportRequest
from inferencer.answers import Encode, encode_answers, encoder_of
from streams.answers import inference_group
from streams.codecs import Codec, codec_for, codec_of
from streams.follow import TopicFollower
from streams.kafka import KafkaSettings, Message, ensure_topics, headers_of
from streams.outputs import AnswerReader, output_config
from streams.writer import BatchProducer, StreamProducer
from tests.control_plane.conftest import Plane, StartPlane
from tests.inferencer.replica import INPUT_CONFIG, Fixed, adder, run_replica
from tests.streams.log import delete_topic, write_with_raw_header
from tests.support import eventually, on_thread

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CONFIG = {"data_type": "float32", "data_reshape": "2 2"}


class Summing:
    """Answers each sample of four numbers with its sum and its maximum; one that has a 13 becomes a dead letter."""

    def __init__(
        self,
        kafka: KafkaSettings,
        input_topic: str,
        output_topic: str,
        *,
        encode: Encode = encode_answers,
        codec: Codec | None = None,
    ) -> None:
        self._encode = encode
        self._codec = codec or codec_for(stream_pb2.DATA_FORMAT_RAW, CONFIG)
        self._kafka, self._input, self._output = kafka, input_topic, output_topic
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="summing")

    def __enter__(self) -> Summing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with TopicFollower(self._kafka, self._input, {}) as questions, BatchProducer(self._kafka) as answers:
            while not self._stop.is_set():
                for question in questions.read(0.1):
                    self._answer(question, answers)
                answers.flush()

    def _answer(self, question: Message, answers: BatchProducer) -> None:
        source = f"{question.topic()}/{question.partition()}/{question.offset()}"
        headers = [
            *headers_of(question),
            ("headrace-source", source.encode()),
            ("headrace-model", b"sums/1"),
        ]
        row = self._codec.decode_samples([question.value()]).rows[0].reshape(-1)
        if 13 in row:
            refused = [("headrace-error", b"DECODE_ERROR"), ("headrace-error-message", b"13 is unlucky")]
            answers.produce(f"{self._input}.dead-letters", None, question.value(), [*headers, *refused])
        else:
            (body,) = self._encode({"output": np.array([[row.sum(), row.max()]])})
            assert isinstance(body, bytes)
            answers.produce(self._output, question.key(), body, headers)


@pytest.fixture
def topics(kafka: KafkaSettings, topic: Callable[..., str]) -> tuple[str, str]:
    """(input, output)"""
    input_topic, output_topic = topic(2), topic()
    ensure_topics(kafka, {f"{input_topic}.dead-letters": 1})
    return input_topic, output_topic


@pytest.fixture
def summing(kafka: KafkaSettings, topics: tuple[str, str]) -> Iterator[None]:
    with Summing(kafka, *topics):
        yield


async def an_inference(plane: Plane, topics: tuple[str, str], **fields: Any) -> inference_pb2.Inference:
    """Of a finished result that was trained on CONFIG."""
    (result_id,) = (await plane.training("sums")).result_ids
    stream = stream_pb2.Stream(input_format=stream_pb2.DATA_FORMAT_RAW, input_config=CONFIG)
    known = ReportRequest(seq=1, outcome=Outcome(stream=stream))
    await plane.store.write(partial(reports.store, result_id, 1, [known]))
    await plane.store.write(partial(results.set_state, result_id, deployment_pb2.STATE_FINISHED))
    wish = inference_pb2.Inference(
        name="sums", result_id=result_id, replicas=1, input_topic=topics[0], output_topic=topics[1], **fields
    )
    return await plane.store.write(partial(inferences.create, wish))


def another(like: inference_pb2.Inference, name: str) -> inference_pb2.Inference:
    """To be created: one of the same result, between the same topics."""
    wish = inference_pb2.Inference()
    wish.CopyFrom(like)
    wish.id, wish.name = 0, name
    return wish


def question(inference_id: int, sample: Any, wait_s: float | None = None) -> api.PredictRequest:
    value = json_format.ParseDict(sample, struct_pb2.Value())
    wait = None if wait_s is None else duration_pb2.Duration(nanos=int(wait_s * 1e9))
    return api.PredictRequest(inference_id=inference_id, sample=value, wait=wait)


@pytest.mark.usefixtures("summing")
async def test_a_question_gets_its_own_answer(
    start_plane: StartPlane, kafka: KafkaSettings, topics: tuple[str, str]
) -> None:
    plane = await start_plane(kafka=kafka.bootstrap_servers)
    inference = await an_inference(plane, topics)
    asked = [
        plane.predictions.Predict(
            question(inference.id, [[number, 1], [2, 3]]), timeout=30, metadata=[("traceparent", TRACE)]
        )
        for number in range(5)
    ]
    answers = [answer.prediction for answer in await asyncio.gather(*asked)]
    assert [list(answer.values) for answer in answers] == [[number + 6.0, max(number, 3.0)] for number in range(5)]
    assert {answer.source.topic for answer in answers} == {topics[0]}
    assert {answer.model for answer in answers} == {"sums/1"}
    assert len({(answer.source.partition, answer.source.offset) for answer in answers}) == 5
    with TopicFollower(kafka, topics[1], {}) as follower:
        traced = eventually(lambda: [dict(headers_of(answer)).get("traceparent") for answer in follower.read(0.5)])
    assert traced == [TRACE.encode()] * 5
    # A flat list is a row too.
    flat = await plane.predictions.Predict(question(inference.id, [1, 2, 3, 4]), timeout=30)
    assert list(flat.prediction.values) == [10, 4]


@pytest.mark.usefixtures("summing")
async def test_a_question_that_becomes_a_dead_letter_hears_why(
    start_plane: StartPlane, kafka: KafkaSettings, topics: tuple[str, str]
) -> None:
    plane = await start_plane(kafka=kafka.bootstrap_servers)
    inference = await an_inference(plane, topics)
    with pytest.raises(InvalidArgument) as caught:
        await plane.predictions.Predict(question(inference.id, [13, 0, 0, 0]), timeout=30)
    assert caught.value.reason_name == "DECODE_ERROR"
    assert caught.value.metadata["source"].startswith(f"{topics[0]}/")


async def test_a_question_that_nobody_answers_ends_in_time(
    start_plane: StartPlane, kafka: KafkaSettings, topics: tuple[str, str]
) -> None:
    plane = await start_plane(kafka=kafka.bootstrap_servers)
    inference = await an_inference(plane, topics)
    with pytest.raises(DeadlineExceeded) as caught:
        await plane.predictions.Predict(question(inference.id, [1, 2, 3, 4], wait_s=0.2), timeout=30)
    assert caught.value.reason_name == "DEADLINE"
    assert caught.value.metadata["source"].startswith(f"{topics[0]}/")


FORMATS = [stream_pb2.DATA_FORMAT_AVRO, stream_pb2.DATA_FORMAT_JSON, stream_pb2.DATA_FORMAT_PROTOBUF]


@pytest.mark.parametrize("data_format", FORMATS)
async def test_an_object_is_asked_and_answered_in_the_formats_of_the_inference(
    start_plane: StartPlane, kafka: KafkaSettings, topics: tuple[str, str], data_format: stream_pb2.DataFormat
) -> None:
    fields = {"age": np.zeros((1, 1), np.float32)[:, 0], "visits": np.zeros((1, 3), np.float32)}
    codec = codec_of(data_format, fields)
    labels = inference_pb2.AnswerLabels(names=["sum", "max"])
    plane = await start_plane(kafka=kafka.bootstrap_servers)
    inference = await an_inference(
        plane, topics, input_format=data_format, input_config=codec.config,
        output_format=data_format, output_config=output_config(data_format, {"output": (2,)}),
        labels=labels if data_format == stream_pb2.DATA_FORMAT_JSON else None,
    )  # fmt: skip
    with Summing(kafka, *topics, encode=encoder_of(inference), codec=codec):
        asked = question(inference.id, {"visits": [4, 5, 6], "age": 40})
        prediction = (await plane.predictions.Predict(asked, timeout=30)).prediction
    assert list(prediction.values) == [55, 40]
    labelled = (prediction.label, prediction.score)
    assert labelled == (("sum", 55) if data_format == stream_pb2.DATA_FORMAT_JSON else ("", 0))


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        ([1, 2, 3], "SCHEMA_MISMATCH"),
        ([[1, 2], [3]], "INVALID_FIELD"),
        ("text", "INVALID_FIELD"),
        ({"a": 1}, "INVALID_FIELD"),
        (None, "INVALID_FIELD"),
    ],
)
async def test_a_sample_that_is_no_row_is_refused_before_it_is_sent(plane: Plane, sample: Any, reason: str) -> None:
    inference = await an_inference(plane, ("in", "out"))
    with pytest.raises(InvalidArgument) as caught:
        await plane.predictions.Predict(question(inference.id, sample))
    assert caught.value.reason_name == reason
    assert [bad.field for bad in caught.value.fields] == ["sample"]


@pytest.mark.parametrize("number", ["1e400", "-1e400", "NaN"])
async def test_a_sample_with_a_number_that_is_not_finite_is_refused(plane: Plane, number: str) -> None:
    inference = await an_inference(plane, ("in", "out"))
    with pytest.raises(InvalidArgument) as caught:
        await plane.predictions.Predict(question(inference.id, json.loads(f"[[1, 2], [3, {number}]]")))
    assert caught.value.reason_name == "INVALID_FIELD"
    assert [bad.field for bad in caught.value.fields] == ["sample"]


async def test_a_number_that_its_type_cannot_hold_is_refused(plane: Plane) -> None:
    config = {"data_type": "uint8", "data_reshape": "2"}
    inference = await an_inference(plane, ("in", "out"), input_format=stream_pb2.DATA_FORMAT_RAW, input_config=config)
    for sample in ([1, 256], [0.5, 1]):
        with pytest.raises(InvalidArgument):
            await plane.predictions.Predict(question(inference.id, sample))


async def test_a_stopped_inference_is_not_asked(plane: Plane) -> None:
    inference = await an_inference(plane, ("in", "out"))
    stopped = inference_pb2.INFERENCE_STATE_STOPPED
    await plane.store.write(lambda: inferences.set_state(inference.id, stopped))
    with pytest.raises(FailedPrecondition) as caught:
        await plane.predictions.Predict(question(inference.id, [1, 2, 3, 4]))
    assert caught.value.metadata["state"] == "STOPPED"


async def test_without_a_broker_a_question_says_which(plane: Plane) -> None:
    inference = await an_inference(plane, ("in", "out"))
    with pytest.raises(Unavailable) as caught:
        await plane.predictions.Predict(question(inference.id, [1, 2, 3, 4]), timeout=30)
    assert caught.value.reason_name == "KAFKA_UNAVAILABLE"


@pytest.mark.usefixtures("summing")
async def test_watchers_see_answers_and_the_inference(
    start_plane: StartPlane, kafka: KafkaSettings, topics: tuple[str, str]
) -> None:
    plane = await start_plane(kafka=kafka.bootstrap_servers)
    inference = await an_inference(plane, topics)
    watches = [
        aiter(plane.predictions.WatchPredictions(api.WatchPredictionsRequest(inference_id=inference.id)))
        for _ in range(2)
    ]
    for watching in watches:
        # The second message comes a second later, when the tail is read.
        for _ in range(2):
            assert (await anext(watching)).inference.name == "sums"
    with StreamProducer(kafka, topics[0]) as producer:
        for number in range(10):
            producer.send(0, None, np.array([number, 0, 0, 0], np.float32).tobytes())
        producer.flush()
    for watching in watches:
        seen: list[float] = []
        summaries: set[str] = set()
        async with asyncio.timeout(20):
            while len(seen) < 10:
                event = await anext(watching)
                if event.HasField("prediction"):
                    seen.append(event.prediction.values[0])
                    summaries.add(event.prediction.input_summary)
                    assert event.prediction.model == "sums/1"
        # One whose question is not found in time comes without a summary.
        assert summaries - {""} <= {f"{number}, 0, 0, 0" for number in range(10)}
        assert summaries != {""}
        assert seen == [float(number) for number in range(10)]
    await plane.store.write(lambda: inferences.set_state(inference.id, inference_pb2.INFERENCE_STATE_STOPPED))
    async with asyncio.timeout(10):
        rest = [event async for event in watches[0]]
    assert rest[-1].inference.state == inference_pb2.INFERENCE_STATE_STOPPED


async def a_watch(plane: Plane, inference: inference_pb2.Inference) -> AsyncIterator[api.PredictionEvent]:
    """That follows the output already."""
    watching = aiter(plane.predictions.WatchPredictions(api.WatchPredictionsRequest(inference_id=inference.id)))
    for _ in range(2):
        await anext(watching)
    return watching  # type: ignore[no-any-return]


async def test_a_flood_of_answers_is_sampled(
    start_plane: StartPlane, kafka: KafkaSettings, topics: tuple[str, str]
) -> None:
    plane = await start_plane(kafka=kafka.bootstrap_servers)
    inference = await an_inference(plane, topics)
    watching = await a_watch(plane, inference)
    with StreamProducer(kafka, topics[1]) as producer:
        for _ in range(5000):
            producer.send(0, None, b'{"values": [1]}')
        producer.flush()
    seen = 0
    async with asyncio.timeout(20):
        for _ in range(3):
            while (await anext(watching)).HasField("prediction"):
                seen += 1
    assert 100 <= seen <= 500


async def test_an_unknown_inference_is_not_found(plane: Plane) -> None:
    with pytest.raises(NotFound):
        await plane.predictions.Predict(question(5, 1))
    with pytest.raises(NotFound):
        await anext(aiter(plane.predictions.WatchPredictions(api.WatchPredictionsRequest(inference_id=5))))


def a_record(value: bytes, **fields: Any) -> Message:
    return Message(value=value, **fields)


def test_the_shape_of_an_answer_that_is_no_vector_is_told() -> None:
    record = a_record(b'{"values": [[1, 2, 3], [4, 5, 6]]}', timestamp=(1, 1500))
    prediction = prediction_of(record, AnswerReader())
    assert prediction is not None
    assert list(prediction.values) == [1, 2, 3, 4, 5, 6]
    assert list(prediction.shape) == [2, 3]
    assert prediction.time.ToMilliseconds() == 1500


HUGE = b"1" + b"0" * 400


@pytest.mark.parametrize(
    "value",
    [
        b"", b"no json", b"[]", b'{"other": 1}', b'{"values": "x"}', b"\xff",
        b'{"values": [%s]}' % HUGE, b'{"values": [1], "label": "a", "score": %s}' % HUGE,
        b'{"values": [1], "label": "\\ud800", "score": 1}', b'{"values": %s1%s}' % (b"[" * 980, b"]" * 980),
    ],
    ids=lambda value: repr(value[:40]),
)  # fmt: skip
def test_what_is_no_answer_is_passed_over(value: bytes) -> None:
    assert prediction_of(a_record(value), AnswerReader()) is None


def test_an_answer_of_no_time_that_protobuf_has_is_one() -> None:
    prediction = prediction_of(a_record(b'{"values": [1]}', timestamp=(1, 2**62)), AnswerReader())
    assert prediction is not None
    assert not prediction.HasField("time")


@pytest.mark.parametrize(
    "text",
    ["", "a", "a/b/c", "a/1/-2", "a/99999999999999/1", f"a/1/{2**63}", "a/1/" + "9" * 5000],
    ids=lambda text: text[:30],
)
def test_what_is_no_source_is_none(text: str) -> None:
    assert source_of(text) is None


@pytest.mark.usefixtures("summing")
async def test_records_of_strangers_end_neither_a_watch_nor_the_answers_to_questions(
    start_plane: StartPlane, kafka: KafkaSettings, topics: tuple[str, str]
) -> None:
    plane = await start_plane(kafka=kafka.bootstrap_servers)
    inference = await an_inference(plane, topics)
    watching = await a_watch(plane, inference)
    for name in (topics[1], f"{topics[0]}.dead-letters"):
        write_with_raw_header(kafka, name, b'{"values": [1]}', b"no \xff text")
    with BatchProducer(kafka) as producer:
        producer.produce(topics[1], None, b'{"values": [%s]}' % HUGE)
        producer.produce(topics[1], None, b'{"values": [2]}', [("headrace-source", b"t1/99999999999999/1")])
        producer.flush()
    answer = await plane.predictions.Predict(question(inference.id, [1, 2, 3, 4]), timeout=30)
    assert list(answer.prediction.values) == [10, 4]
    seen: list[float] = []
    async with asyncio.timeout(20):
        while 10 not in seen:
            event = await anext(watching)
            seen += event.prediction.values[:1]
    assert sorted(seen) == [1, 2, 10]


@pytest.mark.filterwarnings("ignore:overflow")
async def test_a_question_is_answered_by_the_inference_that_is_asked(
    start_plane: StartPlane, kafka: KafkaSettings, topic: Callable[..., str]
) -> None:
    """Also where another one reads the same topic and answers on the same one."""
    plane, topics = await start_plane(kafka=kafka.bootstrap_servers), (topic(1), topic(4))
    ensure_topics(kafka, {f"{topics[0]}.dead-letters": 1})
    encoded = {"input_format": stream_pb2.DATA_FORMAT_RAW, "input_config": INPUT_CONFIG}
    first = await an_inference(plane, topics, **encoded)
    asked = [first, await plane.store.write(lambda: inferences.create(another(first, "others")))]
    with ExitStack() as stack:
        for number, inference in enumerate(asked):
            stack.enter_context(adding(kafka, topics, inference_group(inference), version=number))
        for turn in range(3):
            for number, inference in enumerate(asked):
                answer = await plane.predictions.Predict(question(inference.id, [turn, 1]), timeout=60)
                assert answer.prediction.model == f"adder/{number}"
        with pytest.raises(InvalidArgument) as caught:
            await plane.predictions.Predict(question(first.id, [3e38, 3e38]), timeout=60)
        letters: list[dict[str, Any]] = []
        with TopicFollower(kafka, f"{topics[0]}.dead-letters", {}) as follower:
            while len(letters) < 2:
                letters += [dict(headers_of(letter)) for letter in follower.read(10)]
    assert caught.value.reason_name == "NAN_OUTPUT"
    assert [letter["headrace-model"] for letter in letters if "headrace-request" in letter] == [b"adder/0"]


def adding(kafka: KafkaSettings, topics: tuple[str, str], group_id: str, version: int) -> AbstractContextManager[None]:
    """A replica on a thread."""
    run = partial(run_replica, kafka, *topics, 0, group_id=group_id, models=Fixed(adder(version)))
    return on_thread(run, group_id)


async def test_who_follows_a_topic_that_is_deleted_hears_it_and_the_next_one_follows_anew(
    kafka: KafkaSettings, topics: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.follow.PARTITIONS_CHECK_S", 0.5)
    tails, clusters = Tails(), Clusters(kafka, kafka)
    inference = inference_pb2.Inference(input_topic=topics[0], output_topic=topics[1])
    async with tails.of(clusters, inference) as tail:
        with tail.asked("group/1") as answer:
            await asyncio.to_thread(delete_topic, kafka, topics[1])
            async with asyncio.timeout(30):
                with pytest.raises(NotFound):
                    await answer
        with pytest.raises(NotFound):
            tail.check()
        ensure_topics(kafka, {topics[1]: 1})
        async with tails.of(clusters, inference) as anew:
            with anew.asked("group/2") as answer:
                with BatchProducer(kafka) as producer:
                    producer.produce(topics[1], None, b'{"values": [1]}', [("headrace-request", b"group/2")])
                    producer.flush()
                async with asyncio.timeout(30):
                    found = await answer
    assert isinstance(found, api.Prediction)
    assert list(found.values) == [1]
