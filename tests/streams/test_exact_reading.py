"""Whatever happened to the log, any ranges of it: exactly the right records, or the right reason.

The harness proves itself: readers with a bug that others have had are caught by it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Message
from hypothesis import HealthCheck, Phase, find, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from headrace.errors import HeadraceError
from headrace.v1.stream_pb2 import OffsetRange
from streams.kafka import KafkaSettings
from streams.plan import Place
from streams.reader import RangeReader, RecordBatch
from tests.streams.history import (
    PARTITIONS,
    Compact,
    Delete,
    Event,
    Log,
    Tools,
    Transaction,
    Values,
    Write,
    tools,
)
from tests.streams.log import offset_range

# What is not written is waited for so long; what is written comes at once.
SHORT_S, LONG_S = 0.3, 30.0

partitions = st.integers(0, PARTITIONS - 1)
writes = st.builds(Write, partitions, st.lists(st.integers(0, 3), min_size=1, max_size=5).map(tuple))
transactions = st.builds(Transaction, st.lists(writes, min_size=1, max_size=3).map(tuple), st.booleans())
deletes = st.builds(Delete, partitions, st.sampled_from([0.2, 0.5, 1.0]))
events = st.one_of(writes, transactions, transactions, deletes, st.just(Compact()))
histories = st.lists(events, min_size=1, max_size=7)
# What is open at the end.
left_open = st.lists(writes, max_size=1)
# Bounds as parts of the log, which has an end that only the broker decides, and a little more.
bounds = st.lists(st.floats(0, 1.1), min_size=2, max_size=6).map(sorted)
choices = st.lists(st.tuples(st.dictionaries(partitions, bounds, min_size=1), st.booleans()), min_size=2, max_size=4)

Choice = tuple[Mapping[int, Sequence[float]], bool]
# Ranges, and whether they are checked before they are read.
Case = tuple[list[OffsetRange], bool]


@pytest.fixture(scope="module")
def shared(kafka: KafkaSettings) -> Iterator[Tools]:
    with tools(kafka) as made:
        yield made


def cases_of(log: Log, chosen: Sequence[Choice]) -> list[Case]:
    return [(ranges_of(log, parts), checked) for parts, checked in chosen]


def ranges_of(log: Log, chosen: Mapping[int, Sequence[float]]) -> list[OffsetRange]:
    """Some ranges of each partition, some of them empty, in an order that is not theirs."""
    ranges = []
    for partition, parts in chosen.items():
        at = [round(part * (log.models[partition].high + 1)) for part in parts]
        ranges += [offset_range(log.name, *pair, partition) for pair in zip(at[::2], at[1::2], strict=False)]
    return ranges[::-1]


def outcome(reader: type[RangeReader], kafka: KafkaSettings, ranges: list[OffsetRange], **how: Any) -> Values | str:
    """The values that it reads of each partition, or the reason that it gives."""
    checked, wait_s = how["checked"], how["wait_s"]
    values: Values = {}
    try:
        with reader(kafka, ranges, wait_s=wait_s) as opened:
            if checked:
                opened.check()
            for batch in opened.batches():
                for message in batch:
                    values.setdefault(message.partition() or 0, []).append(message.value() or b"")
    except HeadraceError as error:
        return error.reason_name
    return values


def is_right(log: Log, ranges: list[OffsetRange], found: Values | str, *, checked: bool) -> bool:
    expected = log.expected(ranges)
    if checked and all(one.start == one.end for one in ranges):
        return found == "EMPTY_STREAM"
    if isinstance(expected, set):
        return isinstance(found, str) and found in expected
    return found == expected


def mistakes(
    log: Log,
    cases: Sequence[Case],
    reader: type[RangeReader] = RangeReader,
    kafka: KafkaSettings | None = None,
    patience_s: float = LONG_S,
) -> Iterator[str]:
    for ranges, checked in cases:
        wait_s = SHORT_S if isinstance(log.expected(ranges), set) else patience_s
        found = outcome(reader, kafka or log.kafka, ranges, checked=checked, wait_s=wait_s)
        if not is_right(log, ranges, found, checked=checked):
            yield f"{ranges}: expected {log.expected(ranges)}, found {found}"


def made(shared: Tools, history: Sequence[Event], open_at_end: Sequence[Write] = ()) -> Log:
    log = shared.new_log()
    for event in history:
        log.happen(event)
    if open_at_end:
        log.leave_open(open_at_end)
    assert log.is_as_modelled()
    return log


def check_any_history(
    shared: Tools, history: Sequence[Event], open_at_end: Sequence[Write], chosen: Sequence[Choice]
) -> None:
    log = made(shared, history, open_at_end)
    try:
        assert list(mistakes(log, cases_of(log, chosen))) == []
    finally:
        shared.remove(log)


FIRST_FOUND = [Phase.generate]
NEVER_TOO_SLOW: Any = {"deadline": None, "suppress_health_check": list(HealthCheck)}


# The long form looks for the smallest history that fails, which takes minutes.
@settings(max_examples=8, derandomize=True, database=None, phases=FIRST_FOUND, **NEVER_TOO_SLOW)
@given(history=histories, open_at_end=left_open, chosen=choices)
def test_any_history_and_any_ranges(
    shared: Tools, history: list[Event], open_at_end: list[Write], chosen: list[Choice]
) -> None:
    check_any_history(shared, history, open_at_end, chosen)


# 300 histories, in parts that can be run one by one.
@pytest.mark.chaos
@pytest.mark.parametrize("part", range(10))
def test_any_history_and_any_ranges_for_long(shared: Tools, part: int) -> None:
    @seed(part)
    @settings(max_examples=30, database=None, **NEVER_TOO_SLOW)
    @given(history=histories, open_at_end=left_open, chosen=choices)
    def check(history: list[Event], open_at_end: list[Write], chosen: list[Choice]) -> None:
        check_any_history(shared, history, open_at_end, chosen)

    check()


class Impatient(RangeReader):
    """Readers with a bug wait for what does not come: not for long."""

    def __init__(self, kafka: KafkaSettings, ranges: Sequence[OffsetRange], **more: Any) -> None:
        super().__init__(kafka, ranges, **more)
        self._busy_s = 0.0


class EndsByCount(Impatient):
    """Done is as many records as there are offsets."""

    def _wanted(self, batch: RecordBatch) -> RecordBatch:
        wanted = super()._wanted(batch)
        self._counts = getattr(self, "_counts", Counter[Place]())
        self._counts.update(self.places[number] for number in wanted.places.tolist())
        return wanted

    def _is_done(self, place: Place) -> bool:
        plan = self._plans[place]
        return self._counts[place] >= plan.count_before(plan.end) if hasattr(self, "_counts") else False


class EndsAtTheLastOffset(Impatient):
    """Done is the record at end - 1."""

    def _heed(self, event: Message) -> None:
        error = event.error()
        if error is None or error.code() != KafkaError._PARTITION_EOF:
            super()._heed(event)

    def _is_done(self, place: Place) -> bool:
        return self._positions[place] == self._plans[place].end


class EndsAtTheFirstEnd(Impatient):
    """Done is the first end-of-partition event, wherever it is."""

    def _heed(self, event: Message) -> None:
        super()._heed(event)
        error = event.error()
        if error is not None and error.code() == KafkaError._PARTITION_EOF:
            self._open.discard((event.topic() or "", event.partition() or 0))


class ReadsOneMore(Impatient):
    """The end is taken for the last offset."""

    def __init__(self, kafka: KafkaSettings, ranges: Sequence[OffsetRange], **more: Any) -> None:
        longer = [offset_range(one.topic, one.start, one.end + (one.end > one.start), one.partition) for one in ranges]
        super().__init__(kafka, longer, **more)


class Careless(KafkaSettings):
    """Clients whose settings are others than the reader's."""

    changes: Mapping[str, Any] = {}

    def consumer(self, settings: Mapping[str, Any] | None = None, **more: Any) -> Consumer:
        return super().consumer({**(settings or {}), **self.changes}, **more)


class ResetsToTheLatest(Careless):
    changes = {"auto.offset.reset": "latest"}


class ReadsUncommitted(Careless):
    changes = {"isolation.level": "read_uncommitted"}


BUGS: list[tuple[type[RangeReader], type[KafkaSettings]]] = [
    (EndsByCount, KafkaSettings),
    (EndsAtTheLastOffset, KafkaSettings),
    (EndsAtTheFirstEnd, KafkaSettings),
    (ReadsOneMore, KafkaSettings),
    (RangeReader, ResetsToTheLatest),
    (RangeReader, ReadsUncommitted),
]
bugs = pytest.mark.parametrize(
    ("reader", "clients"), BUGS, ids=lambda part: part.__name__ if part not in (RangeReader, KafkaSettings) else ""
)

TELLING: list[Event] = [
    Write(0, (0, 1, 2, 0)),
    Transaction((Write(0, (1, 1, 2)), Write(1, (3,))), commit=True),
    Compact(),
    Transaction((Write(0, (0, 1)), Write(1, (0, 1))), commit=False),
    Write(0, (3, 0)),
    Write(1, (1, 2, 3)),
    Delete(1, 0.5),
    Transaction((Write(0, (1, 2)),), commit=False),
]


def telling_cases(log: Log) -> list[Case]:
    """Everything; parts that holes begin and end; what was deleted; what a transaction hides."""
    assert [(model.low, model.stable, model.high) for model in log.models] == [(0, 17, 18), (4, 9, 9)]
    return [
        ([offset_range(log.name, 0, 17)], True),
        ([offset_range(log.name, 9, 12), offset_range(log.name, 1, 8), offset_range(log.name, 5, 7, 1)], False),
        ([offset_range(log.name, 0, 9, 1)], False),
        ([offset_range(log.name, 3, 18)], False),
    ]


@pytest.fixture(scope="module")
def telling(shared: Tools) -> Iterator[Log]:
    log = made(shared, TELLING, [Write(0, (1,))])
    yield log
    shared.remove(log)


def test_the_right_reader_makes_no_mistake_where_the_wrong_ones_do(telling: Log) -> None:
    assert list(mistakes(telling, telling_cases(telling))) == []


@bugs
def test_a_planted_bug_is_caught(
    telling: Log, kafka: KafkaSettings, reader: type[RangeReader], clients: type[KafkaSettings]
) -> None:
    careless = clients(kafka.bootstrap_servers)
    assert next(mistakes(telling, telling_cases(telling), reader, careless, patience_s=2.0), None) is not None


@pytest.mark.chaos
@bugs
def test_a_planted_bug_is_found_by_chance(
    shared: Tools, kafka: KafkaSettings, reader: type[RangeReader], clients: type[KafkaSettings]
) -> None:
    """What hypothesis makes up is enough to find each of them."""
    careless = clients(kafka.bootstrap_servers)

    def fails(case: tuple[list[Event], list[Write], list[Choice]]) -> bool:
        history, open_at_end, chosen = case
        log = made(shared, history, open_at_end)
        try:
            return next(mistakes(log, cases_of(log, chosen), reader, careless, patience_s=2.0), None) is not None
        finally:
            shared.remove(log)

    cases = st.tuples(histories, left_open, choices)
    try:
        find(cases, fails, settings=settings(max_examples=200, database=None, phases=FIRST_FOUND, **NEVER_TOO_SLOW))
    except NoSuchExample:
        pytest.fail("200 histories do not show the bug")
