"""How numbers of records are shown."""

import pytest

from cli.record_table import numbers


@pytest.mark.parametrize(
    ("value", "shown"),
    [(3.0, "3"), (-(2.0**53) + 1, "-9007199254740991"), (float(2**53 + 2), "9.0072e+15"), (2**63 - 1, str(2**63 - 1))],
)
def test_a_whole_number_has_no_digits_that_were_lost(value: float, shown: str) -> None:
    assert numbers([value], whole=True) == shown
