"""`headrace inference update …`: another model, or other settings, while data flow."""

from __future__ import annotations

import time
from typing import Annotated

import grpc
import typer

from cli import output
from cli.connection import control_plane, find_inference
from cli.inference_options import ERROR_POLICIES, MAX_WAIT_S, chosen, set_source, source
from cli.options import count_option, finite
from cli.output import Json
from headrace.errors import DeadlineExceeded, FailedPrecondition, from_status
from headrace.v1 import deployment_manager_pb2, error_pb2, inference_pb2
from headrace.v1.deployment_manager_pb2_grpc import DeploymentManagerStub
from headrace.v1.inference_pb2 import Inference, ReplicaState

TIMEOUT_S = 60.0
SWAP_TIMEOUT_S = 180.0
POLL_S = 0.2
AT_WORK = (inference_pb2.INFERENCE_STATE_RUNNING, inference_pb2.INFERENCE_STATE_DEGRADED)


def update(
    name: Annotated[str, typer.Argument(metavar="INFERENCE", help="Its name or id.")],
    result: Annotated[
        str,
        typer.Option(
            "--result",
            metavar="RESULT|MODEL@ALIAS",
            callback=lambda text: source(text) if text else text,
            help="Answer with this result from now on, or with what an alias points to, as digits@champion.",
        ),
    ] = "",
    max_rows: Annotated[int | None, count_option("--max-rows", help="Rows of a batch. 0: adapts.")] = None,
    max_wait_s: Annotated[
        float | None,
        typer.Option("--max-wait", min=0.0, max=MAX_WAIT_S, help="Seconds that a batch waits for its first row."),
    ] = None,
    on_error: Annotated[str, typer.Option("--on-error", help="dead-letter, skip or stop.")] = "",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return when the model answers.")] = True,
    as_json: Json = False,
) -> None:
    """Replace the model, or change settings, while data flow. The model before answers until the new one is loaded, and
    goes on where that cannot be loaded. To roll back, name the result before.
    """
    with control_plane() as channel:
        before = find_inference(channel, name)
        updated = _send(channel, before.id, _change(channel, result, max_rows, max_wait_s, on_error))
        if wait and result:
            updated = await_model(channel, updated)
    if as_json:
        output.print_json(updated)
        return
    output.console.print(_outcome(before, updated, has_waited=wait, has_result=bool(result)))


def _change(
    channel: grpc.Channel, result: str, max_rows: int | None, max_wait_s: float | None, on_error: str
) -> tuple[Inference, list[str]]:
    """The new values, and which fields they are."""
    change = Inference()
    paths = set_source(channel, change, result) if result else []
    if max_rows is not None:
        change.batch.max_rows = max_rows
        paths.append("batch.max_rows")
    if max_wait_s is not None:
        change.batch.max_wait.FromMicroseconds(round(finite(max_wait_s) * 1e6))
        paths.append("batch.max_wait")
    if on_error:
        change.on_error = chosen(ERROR_POLICIES, on_error, "--on-error")
        paths.append("on_error")
    if not paths:
        raise typer.BadParameter("say what to change: --result, --max-rows, --max-wait or --on-error")
    return change, paths


def _send(channel: grpc.Channel, inference_id: int, change: tuple[Inference, list[str]]) -> Inference:
    wish, paths = change
    wish.id = inference_id
    request = deployment_manager_pb2.UpdateInferenceRequest(inference=wish, update_mask={"paths": paths})
    updated: Inference = DeploymentManagerStub(channel).UpdateInference(request, timeout=TIMEOUT_S)
    return updated


def await_model(channel: grpc.Channel, wish: Inference, timeout_s: float = SWAP_TIMEOUT_S) -> Inference:
    """Return when every replica answers with the result that is wanted.

    Raises FailedPrecondition with the reason why it cannot be loaded: the one before answers on. DeadlineExceeded.
    """
    deadline = time.monotonic() + timeout_s
    with output.errors.status("Loading the model beside the one that answers") as status:
        while True:
            found = find_inference(channel, str(wish.id))
            _raise_trouble(found, wish.result_id)
            answering = sum(_answers_with(replica, wish.result_id) for replica in found.replica_states)
            if answering >= found.replicas:
                return found
            if time.monotonic() > deadline:
                raise _late(found, answering, timeout_s)
            status.update(f"{answering} of {found.replicas} replicas answer with version {wish.model_version}")
            time.sleep(POLL_S)


def _answers_with(replica: ReplicaState, result_id: int) -> bool:
    return replica.state in AT_WORK and replica.result_id == result_id


def _raise_trouble(found: Inference, result_id: int) -> None:
    if found.state == inference_pb2.INFERENCE_STATE_FAILED:
        raise from_status(found.error)
    if found.result_id != result_id or found.state in (
        inference_pb2.INFERENCE_STATE_STOPPING,
        inference_pb2.INFERENCE_STATE_STOPPED,
    ):
        why = (
            f"inference {found.id} was stopped, or changed by somebody else, before it answered with result {result_id}"
        )
        raise FailedPrecondition(error_pb2.REASON_WRONG_STATE, why, id=found.id, result=result_id)
    for replica in found.replica_states:
        if replica.state in AT_WORK and _refuses(replica, found):
            raise _refused(found, replica)


def _refuses(replica: ReplicaState, wish: Inference) -> bool:
    """Whether it has tried what is wanted now. What it says of an earlier wish may have been mended since."""
    has_tried = replica.wish_etag == wish.etag and replica.wanted_result_id == wish.result_id
    return has_tried and replica.result_id != wish.result_id and replica.HasField("error")


def _refused(found: Inference, replica: ReplicaState) -> FailedPrecondition:
    error = from_status(replica.error)
    refused = FailedPrecondition(
        error.reason,
        f"version {found.model_version} of {found.model_name} cannot be loaded, so version {replica.model_version} goes"
        f" on answering: {error.message}",
    )
    facts = {"result": str(replica.wanted_result_id), "answering": str(replica.result_id)}
    refused.metadata = {**error.metadata, **facts}
    return refused


def _late(found: Inference, answering: int, timeout_s: float) -> DeadlineExceeded:
    return DeadlineExceeded(
        error_pb2.REASON_DEADLINE,
        f"{answering} of {found.replicas} replicas answer with version {found.model_version} after {timeout_s:g} s; the"
        f" others follow. `headrace inference show {found.id}` tells of each",
        id=found.id,
    )


def _outcome(before: Inference, updated: Inference, *, has_waited: bool, has_result: bool) -> str:
    if not has_result:
        return f"Inference {updated.id} is changed; its replicas are replaced one by one."
    was = f"{before.model_name} version {before.model_version}"
    answers = "answers" if has_waited else "will answer"
    return (
        f"Inference {updated.id} {answers} with {updated.model_name} version {updated.model_version} (result"
        f" {updated.result_id}); before, it was {was} (result {before.result_id})."
    )
