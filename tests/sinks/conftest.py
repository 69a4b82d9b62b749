"""A control topic of its own for each test."""

from collections.abc import Callable

import pytest


@pytest.fixture
def control(topic: Callable[..., str]) -> str:
    return topic()
