"""What inferences are told on the command line, as the API has it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

import grpc
import typer

from cli.connection import find_model
from cli.options import MAX_ID
from headrace.v1 import inference_pb2, stream_pb2

Value = TypeVar("Value")

GUARANTEES = {
    "exactly-once": inference_pb2.GUARANTEE_EXACTLY_ONCE,
    "at-least-once": inference_pb2.GUARANTEE_AT_LEAST_ONCE,
}
STARTS = {
    "committed": inference_pb2.START_POSITION_COMMITTED,
    "earliest": inference_pb2.START_POSITION_EARLIEST,
    "latest": inference_pb2.START_POSITION_LATEST,
}
FORMATS = {
    "json": stream_pb2.DATA_FORMAT_JSON,
    "raw": stream_pb2.DATA_FORMAT_RAW,
    "avro": stream_pb2.DATA_FORMAT_AVRO,
    "protobuf": stream_pb2.DATA_FORMAT_PROTOBUF,
}
ERROR_POLICIES = {
    "dead-letter": inference_pb2.ERROR_POLICY_DEAD_LETTER,
    "skip": inference_pb2.ERROR_POLICY_SKIP,
    "stop": inference_pb2.ERROR_POLICY_STOP,
}
MAX_WAIT_S = 60.0
_ALIAS = re.compile(r"(.+)@([a-z0-9-]+)")


def chosen(known: Mapping[str, Value], text: str, option: str) -> Value:
    """Refuse what is not known with what is."""
    if text not in known:
        raise typer.BadParameter(f"{option} {text!r} is unknown; choose one of {', '.join(known)}")
    return known[text]


def source(text: str) -> str:
    """Refuse what names no result."""
    is_id = text.isascii() and text.isdecimal() and 0 < int(text) <= MAX_ID
    if not is_id and not _ALIAS.fullmatch(text):
        rule = f"neither a result's id (1 to {MAX_ID}) nor an alias, as digits@champion"
        raise typer.BadParameter(f"{text!r} is {rule}")
    return text


def set_source(channel: grpc.Channel, inference: inference_pb2.Inference, text: str) -> list[str]:
    """Have it serve a result, or what an alias points to; returns the fields that say so. Raises NotFound."""
    if (found := _ALIAS.fullmatch(text)) is None:
        inference.result_id = int(text)
        return ["result_id"]
    inference.model_id, inference.alias = find_model(channel, found[1]).id, found[2]
    return ["model_id", "alias"]
