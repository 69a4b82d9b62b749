import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import InvalidArgument
from headrace.v1.stream_pb2 import OffsetRange
from streams.offsets import check_ranges, count_offsets, format_ranges, parse_ranges, parse_topics

names = st.text("abcXYZ019._-", min_size=1, max_size=30).filter(lambda name: name not in (".", ".."))


@st.composite
def disjoint_ranges(draw: st.DrawFn) -> list[OffsetRange]:
    """Ranges of several partitions, several in one, with gaps, some empty."""
    ranges = []
    for topic, partition in draw(st.sets(st.tuples(names, st.integers(0, 2**31 - 1)), min_size=1, max_size=5)):
        bounds = sorted(draw(st.sets(st.integers(0, 2**63 - 1), min_size=2, max_size=6)))
        for start, end in zip(bounds[::2], bounds[1::2], strict=False):
            ranges.append(OffsetRange(topic=topic, partition=partition, start=start, end=end))
    return draw(st.permutations(ranges))


@given(disjoint_ranges())
def test_ranges_survive_their_text(ranges: list[OffsetRange]) -> None:
    assert parse_ranges(format_ranges(ranges)) == ranges


@given(st.text(max_size=60))
def test_any_text_is_ranges_or_refused(text: str) -> None:
    ranges: list[OffsetRange] = []
    topics: list[str] = []
    reasons = []
    try:
        ranges, topics = parse_topics(text)
    except InvalidArgument as error:
        reasons.append(error.reason_name)
    assert reasons in ([], ["INVALID_RANGE"])
    assert all(one.start <= one.end for one in ranges)
    assert all(topic in text for topic in topics)


def test_the_last_number_is_the_exclusive_end() -> None:
    (one,) = parse_ranges("mnist:3:100:70000")
    assert (one.topic, one.partition, one.start, one.end) == ("mnist", 3, 100, 70000)
    assert count_offsets([one]) == 69900


def test_a_bare_name_is_a_stream_without_an_end() -> None:
    ranges, topics = parse_topics("mnist:0:0:5, live")
    assert format_ranges(ranges) == "mnist:0:0:5"
    assert topics == ["live"]


@pytest.mark.parametrize(
    "text",
    [
        "t:0:0", "t:0:0:1:2", "t:a:0:1", "t:0:5:4", "t:-1:0:5", "t:0:-5:4", "t:0:0:-1", "sp ace:0:0:5", ":0:0:5",
        "t:0:0:9223372036854775808", "t:2147483648:0:1", "t:0:0:10,t:0:9:12", "bare", "t:0:1e3:2e3", "..:0:0:1",
    ],
)  # fmt: skip
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_ranges(text)
    assert caught.value.reason_name == "INVALID_RANGE"


def test_every_bad_range_is_named() -> None:
    ranges = [
        OffsetRange(topic="t", partition=0, start=0, end=10),
        OffsetRange(topic="t", partition=0, start=5, end=20),
        OffsetRange(topic="t", partition=1, start=5, end=4),
    ]
    with pytest.raises(InvalidArgument) as caught:
        check_ranges(ranges)
    assert {bad.field for bad in caught.value.fields} == {"ranges[1]", "ranges[2]"}


def test_ranges_that_touch_or_are_empty_do_not_overlap() -> None:
    check_ranges(parse_ranges("t:0:0:10,t:0:10:20,t:0:5:5,t:1:0:10,u:0:0:10"))
