import pytest

from headrace.errors import FailedPrecondition
from inferencer.breaker import CircuitBreaker


def test_a_few_bad_records_at_the_start_do_not_stop_an_inference() -> None:
    breaker = CircuitBreaker()
    breaker.count(49, 49, "too short")


def test_more_bad_than_good_of_fifty_stop_it_and_say_why() -> None:
    breaker = CircuitBreaker()
    breaker.count(25, 20, "3 bytes where 64 are needed")
    with pytest.raises(FailedPrecondition) as caught:
        breaker.count(25, 6, "3 bytes where 64 are needed")
    assert caught.value.reason_name == "SCHEMA_MISMATCH"
    assert caught.value.metadata["bad"] == "26"
    assert "3 bytes where 64 are needed" in caught.value.message


def test_half_of_them_do_not() -> None:
    breaker = CircuitBreaker()
    for _ in range(10):
        breaker.count(50, 25, "too short")
