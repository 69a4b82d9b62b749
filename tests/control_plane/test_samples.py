"""Samples in JSON as records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format, struct_pb2

from control_plane.samples import encode_sample
from headrace.errors import InvalidArgument
from streams.codecs import Decoded, Field, Rows, Spec

IMAGE = Field("image", Spec(np.dtype(np.uint8), (2, 2)), 0, 4)
AGE = Field("person.age", Spec(np.dtype(np.float32), ()), 4, 5)


class ByField:
    """Writes its two fields one after the other."""

    sample_spec = Spec(np.dtype(np.float32), (5,))
    label_spec = None
    fields = (IMAGE, AGE)
    config: dict[str, str] = {}

    def encode_samples(self, rows: Rows) -> list[bytes]:
        assert isinstance(rows, dict)
        return [image.tobytes() + age.tobytes() for image, age in zip(rows["image"], rows["person.age"], strict=True)]

    def encode_labels(self, rows: Rows) -> list[bytes]:
        raise NotImplementedError

    def decode_samples(self, values: Sequence[bytes | None]) -> Decoded:
        raise NotImplementedError

    def decode_labels(self, keys: Sequence[bytes | None]) -> Decoded:
        raise NotImplementedError


def value(sample: Any) -> struct_pb2.Value:
    return json_format.ParseDict(sample, struct_pb2.Value())


def test_an_object_has_its_values_by_field_in_any_order() -> None:
    record = encode_sample(ByField(), value({"person": {"age": 41.5}, "image": [[1, 2], [3, 255]]}))
    assert record == bytes([1, 2, 3, 255]) + np.float32(41.5).tobytes()


@pytest.mark.parametrize(
    ("sample", "reason", "places"),
    [
        ({"person": {"age": 1}}, "INVALID_FIELD", ["sample.image"]),
        ({"person.age": 1, "image": [[1, 2], [3, 4]], "size": 3}, "INVALID_FIELD", ["sample.size"]),
        ({"old": 1}, "INVALID_FIELD", ["sample.image", "sample.person.age", "sample.old"]),
        ({"person.age": "old", "image": [[1, 2], [3, 4]]}, "INVALID_FIELD", ["sample.person.age"]),
        ({"person": {"age": 1}, "image": [[1, 2], [3, 256]]}, "INVALID_FIELD", ["sample.image"]),
        ({"person": {"age": 1}, "image": [1, 2, 3]}, "SCHEMA_MISMATCH", ["sample.image"]),
    ],
    ids=["missing", "unknown", "all-wrong", "text", "too-large", "shape"],
)
def test_an_object_that_is_no_record_is_refused_by_field(sample: Any, reason: str, places: list[str]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        encode_sample(ByField(), value(sample))
    assert caught.value.reason_name == reason
    assert [bad.field for bad in caught.value.fields] == places
