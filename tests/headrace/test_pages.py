"""Sizes and tokens of pages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import InvalidArgument
from headrace.pages import decode_token, encode_token, page_size
from headrace.v1 import model_pb2
from headrace.v1.stream_catalog_pb2 import ListStreamsRequest


@pytest.mark.parametrize(
    ("asked", "given_"), [(0, 50), (1, 1), (999, 999), (1000, 1000), (1001, 1000), (2**31 - 1, 1000)]
)
def test_a_page_has_fifty_items_unless_asked_and_never_over_a_thousand(asked: int, given_: int) -> None:
    assert page_size(asked) == given_


def test_a_negative_size_is_refused_by_its_field() -> None:
    with pytest.raises(InvalidArgument) as caught:
        page_size(-1)
    assert [bad.field for bad in caught.value.fields] == ["page_size"]


@given(st.one_of(st.integers(), st.text(), st.lists(st.integers())), st.integers(0, 2**40))
def test_a_token_brings_its_position_back(position: object, deployment_id: int) -> None:
    request = ListStreamsRequest(deployment_id=deployment_id)
    token = encode_token(request, position)
    assert token.isascii()
    assert decode_token(request, token) == position


def test_no_token_is_the_first_page() -> None:
    assert decode_token(ListStreamsRequest(), "") is None


def test_the_size_of_a_page_may_change_on_the_way() -> None:
    first = ListStreamsRequest(deployment_id=3, page_size=10)
    token = encode_token(first, 17)
    assert decode_token(ListStreamsRequest(deployment_id=3, page_size=20, page_token=token), token) == 17


@pytest.mark.parametrize("other", [ListStreamsRequest(), ListStreamsRequest(deployment_id=3, view=model_pb2.VIEW_FULL)])
def test_a_token_is_refused_with_other_arguments(other: ListStreamsRequest) -> None:
    token = encode_token(ListStreamsRequest(deployment_id=3), 17)
    with pytest.raises(InvalidArgument) as caught:
        decode_token(other, token)
    assert [bad.field for bad in caught.value.fields] == ["page_token"]


@given(st.one_of(st.text(min_size=1), st.text("ABCabc019-_=", min_size=1)))
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidArgument):
        decode_token(ListStreamsRequest(), token)
