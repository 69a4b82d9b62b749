"""Every error, to the wire and back: through google.rpc.Status, and through a real server and client."""

import subprocess
import sys
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2

from headrace import errors
from headrace.client import connect_async
from headrace.errors import FieldViolation, HeadraceError
from headrace.v1 import error_pb2
from headrace.v1.stream_catalog_pb2_grpc import StreamCatalogStub
from tests.headrace.servicers import GET, Catalog, address, on_loopback

EVERY_CLASS = HeadraceError.__subclasses__()

CASES = {
    "a reason alone": errors.Aborted(error_pb2.REASON_FENCED, "a newer attempt has taken over"),
    "facts": errors.NotFound(error_pb2.REASON_RESOURCE_NOT_FOUND, "no model has the id 7", resource="model", id=7),
    "fields": errors.InvalidArgument(
        error_pb2.REASON_INVALID_FIELD,
        "two fields are wrong",
        fields=[FieldViolation("model.name", "must not be empty"), FieldViolation("model.code", "must be Python")],
    ),
    "retry": errors.ResourceExhausted(error_pb2.REASON_OVERLOADED, "the queue is full", retry_after_s=1.5),
    "precondition": errors.FailedPrecondition(error_pb2.REASON_WRONG_STATE, "not finished", resource="result", id=3),
    "no ascii": errors.DataLoss(error_pb2.REASON_DIGEST_MISMATCH, "größer – «π»", path="/ü"),
}


def everything(error: HeadraceError) -> tuple[Any, ...]:
    """All that a caller can see of an error."""
    return type(error), error.reason, error.message, error.metadata, error.fields, error.retry_after_s


@pytest.mark.parametrize("name", CASES)
def test_an_error_survives_the_way_through_a_status(name: str) -> None:
    assert everything(errors.from_status(CASES[name].to_status())) == everything(CASES[name])


@pytest.mark.parametrize("cls", EVERY_CLASS)
async def test_every_class_reaches_the_client_as_it_was_raised(cls: type[HeadraceError]) -> None:
    raised = cls(
        error_pb2.REASON_DATA_EXPIRED,
        "the log begins at 5: «ü»",
        fields=[FieldViolation("stream_id", "too old")],
        retry_after_s=0.25,
        topic="t",
        low=5,
    )

    async def fail(_: Any) -> None:
        raise raised

    async with on_loopback(Catalog(fail)) as running, connect_async(address(running)) as channel:
        with pytest.raises(HeadraceError) as caught:
            await StreamCatalogStub(channel).GetStream(GET, timeout=0.4)
    assert everything(caught.value) == everything(raised)


def test_every_class_has_a_canonical_code_of_its_own() -> None:
    codes = [cls.code for cls in EVERY_CLASS]
    assert len(set(codes)) == len(codes)
    assert set(codes) <= {code for _, code in code_pb2.Code.items()} - {code_pb2.OK, code_pb2.UNKNOWN}
    assert {status.value[0] for status in grpc.StatusCode} >= set(codes)


def test_the_status_carries_reason_domain_fields_and_state() -> None:
    status = CASES["precondition"].to_status()
    info, precondition = error_details_pb2.ErrorInfo(), error_details_pb2.PreconditionFailure()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain, dict(info.metadata)) == (
        "WRONG_STATE",
        "headrace",
        {"resource": "result", "id": "3"},
    )
    assert status.details[1].Unpack(precondition)
    assert precondition.violations[0].type == "WRONG_STATE"
    assert precondition.violations[0].subject == "result"


def test_a_reason_of_a_newer_version_is_told_on_as_it_is() -> None:
    status = status_pb2.Status(code=code_pb2.ABORTED, message="?")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="FROM_TOMORROW", domain="headrace"))
    error = errors.from_status(status)
    assert error.reason == error_pb2.REASON_UNSPECIFIED
    assert error.reason_name == "FROM_TOMORROW"
    assert errors.from_status(error.to_status()).reason_name == "FROM_TOMORROW"


def test_a_status_without_details_or_with_unknown_ones_is_understood_by_its_code() -> None:
    status = status_pb2.Status(code=code_pb2.NOT_FOUND, message="gone")
    status.details.add(type_url="type.googleapis.com/unknown.Detail", value=b"\x01")
    error = errors.from_status(status)
    assert (type(error), error.message, error.reason_name) == (errors.NotFound, "gone", "UNSPECIFIED")
    assert isinstance(errors.from_status(status_pb2.Status(code=code_pb2.UNKNOWN)), errors.Internal)


def test_not_yet_says_what_to_use_instead() -> None:
    error = errors.not_yet("federated training", "train single")
    assert (error.code, error.reason_name) == (code_pb2.UNIMPLEMENTED, "NOT_YET")
    assert "train single" in error.message


def test_producers_get_the_errors_without_grpc() -> None:
    code = "import sys, headrace.errors; sys.exit('grpc' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
