"""Runs of offsets are exactly the offsets of the delivery reports. Property tests, and two producers on a broker."""

import random
from collections.abc import Callable
from typing import Any, cast

from confluent_kafka import KafkaError, Message
from hypothesis import given
from hypothesis import strategies as st

from headrace.v1.stream_pb2 import DATA_FORMAT_RAW, StreamAnnouncement
from streams.control import STREAM_HEADER
from streams.delivery import Tally
from streams.kafka import KafkaSettings
from streams.offsets import check_ranges
from streams.producer import StreamProducer
from streams.runs import Lane
from streams.spool import spool_stream

MOST = 10**6


class Report:
    """What a lane needs of the message of a delivery report."""

    def __init__(self, offset: int) -> None:
        self._offset = offset

    def offset(self) -> int:
        return self._offset


def lane_of(offsets: list[int]) -> Lane:
    lane = Lane("t", 3, Tally())
    for offset in offsets:
        lane.report(None, cast(Message, Report(offset)))
    return lane


def offsets_in(lane: Lane, most: int = MOST) -> list[int]:
    ranges = list(lane.ranges(most))
    check_ranges(ranges)
    return [offset for one in ranges for offset in range(one.start, one.end)]


# Whose record is at each offset: ours, another's, or the marker of our transaction.
logs = st.lists(st.sampled_from(["ours", "theirs", "commit"]), max_size=60)


@given(st.sets(st.integers(0, 200)), st.randoms())
def test_ranges_hold_the_offsets_that_were_reported_and_no_others(offsets: set[int], shuffled: random.Random) -> None:
    order = sorted(offsets)
    assert offsets_in(lane_of(order)) == order
    assert lane_of(order).delivered == len(order)
    shuffled.shuffle(order)
    assert offsets_in(lane_of(order)) == sorted(offsets)
    assert lane_of(order).delivered == len(offsets)


@given(st.sets(st.integers(0, 200), min_size=1), st.integers(1, 10))
def test_runs_that_are_joined_still_hold_every_offset(offsets: set[int], most: int) -> None:
    lane = lane_of(sorted(offsets))
    assert len(list(lane.ranges(most))) == min(most, lane.run_count)
    assert offsets <= set(offsets_in(lane, most))
    assert min(offsets_in(lane, most)) == min(offsets)
    assert max(offsets_in(lane, most)) == max(offsets)


@given(logs)
def test_only_our_own_marker_is_taken_into_a_range(log: list[str]) -> None:
    lane, open_records = Lane("t", 0, Tally()), 0
    ours, places = [], iter(range(10**6))
    markers = set()
    for what in log:
        if what == "ours":
            ours.append(next(places))
            lane.report(None, cast(Message, Report(ours[-1])))
            open_records += 1
        elif what == "theirs":
            next(places)
        elif open_records:  # Kafka writes a marker only where the transaction has records
            lane.committed()
            markers.add(next(places))
            open_records = 0
    held = offsets_in(lane)
    assert set(ours) <= set(held) <= set(ours) | markers


def test_offsets_between_ours_are_noticed_and_markers_of_ours_are_none() -> None:
    assert not lane_of([5, 6, 7]).shared
    assert lane_of([5, 7]).shared
    lane = lane_of([5])
    lane.committed()
    lane.report(None, cast(Message, Report(7)))
    assert not lane.shared
    assert [(one.start, one.end) for one in lane.ranges(MOST)] == [(5, 8)]


def test_a_refused_record_is_counted_and_has_no_offset() -> None:
    tally = Tally(sent=2)
    lane = Lane("t", 0, tally)
    lane.report(None, cast(Message, Report(0)))
    lane.report(KafkaError(KafkaError._MSG_TIMED_OUT), cast(Message, Report(-1)))
    assert (lane.delivered, tally.failed) == (1, 1)
    assert offsets_in(lane) == [0]


def test_producers_that_interleave_more_often_than_can_be_announced_are_told_apart_by_their_header(
    kafka: KafkaSettings, topic: Callable[..., str], tmp_path: Any
) -> None:
    name, keys = topic(), ("first", "second")
    with (
        StreamProducer(kafka, name, headers=[(STREAM_HEADER, "first")]) as first,
        StreamProducer(kafka, name, headers=[(STREAM_HEADER, "second")]) as second,
    ):
        for number in range(12):
            for producer in (first, second):
                producer.send(0, None, bytes([number]))
                producer.flush()
        for producer, key in zip((first, second), keys, strict=True):
            assert producer.records.are_exact(name)
            assert not producer.records.are_exact(name, most=5)
            announcement = StreamAnnouncement(
                ranges=producer.ranges(most=5), stream_key=key, record_count=12,
                input_format=DATA_FORMAT_RAW, input_config={"data_type": "uint8", "data_reshape": "1"},
            )  # fmt: skip
            assert len(announcement.ranges) == 5
            spool = spool_stream(announcement, kafka, tmp_path / key)
            assert spool.read("samples").ravel().tolist() == list(range(12))
            assert spool.others_count == 7
