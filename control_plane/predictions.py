"""Predictions: the answers of inferences as they come, and single questions."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from control_plane.answers import Refused
from control_plane.dead_letters import DeadLetters
from control_plane.kafka_clusters import KafkaClusters
from control_plane.posting import Place, post
from control_plane.samples import encode_sample
from control_plane.store import Store, inferences, results, states
from control_plane.tails import Answer, Prediction, Tails
from control_plane.validation import refuse
from headrace.errors import DeadlineExceeded, FailedPrecondition, FieldViolation, InvalidArgument
from headrace.pages import decode_token, encode_token, page_size
from headrace.v1 import error_pb2, inference_pb2, predictions_pb2
from headrace.v1.predictions_pb2_grpc import PredictionsServicer
from streams.answers import REQUEST_HEADER, inference_group, request_to, trace_headers
from streams.codecs import Codec, codec_for

WATCH_LIMIT_S = 600.0
INFERENCE_EVERY_S = 1.0
ANSWER_WAIT_S = 10.0
ANSWER_WAIT_LIMIT_S = 60.0
# A call of ReplayDeadLetters begins no further transaction after that; the caller goes on with another call.
REPLAY_S = 5.0
# So much of the caller's time is kept for telling him that it is over.
DEADLINE_RESERVE_S = 0.2


class Predictions(PredictionsServicer):
    def __init__(self, store: Store, clusters: KafkaClusters, *, watch_limit_s: float = WATCH_LIMIT_S) -> None:
        self._store = store
        self._clusters = clusters
        self._tails = Tails()
        self._watch_limit_s = watch_limit_s

    async def WatchPredictions(
        self, request: predictions_pb2.WatchPredictionsRequest, context: Any
    ) -> AsyncIterator[predictions_pb2.PredictionEvent]:
        ends = time.monotonic() + self._watch_limit_s
        inference = await self._inference(request.inference_id)
        yield predictions_pb2.PredictionEvent(inference=inference)
        async with self._tails.of(await self._clusters.of(inference), await self._decodable(inference)) as tail:
            with tail.watched() as queue:
                while time.monotonic() < ends and not _has_ended(inference):
                    async for prediction in _within(queue, INFERENCE_EVERY_S):
                        yield predictions_pb2.PredictionEvent(prediction=prediction)
                    tail.check()
                    inference = await self._inference(request.inference_id)
                    yield predictions_pb2.PredictionEvent(inference=inference)

    async def Predict(self, request: predictions_pb2.PredictRequest, context: Any) -> predictions_pb2.PredictResponse:
        inference = await self._inference(request.inference_id)
        _check_runs(inference)
        clusters, inference = await self._clusters.of(inference), await self._decodable(inference)
        question = encode_sample(_codec(inference), request.sample)
        wait_s = _wait_s(request, context.time_remaining())
        asks = request_to(inference_group(inference), str(uuid.uuid4()))
        async with self._tails.of(clusters, inference) as tail:
            with tail.asked(asks) as answer:
                headers = [(REQUEST_HEADER, asks.encode()), *trace_headers(context.invocation_metadata())]
                place = await post(clusters.input, inference.input_topic, question, headers=headers)
                try:
                    async with asyncio.timeout(wait_s):
                        prediction = _answered(await answer, place)
                except TimeoutError:
                    raise _no_answer(inference, place, wait_s) from None
        return predictions_pb2.PredictResponse(prediction=prediction)

    async def ListDeadLetters(
        self, request: predictions_pb2.ListDeadLettersRequest, context: Any
    ) -> predictions_pb2.ListDeadLettersResponse:
        _check_reason(request.reason)
        inference = await self._inference(request.inference_id)
        count, before = page_size(request.page_size), decode_token(request, request.page_token)
        ends = None if before is None else {int(number): offset for number, offset in before.items()}
        codec = _codec(await self._decodable(inference))
        letters = await self._dead_letters(inference)
        page = await asyncio.to_thread(letters.page, codec, count, ends, request.reason)
        token = "" if page.ends is None else encode_token(request, page.ends)
        return predictions_pb2.ListDeadLettersResponse(dead_letters=page.letters, next_page_token=token)

    async def ReplayDeadLetters(
        self, request: predictions_pb2.ReplayDeadLettersRequest, context: Any
    ) -> predictions_pb2.ReplayDeadLettersResponse:
        _check_reason(request.reason)
        inference = await self._inference(request.inference_id)
        letters = await self._dead_letters(inference)
        ends = dict(request.ends) or await asyncio.to_thread(letters.ends)
        replayed = await asyncio.to_thread(letters.replay, ends, request.reason, REPLAY_S)
        return predictions_pb2.ReplayDeadLettersResponse(
            replayed_count=replayed.count, done=replayed.done, ends=ends, gone_count=replayed.gone
        )

    async def _inference(self, id: int) -> inference_pb2.Inference:
        return await self._store.read(lambda: inferences.get(id))

    async def _dead_letters(self, inference: inference_pb2.Inference) -> DeadLetters:
        return DeadLetters((await self._clusters.of(inference)).input, inference.input_topic)

    async def _decodable(self, inference: inference_pb2.Inference) -> inference_pb2.Inference:
        """With how its questions are encoded: as it says itself, else as the stream that its result was trained on."""
        if not (inference.input_format and inference.input_config):
            result = await self._store.read(lambda: results.get(inference.result_id, full=False))
            inference.input_format = inference.input_format or result.stream.input_format
            if not inference.input_config:
                inference.input_config.update(result.stream.input_config)
        return inference


def _codec(inference: inference_pb2.Inference) -> Codec:
    return codec_for(inference.input_format, dict(inference.input_config))


def _has_ended(inference: inference_pb2.Inference) -> bool:
    return inference.state in states.FINAL_INFERENCE_STATES


async def _within(queue: asyncio.Queue[Prediction], seconds: float) -> AsyncIterator[Prediction]:
    """What comes in so many seconds."""
    ends = time.monotonic() + seconds
    while (left_s := ends - time.monotonic()) > 0:
        try:
            async with asyncio.timeout(left_s):
                prediction = await queue.get()
        except TimeoutError:
            return
        yield prediction


def _check_runs(inference: inference_pb2.Inference) -> None:
    """Raise unless the inference runs."""
    if _has_ended(inference) or inference.state == inference_pb2.INFERENCE_STATE_STOPPING:
        state = states.inference_state_name(inference.state)
        raise FailedPrecondition(
            error_pb2.REASON_WRONG_STATE,
            f"the inference {inference.id} is {state}, so nobody would answer",
            resource="inference",
            id=inference.id,
            state=state,
        )


def _check_reason(name: str) -> None:
    """Of dead letters; empty for all."""
    known = [reason.removeprefix("REASON_") for reason, number in error_pb2.Reason.items() if number]
    if name and name not in known:
        refuse([FieldViolation("reason", f"must be one of {', '.join(known)}, not {name[:80]!r}")])


def _wait_s(request: predictions_pb2.PredictRequest, remaining_s: float | None) -> float:
    asked_s = request.wait.ToNanoseconds() / 1e9 if request.HasField("wait") else ANSWER_WAIT_S
    if asked_s <= 0:
        refuse([FieldViolation("wait", "must be more than nothing")])
    limits = [asked_s, ANSWER_WAIT_LIMIT_S]
    if remaining_s is not None:
        limits.append(max(0.1, remaining_s - DEADLINE_RESERVE_S))
    return min(limits)


def _answered(answer: Answer, place: Place) -> Prediction:
    """The prediction; what became a dead letter is the question's fault."""
    if isinstance(answer, Refused):
        reasons = dict(error_pb2.Reason.items())
        raise InvalidArgument(
            reasons.get(f"REASON_{answer.reason}", error_pb2.REASON_INVALID_FIELD),
            f"the question {place} was not answered: {answer.message or answer.reason}",
            source=place,
        )
    return answer


def _no_answer(inference: inference_pb2.Inference, place: Place, wait_s: float) -> DeadlineExceeded:
    state = states.inference_state_name(inference.state)
    return DeadlineExceeded(
        error_pb2.REASON_DEADLINE,
        f"no answer within {wait_s:g} s: the question stands at {place}, the inference {inference.id} was {state}; "
        "its answer will come to the output topic",
        source=place,
        wait_s=f"{wait_s:g}",
        id=inference.id,
        state=state,
    )
