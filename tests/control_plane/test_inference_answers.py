"""In which form inferences answer, as they are created and changed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from control_plane.store import Store, inferences
from headrace.errors import InvalidArgument
from headrace.v1 import deployment_manager_pb2 as api
from headrace.v1 import stream_pb2
from headrace.v1.inference_pb2 import AnswerLabels, Inference
from tests.control_plane.managed import Managed, bad_fields, managed


@pytest.fixture
async def offline(tmp_path: Path, store: Store) -> AsyncIterator[Managed]:
    """Without a broker."""
    async with managed(tmp_path, store) as running:
        yield running


async def checked(plane: Managed, result_id: int, **fields: Any) -> Inference:
    wish = Inference(result_id=result_id, input_topic="in", output_topic="out", **fields)
    answer: Inference = await plane.manager.CreateInference(
        api.CreateInferenceRequest(inference=wish, validate_only=True)
    )
    return answer


async def test_what_readers_need_is_made_of_the_outputs_of_the_model(offline: Managed) -> None:
    one = offline.world.finished("one", outputs={"scores": [10]})
    two = offline.world.finished("two", outputs={"to_fog": [4], "scores": [10]})
    raw = await checked(offline, two, output_format=stream_pb2.DATA_FORMAT_RAW)
    assert dict(raw.output_config) == {"data_type": "float32", "data_reshape": "10"}
    given = {"data_type": "uint8"}
    avro = await checked(offline, one, output_format=stream_pb2.DATA_FORMAT_AVRO, output_config=given)
    (field,) = json.loads(avro.output_config["data_scheme"])["fields"]
    assert field == {"name": "values", "type": {"type": "array", "items": "float"}}
    assert "data_type" not in avro.output_config
    both = await checked(offline, two, output_format=stream_pb2.DATA_FORMAT_AVRO)
    assert [each["name"] for each in json.loads(both.output_config["data_scheme"])["fields"]] == ["to_fog", "scores"]
    protobuf = await checked(offline, one, output_format=stream_pb2.DATA_FORMAT_PROTOBUF)
    assert protobuf.output_config["descriptor_set"]
    assert not (await checked(offline, one)).output_config


@pytest.mark.parametrize(
    ("outputs", "fields", "wrong"),
    [
        ({"a": [3]}, {"labels": AnswerLabels(names=["x", "y"])}, "inference.labels.names"),
        ({"a": [3]}, {"labels": AnswerLabels(names=["x", "", "z"])}, "inference.labels.names"),
        ({"a": [1]}, {"labels": AnswerLabels()}, "inference.labels"),
        ({"a": [2, 2]}, {"labels": AnswerLabels()}, "inference.labels"),
        ({"a": [3]}, {"labels": AnswerLabels(), "output_format": stream_pb2.DATA_FORMAT_RAW}, "inference.labels"),
        ({"a": [3]}, {"output_format": 77}, "inference.output_format"),
    ],
)
async def test_an_answer_that_the_model_cannot_give_is_refused(
    offline: Managed, outputs: dict[str, list[int]], fields: dict[str, Any], wrong: str
) -> None:
    result_id = offline.world.finished("a", outputs=outputs)
    with pytest.raises(InvalidArgument) as refused:
        await checked(offline, result_id, **fields)
    assert wrong in bad_fields(refused.value)


async def test_another_model_must_answer_in_the_same_form(offline: Managed, store: Store) -> None:
    same, other = offline.world.finished("b", outputs={"x": [3]}), offline.world.finished("c", outputs={"x": [4]})
    wish = await checked(
        offline, offline.world.finished("a", outputs={"scores": [3]}), output_format=stream_pb2.DATA_FORMAT_AVRO
    )
    created = store.write_now(lambda: inferences.create(wish))

    async def serve(result_id: int) -> Inference:
        change = Inference(id=created.id, result_id=result_id)
        request = api.UpdateInferenceRequest(inference=change, update_mask=FieldMask(paths=["result_id"]))
        answer: Inference = await offline.manager.UpdateInference(request)
        return answer

    assert (await serve(same)).result_id == same
    with pytest.raises(InvalidArgument) as refused:
        await serve(other)
    assert refused.value.reason_name == "SCHEMA_MISMATCH"
