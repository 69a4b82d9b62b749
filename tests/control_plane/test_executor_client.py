"""What the control plane says where a framework has no executor."""

import pytest

from control_plane.executor_client import executors_at
from headrace.errors import Unavailable, Unimplemented
from headrace.v1 import error_pb2, model_pb2
from tests.support import free_port


async def test_a_framework_that_is_not_installed_is_told_with_how_to_install_it() -> None:
    async with executors_at({model_pb2.FRAMEWORK_PYTORCH: ""}) as executors:
        with pytest.raises(Unimplemented) as refused:
            await executors.signature_of(model_pb2.FRAMEWORK_PYTORCH, "", "model = 1")
    assert refused.value.reason == error_pb2.REASON_NOT_INSTALLED
    assert "headrace[torch]" in refused.value.message


async def test_an_executor_that_is_away_is_told_with_its_address() -> None:
    address = f"127.0.0.1:{free_port()}"
    async with executors_at({model_pb2.FRAMEWORK_PYTORCH: address}) as executors:
        with pytest.raises(Unavailable) as refused:
            await executors.signature_of(model_pb2.FRAMEWORK_PYTORCH, "", "model = 1")
    assert refused.value.metadata["address"] == address
