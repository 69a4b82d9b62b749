"""Kafka clients with our defaults, and Kafka's errors as ours."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from operator import methodcaller
from typing import Any, NamedTuple, TypeVar, cast

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.errors import (
    Aborted,
    HeadraceError,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unavailable,
)
from headrace.v1 import error_pb2

__all__ = [
    "Headers", "KafkaSettings", "LogEnds", "Message", "as_headrace_error", "await_kafka", "cluster_id",
    "ensure_topics", "headers_of", "is_transient", "kafka_errors", "log_ends", "offsets_at",
    "partitions_of", "time_of", "topic_config", "topic_ids", "unknown_topic", "watermarks",
]  # fmt: skip

log = logging.getLogger(__name__)

REQUEST_TIMEOUT_S = 10.0
# As long as a producer that was not helped to its id would wait for it.
FIRST_ANSWER_S = 0.5
T = TypeVar("T")
ErrorCallback = Callable[[KafkaError], None]
# Gets the kind of a line in librdkafka's log, such as FAIL (a connection) or REQTMOUT.
LogCallback = Callable[[str], None]
Headers = list[tuple[str, str | bytes | None]]

_COMMON: Mapping[str, Any] = {
    "client.id": "headrace",
    # A broker that restarts is found within a second (default: up to ten). Half of the first pause also lies between a
    # new client's first two connections, the one to learn the brokers and the one to a broker (default: 50 ms).
    "reconnect.backoff.ms": 20,
    "reconnect.backoff.max.ms": 1000,
    "socket.keepalive.enable": True,
}
_CONSUMER: Mapping[str, Any] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "isolation.level": "read_committed",
    # An offset that is known and gone is an error, never a silent jump.
    "auto.offset.reset": "error",
    "allow.auto.create.topics": False,
    # librdkafka stops fetching for this long whenever its queue is full (default: 1 s).
    "fetch.queue.backoff.ms": 10,
}
_PRODUCER: Mapping[str, Any] = {
    "enable.idempotence": True,
    "acks": "all",
    "compression.type": "lz4",
}


@dataclass(frozen=True)
class KafkaSettings:
    """Where the cluster is, and what every client of it gets (security, for instance).

    bootstrap_servers: `host:port`, several joined by commas.
    options: librdkafka's properties; they win over our defaults.
    longest_wait_s: an answer about topics and offsets is waited for no longer than this, whatever the caller allows.
    """

    bootstrap_servers: str
    options: Mapping[str, str] = field(default_factory=dict)
    longest_wait_s: float = math.inf

    def wait_s(self, allowed_s: float) -> float:
        """How long an answer is waited for."""
        return min(allowed_s, self.longest_wait_s)

    def consumer(
        self,
        settings: Mapping[str, Any] | None = None,
        *,
        defaults: Mapping[str, Any] | None = None,
        error_cb: ErrorCallback | None = None,
    ) -> Consumer:
        """A consumer that commits nothing by itself, sees committed records only and never jumps.

        `settings` win over the options, the options over `defaults`. The caller closes it. Raises InvalidArgument for
        properties that librdkafka does not know.
        """
        group = {"group.id": "headrace"}  # librdkafka wants one, also where partitions are assigned by hand
        with kafka_errors(self):
            config = self._config({**_CONSUMER, **group, **(defaults or {})}, settings, error_cb)
            return Consumer(config, logger=_ClientLog())

    def producer(
        self,
        settings: Mapping[str, Any] | None = None,
        *,
        defaults: Mapping[str, Any] | None = None,
        error_cb: ErrorCallback | None = None,
        log_cb: LogCallback | None = None,
    ) -> Producer:
        """An idempotent producer (`acks=all`); arguments and errors as of `consumer`. `poll` calls `log_cb`.

        Waits for the cluster's answer, but not long: one that is away is found when there is something to send.
        """
        with kafka_errors(self):
            config = self._config({**_PRODUCER, **(defaults or {})}, settings, error_cb)
            producer = Producer(config, logger=_ClientLog(log_cb))
        _ask_for_id(producer)
        return producer

    def admin(self) -> AdminClient:
        with kafka_errors(self):
            return AdminClient(self._config({}, None, None), logger=_ClientLog())

    def _config(
        self, defaults: Mapping[str, Any], settings: Mapping[str, Any] | None, error_cb: ErrorCallback | None
    ) -> dict[str, Any]:
        servers = {"bootstrap.servers": self.bootstrap_servers, "error_cb": error_cb or _ignore_error}
        return {**_COMMON, **servers, **defaults, **self.options, **(settings or {})}


def _ask_for_id(producer: Producer) -> None:
    """Have an idempotent producer ask for its id now. It does so when it hears of the cluster and has a connection to a
    broker: the first time it has none yet, and would only ask again half a second later.
    """
    with suppress(KafkaException):
        producer.list_topics(timeout=FIRST_ANSWER_S)


class _ClientLog:
    """What librdkafka says on its own. It calls an error what it then retries; what fails comes back from the call."""

    def __init__(self, log_cb: LogCallback | None = None) -> None:
        self._log_cb = log_cb

    def log(self, level: int, message: str, *arguments: object) -> None:
        """`arguments`: kind, client, text."""
        log.debug(message, *arguments)
        if self._log_cb is not None and arguments:
            self._log_cb(str(arguments[0]))


class LogEnds(NamedTuple):
    """Where a partition's log begins and ends.

    low: the first offset that is still there.
    high: the next offset to be written.
    stable: what read_committed readers see ends here (the last stable offset); behind `high` while a
        transaction is open.
    """

    low: int
    high: int
    stable: int


def await_kafka(settings: KafkaSettings, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
    """Return once the cluster answers; raise Unavailable (KAFKA_UNAVAILABLE) after `timeout_s`."""
    with kafka_errors(settings):
        if not settings.admin().list_topics(timeout=settings.wait_s(timeout_s)).brokers:
            raise Unavailable(
                error_pb2.REASON_KAFKA_UNAVAILABLE,
                f"the Kafka cluster at {settings.bootstrap_servers} has no broker",
                bootstrap_servers=settings.bootstrap_servers,
            )


def cluster_id(settings: KafkaSettings, timeout_s: float = REQUEST_TIMEOUT_S) -> str:
    """The id of the cluster that answers there; empty where it tells none. Raises Unavailable."""
    with kafka_errors(settings):
        return settings.admin().list_topics(timeout=settings.wait_s(timeout_s)).cluster_id or ""


def ensure_topics(
    settings: KafkaSettings,
    topics: Mapping[str, int],
    timeout_s: float = 30.0,
    config: Mapping[str, str] | None = None,
) -> None:
    """Create the topics (name → partitions) that are missing and return when they can be used.

    Topics that exist stay as they are, whatever their number of partitions and configuration.
    """
    admin = settings.admin()  # it has to live as long as its answers are waited for
    with kafka_errors(settings):
        known = admin.list_topics(timeout=settings.wait_s(min(timeout_s, REQUEST_TIMEOUT_S))).topics
    new = [
        NewTopic(name, num_partitions=count, config=dict(config or {}))
        for name, count in topics.items()
        if name not in known
    ]
    if not new:
        return
    for name, created in admin.create_topics(new, operation_timeout=timeout_s).items():
        with kafka_errors(settings, topic=name):
            try:
                _told(created, timeout_s)
            except KafkaException as error:  # somebody else was faster
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise
    deadline = time.monotonic() + timeout_s
    for name in topics:
        with kafka_errors(settings, topic=name):
            _await_topic(admin, name, deadline)


def _await_topic(admin: AdminClient, topic: str, deadline: float) -> None:
    """A created topic takes a moment to reach every broker's metadata."""
    while True:
        try:
            _partitions(admin, topic, REQUEST_TIMEOUT_S)
            return
        except NotFound:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def partitions_of(settings: KafkaSettings, topic: str, timeout_s: float = REQUEST_TIMEOUT_S) -> list[int]:
    """The topic's partitions in order. Raises NotFound (UNKNOWN_TOPIC) if it does not exist."""
    with kafka_errors(settings, topic=topic):
        return _partitions(settings.admin(), topic, settings.wait_s(timeout_s))


def _partitions(admin: AdminClient, topic: str, timeout_s: float) -> list[int]:
    # All topics are asked for: a question by name from an admin client, a producer underneath, would create it.
    found = admin.list_topics(timeout=timeout_s).topics.get(topic)
    if found is None:
        raise unknown_topic(topic)
    if found.error is not None:
        raise KafkaException(found.error)
    return sorted(found.partitions)


# Also of a broker that has just come back, and does not know yet what it led before.
_WITHOUT_LEADER = {
    KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.FENCED_LEADER_EPOCH, KafkaError.OFFSET_NOT_AVAILABLE,
}  # fmt: skip

# Of a partition, in the order of LogEnds.
_LOG_ENDS = (
    (OffsetSpec.earliest(), IsolationLevel.READ_UNCOMMITTED),
    (OffsetSpec.latest(), IsolationLevel.READ_UNCOMMITTED),
    (OffsetSpec.latest(), IsolationLevel.READ_COMMITTED),
)


def log_ends(settings: KafkaSettings, topic: str, timeout_s: float = REQUEST_TIMEOUT_S) -> dict[int, LogEnds]:
    """Where each partition of the topic begins and ends. Raises NotFound (UNKNOWN_TOPIC), Unavailable."""
    admin, timeout_s = settings.admin(), settings.wait_s(timeout_s)
    with kafka_errors(settings, topic=topic):
        partitions = [TopicPartition(topic, number) for number in _partitions(admin, topic, timeout_s)]
        low, high, stable = _once_led(lambda: _ask_log_ends(admin, partitions, timeout_s), timeout_s)
    return {number: LogEnds(low[number], high[number], stable[number]) for number in low}


def _ask_log_ends(admin: AdminClient, partitions: Sequence[TopicPartition], timeout_s: float) -> list[dict[int, int]]:
    """Partition to offset for each of _LOG_ENDS, which are asked for at the same time."""
    asked = [
        admin.list_offsets(dict.fromkeys(partitions, spec), isolation_level=isolation, request_timeout=timeout_s)
        for spec, isolation in _LOG_ENDS
    ]
    return [{one.partition: _told(offset, timeout_s).offset for one, offset in end.items()} for end in asked]


def _once_led(ask: Callable[[], T], timeout_s: float) -> T:
    """The answer of `ask`, repeated while a partition has no leader: its topic is new, or its leader moves."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return ask()
        except KafkaException as error:
            if error.args[0].code() not in _WITHOUT_LEADER or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def watermarks(settings: KafkaSettings, topic: str, timeout_s: float = REQUEST_TIMEOUT_S) -> dict[int, tuple[int, int]]:
    """(first offset still there, next offset to be written) of each partition."""
    return {number: (ends.low, ends.high) for number, ends in log_ends(settings, topic, timeout_s).items()}


def offsets_at(
    settings: KafkaSettings, topic: str, time_ms: int, timeout_s: float = REQUEST_TIMEOUT_S
) -> dict[int, int]:
    """The first record of each partition that is not older than `time_ms` (since 1970); its end where none is."""
    partitions = [TopicPartition(topic, number) for number in partitions_of(settings, topic, timeout_s)]
    admin = settings.admin()
    with kafka_errors(settings, topic=topic):
        found = _once_led(lambda: _ask_offsets_at(admin, partitions, time_ms, timeout_s), timeout_s)
    ends = watermarks(settings, topic, timeout_s)
    return {number: offset if offset >= 0 else ends[number][1] for number, offset in found.items()}


def _ask_offsets_at(
    admin: AdminClient, partitions: Sequence[TopicPartition], time_ms: int, timeout_s: float
) -> dict[int, int]:
    asked = admin.list_offsets(dict.fromkeys(partitions, OffsetSpec.for_timestamp(time_ms)), request_timeout=timeout_s)
    return {partition.partition: _told(answer, timeout_s).offset for partition, answer in asked.items()}


def topic_config(settings: KafkaSettings, topic: str, timeout_s: float = REQUEST_TIMEOUT_S) -> dict[str, str]:
    """The topic's configuration, defaults included."""
    resource = ConfigResource(ResourceType.TOPIC, topic)
    admin = settings.admin()
    with kafka_errors(settings, topic=topic):
        (answer,) = admin.describe_configs([resource], request_timeout=timeout_s).values()
        entries = _told(answer, timeout_s)
    return {name: entry.value for name, entry in entries.items()}


def topic_ids(settings: KafkaSettings, topics: Iterable[str], timeout_s: float = REQUEST_TIMEOUT_S) -> dict[str, str]:
    """The id that Kafka gave each topic; a topic that is deleted and made anew has another. Topics that do not exist
    are left out. Raises Unavailable, PermissionDenied.
    """
    names = sorted(set(topics))
    if not names:
        return {}
    admin, timeout_s = settings.admin(), settings.wait_s(timeout_s)
    found = {}
    for name, answer in admin.describe_topics(TopicCollection(names), request_timeout=timeout_s).items():
        try:
            with kafka_errors(settings, topic=name):
                found[name] = str(_told(answer, timeout_s).topic_id)
        except NotFound:
            continue
    return found


def topic_id(settings: KafkaSettings, topic: str, timeout_s: float = REQUEST_TIMEOUT_S) -> str:
    """As `topic_ids`, of one topic. Raises NotFound (UNKNOWN_TOPIC) too."""
    found = topic_ids(settings, [topic], timeout_s)
    if topic not in found:
        raise unknown_topic(topic)
    return found[topic]


def _told(answer: Future[T], timeout_s: float) -> T:
    """What an admin client was told. Raises KafkaException, TimeoutError.

    An error is raised as another one: `result` would have the future keep it with the frames that it passes through,
    and these keep the future and the client. Such a circle is garbage, collected on any thread, and where that is the
    client's own, the end of the client there aborts the process.
    """
    error = answer.exception(timeout_s)
    if isinstance(error, KafkaException):
        raise KafkaException(*error.args)
    return answer.result()


def _ignore_error(error: KafkaError) -> None:
    """librdkafka tells of every lost connection; what matters comes back from the call that failed."""
    log.debug("kafka client error", extra={"error": str(error)})


_UNAVAILABLE = frozenset({
    KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._RESOLVE,
    KafkaError._TIMED_OUT_QUEUE, KafkaError._MSG_TIMED_OUT, KafkaError.REQUEST_TIMED_OUT,
    KafkaError.BROKER_NOT_AVAILABLE, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.NOT_COORDINATOR,
    KafkaError.NETWORK_EXCEPTION, KafkaError.NOT_ENOUGH_REPLICAS, KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    KafkaError.NOT_CONTROLLER, KafkaError.KAFKA_STORAGE_ERROR, KafkaError._WAIT_COORD,
    # A broker that has just come back does not know yet what it led before.
    KafkaError.UNKNOWN_LEADER_EPOCH, KafkaError.FENCED_LEADER_EPOCH, KafkaError.OFFSET_NOT_AVAILABLE,
})  # fmt: skip
_UNKNOWN_TOPIC = frozenset({
    KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION,
})  # fmt: skip
_FORBIDDEN = frozenset({
    KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED, KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._SSL,
})  # fmt: skip
_FENCED = frozenset({
    KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.FENCED_INSTANCE_ID, KafkaError._FENCED,
})  # fmt: skip
_INVALID = frozenset({
    KafkaError.TOPIC_EXCEPTION, KafkaError.INVALID_PARTITIONS, KafkaError.INVALID_CONFIG,
    KafkaError.POLICY_VIOLATION, KafkaError._INVALID_ARG, KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.INVALID_REPLICATION_FACTOR, KafkaError.INVALID_TRANSACTION_TIMEOUT,
    KafkaError.INVALID_RECORD,
})  # fmt: skip


@contextmanager
def kafka_errors(settings: KafkaSettings, **facts: Any) -> Iterator[None]:
    """Turn what confluent-kafka raises inside into a HeadraceError; `facts` (topic, group, …) go with it."""
    try:
        yield
    except KafkaException as error:
        raise as_headrace_error(error.args[0], settings, **facts) from error
    except TimeoutError as error:  # of an admin client's future
        raise _unavailable(settings, "no answer in time", facts) from error


def as_headrace_error(error: KafkaError, settings: KafkaSettings, **facts: Any) -> HeadraceError:
    """The HeadraceError for an error of Kafka or librdkafka, its name as `kafka_error` in the metadata."""
    facts = {**facts, "kafka_error": error.name()}
    about = "".join(f" ({name} {facts[name]})" for name in ("topic", "group") if name in facts)
    code, text = error.code(), error.str()
    if code in _UNKNOWN_TOPIC:
        return NotFound(
            error_pb2.REASON_UNKNOWN_TOPIC, f"Kafka knows no such topic or partition{about}: {text}", **facts
        )
    if code in _FORBIDDEN:
        return PermissionDenied(
            error_pb2.REASON_KAFKA_FORBIDDEN,
            f"Kafka refuses this{about}: {text}; give the principal the access, or use other credentials",
            **facts,
        )
    if code in _FENCED:
        return Aborted(error_pb2.REASON_FENCED, f"another client has taken over{about}: {text}", **facts)
    if code in _INVALID:
        return InvalidArgument(error_pb2.REASON_INVALID_FIELD, f"Kafka takes this for invalid{about}: {text}", **facts)
    if is_transient(error):
        return _unavailable(settings, text, facts)
    return Internal(error_pb2.REASON_INTERNAL_ERROR, f"Kafka failed{about}: {error.name()}: {text}", **facts)


def headers_of(message: Message) -> Headers:
    """The record's headers, in order; a name may be there twice. None at all where a name is no UTF-8.

    Such a record is nobody's mistake in Python or Java, but it can be written. confluent-kafka then both raises and
    answers a list with a null pointer in it, which it keeps for the next call: that is taken away.
    """
    try:
        return cast(Headers, _call_headers(message) or [])
    except SystemError:
        log.warning("headers with a name that is no UTF-8 are ignored", extra={"offset": message.offset()})
        message.set_headers([])
        return []


# Python checks that an answer and an exception do not come together; where `message.headers()` itself has become hot
# it does not, and the null pointer ends the process.
_call_headers = methodcaller("headers")


def time_of(message: Message) -> Timestamp | None:
    """Kafka's timestamp of the record; None where it has none, or one that is no time from year 1 to 9999."""
    kind, milliseconds = message.timestamp()
    time = Timestamp()
    try:
        time.FromMilliseconds(milliseconds)
    except ValueError:
        return None
    return time if kind else None


def is_transient(error: KafkaError) -> bool:
    """The cluster, or a part of it, is away or busy: the client goes on by itself once it is back."""
    return error.code() in _UNAVAILABLE or bool(error.retriable())


def unknown_topic(topic: str, partition: int | None = None) -> NotFound:
    """There is no such topic, or it has no such partition."""
    if partition is None:
        return NotFound(error_pb2.REASON_UNKNOWN_TOPIC, f"there is no topic {topic!r}", topic=topic)
    message = f"the topic {topic!r} has no partition {partition}"
    return NotFound(error_pb2.REASON_UNKNOWN_TOPIC, message, topic=topic, partition=partition)


def _unavailable(settings: KafkaSettings, text: str, facts: Mapping[str, Any]) -> Unavailable:
    servers = settings.bootstrap_servers
    message = f"the Kafka cluster at {servers} does not answer: {text}"
    return Unavailable(error_pb2.REASON_KAFKA_UNAVAILABLE, message, **{"bootstrap_servers": servers, **facts})
