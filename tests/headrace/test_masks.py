"""Updates through field masks."""

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from headrace.errors import InvalidArgument
from headrace.masks import apply_update
from headrace.v1.configuration_pb2 import Configuration
from headrace.v1.deployment_pb2 import Deployment
from headrace.v1.model_pb2 import Model


def stored() -> Model:
    return Model(id=3, name="digits", description="old", code="a = 1", code_sha256="abc", etag="1")


def test_masked_fields_are_copied_and_the_changed_ones_named() -> None:
    model = stored()
    changed = apply_update(
        model, Model(name="digits", description="new", code="b"), FieldMask(paths=["name", "description"])
    )
    assert changed == ["description"]
    assert (model.name, model.description, model.code) == ("digits", "new", "a = 1")


def test_without_a_mask_every_populated_field_is_meant() -> None:
    for mask in (None, FieldMask()):
        model = stored()
        assert apply_update(model, Model(code="b = 2"), mask) == ["code"]
        assert (model.code, model.description) == ("b = 2", "old")


def test_a_masked_field_that_is_empty_is_cleared() -> None:
    model = stored()
    assert apply_update(model, Model(), FieldMask(paths=["description"])) == ["description"]
    assert model.description == ""


def test_a_star_replaces_everything_that_people_edit() -> None:
    model = stored()
    apply_update(model, Model(name="other"), FieldMask(paths=["*"]))
    assert (model.id, model.name, model.code, model.code_sha256) == (3, "other", "", "abc")


def test_output_only_fields_and_the_id_are_ignored() -> None:
    model = stored()
    update = Model(id=9, code_sha256="forged")
    assert apply_update(model, update, FieldMask(paths=["id", "code_sha256", "create_time"])) == []
    assert apply_update(model, update, None) == []
    assert model == stored()


def test_repeated_fields_are_replaced_as_a_whole() -> None:
    configuration = Configuration(model_ids=[1, 2])
    assert apply_update(configuration, Configuration(model_ids=[3]), FieldMask(paths=["model_ids"])) == ["model_ids"]
    assert list(configuration.model_ids) == [3]


def test_a_path_may_reach_into_a_message() -> None:
    deployment = Deployment()
    deployment.settings.batch_size = 10
    deployment.settings.seed = 5
    update = Deployment()
    update.settings.batch_size = 32
    assert apply_update(deployment, update, FieldMask(paths=["settings.batch_size"])) == ["settings.batch_size"]
    assert (deployment.settings.batch_size, deployment.settings.seed) == (32, 5)


def test_every_unknown_path_is_named_and_nothing_is_changed() -> None:
    model = stored()
    update, mask = Model(name="new"), FieldMask(paths=["name", "nmae", "name.first", "settings"])
    with pytest.raises(InvalidArgument) as caught:
        apply_update(model, update, mask)
    assert caught.value.metadata["paths"] == "nmae,name.first,settings"
    assert len(caught.value.fields) == 3
    assert model == stored()
