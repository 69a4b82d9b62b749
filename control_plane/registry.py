"""ModelRegistry: models, their aliases, configurations."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from google.protobuf import empty_pb2

from control_plane.executor_client import ExecutorClient
from control_plane.listing import newest_first, position
from control_plane.store import Store, alias_periods, configurations, models
from control_plane.validation import bad_name, refuse
from headrace import pages
from headrace.errors import FieldViolation
from headrace.masks import apply_update
from headrace.v1 import configuration_pb2, model_pb2, model_registry_pb2
from headrace.v1.model_registry_pb2_grpc import ModelRegistryServicer

MAX_CODE_BYTES = 1024 * 1024
MAX_CONFIGURATION_MODELS = 100
ALIAS = re.compile(r"[a-z0-9-]{1,63}")

# A change of one of these is a change of what the code builds.
_CODE_FIELDS = {"framework", "imports", "code"}


class ModelRegistry(ModelRegistryServicer):
    def __init__(self, store: Store, executors: ExecutorClient) -> None:
        self._store = store
        self._executors = executors

    async def CreateModel(self, request: model_registry_pb2.CreateModelRequest, context: Any) -> model_pb2.Model:
        model = request.model
        refuse(_bad_model_fields(model))
        # Before the seconds that building takes; the insert checks again.
        await self._store.read(lambda: models.check_new(model))
        await self._validate(model)
        if request.validate_only:
            return model_pb2.Model(
                name=model.name,
                description=model.description,
                framework=model.framework,
                imports=model.imports,
                code=model.code,
                upper_model_id=model.upper_model_id,
                signature=model.signature,
                code_sha256=model.code_sha256,
            )
        return await self._store.write(lambda: models.create(model))

    async def GetModel(self, request: model_registry_pb2.GetModelRequest, context: Any) -> model_pb2.Model:
        return await self._store.read(lambda: models.get(request.id))

    async def ListModels(
        self, request: model_registry_pb2.ListModelsRequest, context: Any
    ) -> model_registry_pb2.ListModelsResponse:
        items, token = await newest_first(
            self._store,
            request,
            lambda before_id, limit: models.page(
                before_id=before_id,
                limit=limit,
                full=request.view == model_pb2.VIEW_FULL,
                framework=request.framework,
                name=request.name,
            ),
        )
        return model_registry_pb2.ListModelsResponse(models=items, next_page_token=token)

    async def UpdateModel(self, request: model_registry_pb2.UpdateModelRequest, context: Any) -> model_pb2.Model:
        given_etag = request.model.etag
        request.model.ClearField("etag")
        model = await self._store.read(lambda: models.get(request.model.id))
        read_etag = model.etag
        changed = apply_update(model, request.model, request.update_mask)
        refuse(_bad_model_fields(model))
        if _CODE_FIELDS.intersection(changed):
            await self._validate(model)
        # What was merged was read before the code was built: if it changed since, the caller's etag or ours is stale.
        return await self._store.write(lambda: models.update(model, given_etag or read_etag))

    async def DeleteModel(self, request: model_registry_pb2.DeleteModelRequest, context: Any) -> empty_pb2.Empty:
        await self._store.write(lambda: models.delete(request.id))
        return empty_pb2.Empty()

    async def SetModelAlias(
        self, request: model_registry_pb2.SetModelAliasRequest, context: Any
    ) -> model_pb2.ModelAlias:
        refuse(_bad_alias_fields(request))
        return await self._store.write(
            lambda: models.set_alias(
                request.model_id,
                request.alias,
                request.result_id,
                version=request.version,
                expected_result_id=_expected(request),
            )
        )

    async def ListModelAliases(
        self, request: model_registry_pb2.ListModelAliasesRequest, context: Any
    ) -> model_registry_pb2.ListModelAliasesResponse:
        size = pages.page_size(request.page_size)
        after: str = position(request, str) or ""
        found = await self._store.read(lambda: models.alias_page(request.model_id, after=after, limit=size + 1))
        token = pages.encode_token(request, found[size - 1].alias) if len(found) > size else ""
        return model_registry_pb2.ListModelAliasesResponse(aliases=found[:size], next_page_token=token)

    async def DeleteModelAlias(
        self, request: model_registry_pb2.DeleteModelAliasRequest, context: Any
    ) -> empty_pb2.Empty:
        await self._store.write(lambda: models.delete_alias(request.model_id, request.alias, _expected(request)))
        return empty_pb2.Empty()

    async def ListModelAliasPeriods(
        self, request: model_registry_pb2.ListModelAliasPeriodsRequest, context: Any
    ) -> model_registry_pb2.ListModelAliasPeriodsResponse:
        items, token = await newest_first(
            self._store,
            request,
            lambda before_id, limit: alias_periods.page(
                request.model_id, before_id=before_id, limit=limit, alias=request.alias
            ),
        )
        return model_registry_pb2.ListModelAliasPeriodsResponse(periods=items, next_page_token=token)

    async def CreateConfiguration(
        self, request: model_registry_pb2.CreateConfigurationRequest, context: Any
    ) -> configuration_pb2.Configuration:
        refuse(_bad_configuration_fields(request.configuration))
        return await self._store.write(lambda: configurations.create(request.configuration))

    async def GetConfiguration(
        self, request: model_registry_pb2.GetConfigurationRequest, context: Any
    ) -> configuration_pb2.Configuration:
        return await self._store.read(lambda: configurations.get(request.id))

    async def ListConfigurations(
        self, request: model_registry_pb2.ListConfigurationsRequest, context: Any
    ) -> model_registry_pb2.ListConfigurationsResponse:
        items, token = await newest_first(
            self._store,
            request,
            lambda before_id, limit: configurations.page(
                before_id=before_id, limit=limit, model_id=request.model_id, name=request.name
            ),
        )
        return model_registry_pb2.ListConfigurationsResponse(configurations=items, next_page_token=token)

    async def UpdateConfiguration(
        self, request: model_registry_pb2.UpdateConfigurationRequest, context: Any
    ) -> configuration_pb2.Configuration:
        given_etag = request.configuration.etag
        request.configuration.ClearField("etag")

        def update() -> configuration_pb2.Configuration:
            configuration = configurations.get(request.configuration.id)
            apply_update(configuration, request.configuration, request.update_mask)
            refuse(_bad_configuration_fields(configuration))
            return configurations.update(configuration, given_etag)

        return await self._store.write(update)

    async def DeleteConfiguration(
        self, request: model_registry_pb2.DeleteConfigurationRequest, context: Any
    ) -> empty_pb2.Empty:
        await self._store.write(lambda: configurations.delete(request.id))
        return empty_pb2.Empty()

    async def _validate(self, model: model_pb2.Model) -> None:
        """Fill in what building the code shows; InvalidArgument when it builds no model."""
        signature = await self._executors.signature_of(model.framework, model.imports, model.code)
        model.signature.CopyFrom(signature)
        model.code_sha256 = code_sha256(model.imports, model.code)


def code_sha256(imports: str, code: str) -> str:
    """The digest of a model's code, in hex: of its imports, a zero byte and its code."""
    return hashlib.sha256(b"\0".join((imports.encode(), code.encode()))).hexdigest()


def _bad_model_fields(model: model_pb2.Model) -> list[FieldViolation]:
    bad = bad_name("model.name", model.name)
    known = (model_pb2.FRAMEWORK_TENSORFLOW, model_pb2.FRAMEWORK_PYTORCH)
    if model.framework not in known:
        bad.append(FieldViolation("model.framework", "must be FRAMEWORK_TENSORFLOW or FRAMEWORK_PYTORCH"))
    if not model.code.strip():
        bad.append(FieldViolation("model.code", "must not be empty: it has to leave a variable `model`"))
    for name in ("imports", "code"):
        size = len(getattr(model, name).encode())
        if size > MAX_CODE_BYTES:
            bad.append(FieldViolation(f"model.{name}", f"has {size} bytes, at most {MAX_CODE_BYTES} are taken"))
    return bad


def _bad_alias_fields(request: model_registry_pb2.SetModelAliasRequest) -> list[FieldViolation]:
    bad = []
    if not ALIAS.fullmatch(request.alias):
        rule = f"must be 1 to 63 of lower-case letters, digits and -, not {request.alias[:80]!r}"
        bad.append(FieldViolation("alias", rule))
    if bool(request.result_id) == bool(request.version):
        bad.append(FieldViolation("result_id", "must be the id of a finished result, or version be set, and not both"))
    return bad


def _expected(
    request: model_registry_pb2.SetModelAliasRequest | model_registry_pb2.DeleteModelAliasRequest,
) -> int | None:
    """Where the caller believes the alias to point; None when he does not care."""
    return request.expected_result_id if request.HasField("expected_result_id") else None


def _bad_configuration_fields(configuration: configuration_pb2.Configuration) -> list[FieldViolation]:
    bad = bad_name("configuration.name", configuration.name)
    ids = list(configuration.model_ids)
    if not ids:
        bad.append(FieldViolation("configuration.model_ids", "must name at least one model"))
    if len(ids) > MAX_CONFIGURATION_MODELS:
        rule = f"has {len(ids)} models, at most {MAX_CONFIGURATION_MODELS} are taken"
        bad.append(FieldViolation("configuration.model_ids", rule))
    repeated = sorted({one for one in ids if ids.count(one) > 1})
    if repeated:
        named = ", ".join(str(one) for one in repeated)
        bad.append(FieldViolation("configuration.model_ids", f"names each model once, but {named} more often"))
    return bad
