"""Reads output topics as they grow: one thread per topic, however many watch it."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any

from control_plane.answers import Refused, prediction_of, refusal_of, request_of
from control_plane.kafka_clusters import Clusters
from control_plane.questions import Questions
from headrace.errors import HeadraceError, Internal, NotFound, Unavailable
from headrace.v1 import error_pb2, predictions_pb2
from headrace.v1.inference_pb2 import Inference
from streams.answers import dead_letter_topic
from streams.follow import TopicFollower
from streams.kafka import KafkaSettings, Message, log_ends
from streams.outputs import AnswerReader

log = logging.getLogger(__name__)

# More a second no person can follow; the rest is passed over.
SAMPLES_PER_S = 100
QUEUE_LENGTH = 256
POLL_S = 0.2
# Pauses while the broker is away.
RETRY_S = 1.0
# Less than a caller's deadline, so that he hears that the broker is away.
ASK_TIMEOUT_S = 6.0

Prediction = predictions_pb2.Prediction
Answer = Prediction | Refused


class Tail:
    """The answers that come to an output topic from now on. Made and stopped by `Tails`.

    error: what has ended it, if anything has; nobody sees anything more then.
    """

    def __init__(self, clusters: Clusters, inference: Inference) -> None:
        self.users = 0
        self.error: HeadraceError | None = None
        self._reader = AnswerReader(inference.output_format, dict(inference.output_config))
        self._clusters = clusters
        self._output_topic = inference.output_topic
        self._dead_letter_topic = dead_letter_topic(inference.input_topic)
        self._questions = Questions(
            clusters.input, inference.input_topic, inference.input_format, dict(inference.input_config)
        )
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._stop = threading.Event()
        self._samples = _Samples(SAMPLES_PER_S)
        self._watching: set[asyncio.Queue[Prediction]] = set()
        self._asked: dict[str, asyncio.Future[Answer]] = {}
        self._thread = threading.Thread(target=self._run, name=f"tail-{self._output_topic}", daemon=True)

    async def start(self) -> None:
        """Return when every record that is written from now on will be seen.

        Raises NotFound (UNKNOWN_TOPIC), Unavailable (KAFKA_UNAVAILABLE).
        """
        if self._thread.ident is None:
            self._thread.start()
        await asyncio.shield(self._ready)

    async def stop(self) -> None:
        self._stop.set()
        await asyncio.to_thread(self._thread.join)

    @contextmanager
    def watched(self) -> Iterator[asyncio.Queue[Prediction]]:
        """A sample of the answers; the oldest make room when the reader is slow, who looks at `error` now and then."""
        queue: asyncio.Queue[Prediction] = asyncio.Queue(QUEUE_LENGTH)
        self._watching.add(queue)
        try:
            yield queue
        finally:
            self._watching.discard(queue)

    @contextmanager
    def asked(self, request: str) -> Iterator[asyncio.Future[Answer]]:
        """The answer to the question with this REQUEST_HEADER, or why there is none. Raises what has ended the tail,
        and so does the future.
        """
        self.check()
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._asked[request] = future
        try:
            yield future
        finally:
            del self._asked[request]
            future.cancel()

    def check(self) -> None:
        """Raise what has ended the tail."""
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            self._follow()
        except HeadraceError as error:
            log.warning("cannot follow answers", extra={"topic": self._output_topic, "cause": str(error)})
            self._on_loop(self._tell_end, error)
        except Exception as error:
            log.exception("following answers has failed", extra={"topic": self._output_topic})
            message = f"the answers in {self._output_topic!r} are not followed any more: {error!r}"
            self._on_loop(self._tell_end, Internal(error_pb2.REASON_INTERNAL_ERROR, message, topic=self._output_topic))

    def _follow(self) -> None:
        with ExitStack() as stack:
            answers = stack.enter_context(_from_now(self._clusters.output, self._output_topic))
            stack.enter_context(self._questions)
            dead_letters = self._follow_dead_letters(stack)
            self._on_loop(self._tell_ready)
            while not self._stop.is_set():
                self._step(answers, dead_letters)

    def _step(self, answers: TopicFollower, dead_letters: TopicFollower | None) -> None:
        try:
            records = answers.read(POLL_S)
            refused = dead_letters.read(0) if dead_letters is not None else []
        except Unavailable:
            # The consumer finds the broker again by itself.
            self._stop.wait(RETRY_S)
            return
        if self._asked:
            self._answer([*records, *refused])
        sampled = [prediction_of(record, self._reader) for record in self._samples.of(records)]
        if found := [one for one in sampled if one is not None]:
            if self._watching:
                self._questions.summarise(found)
            self._on_loop(self._tell_watching, found)

    def _answer(self, records: Sequence[Message]) -> None:
        for record in records:
            if (request := request_of(record)) in self._asked:
                answer = refusal_of(record) or prediction_of(record, self._reader)
                if answer is not None:
                    self._on_loop(self._tell_asked, request, answer)

    def _follow_dead_letters(self, stack: ExitStack) -> TopicFollower | None:
        """Where their topic exists."""
        try:
            return stack.enter_context(_from_now(self._clusters.input, self._dead_letter_topic))
        except NotFound:
            return None

    def _on_loop(self, tell: Callable[..., None], *arguments: object) -> None:
        # The loop may have ended: then nobody is left to be told.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(tell, *arguments)

    def _tell_ready(self) -> None:
        if not self._ready.done():
            self._ready.set_result(None)

    def _tell_end(self, error: HeadraceError) -> None:
        self.error = error
        waiting: list[asyncio.Future[Any]] = [self._ready, *self._asked.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(error)

    def _tell_asked(self, request: str, answer: Answer) -> None:
        future = self._asked.get(request)
        if future is not None and not future.done():
            future.set_result(answer)

    def _tell_watching(self, predictions: Sequence[Prediction]) -> None:
        for queue in self._watching:
            for prediction in predictions:
                if queue.full():
                    queue.get_nowait()
                queue.put_nowait(prediction)


class Tails:
    """The tails that somebody uses, by their topics and by how these are encoded."""

    def __init__(self) -> None:
        self._tails: dict[tuple[object, ...], Tail] = {}

    @asynccontextmanager
    async def of(self, clusters: Clusters, inference: Inference) -> AsyncIterator[Tail]:
        """The tail of its output topic, started; it stops when its last user leaves. One that has ended by itself is
        left to those who use it: they hear why.
        """
        key = _key(clusters, inference)
        tail = self._tails.get(key)
        if tail is None or tail.error is not None:
            tail = self._tails[key] = Tail(clusters, inference)
        tail.users += 1
        try:
            await tail.start()
            yield tail
        finally:
            tail.users -= 1
            if tail.users == 0:
                if self._tails.get(key) is tail:
                    del self._tails[key]
                await tail.stop()


def _key(clusters: Clusters, inference: Inference) -> tuple[object, ...]:
    return (
        *((one.bootstrap_servers, *sorted(one.options.items())) for one in clusters),
        *(inference.input_topic, inference.input_format, *sorted(inference.input_config.items())),
        *(inference.output_topic, inference.output_format, *sorted(inference.output_config.items())),
    )


def _from_now(kafka: KafkaSettings, topic: str) -> TopicFollower:
    """Every record that is written to the topic from now on."""
    positions = {number: ends.high for number, ends in log_ends(kafka, topic, ASK_TIMEOUT_S).items()}
    return TopicFollower(kafka, topic, positions)


class _Samples:
    """Lets so many a second through, evenly chosen, with at most a second's worth at once."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._allowed = float(per_second)
        self._refilled_at = time.monotonic()

    def of(self, records: Sequence[Message]) -> list[Message]:
        now = time.monotonic()
        refill = (now - self._refilled_at) * self._per_second
        self._allowed, self._refilled_at = min(self._per_second, self._allowed + refill), now
        count = min(len(records), int(self._allowed))
        self._allowed -= count
        return [records[index * len(records) // count] for index in range(count)]
