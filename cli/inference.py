"""`headrace infer …` and `headrace inference …`."""

from __future__ import annotations

import time
import uuid
from typing import Annotated

import grpc
import typer
from google.protobuf import duration_pb2, json_format

from cli import output
from cli.announce import parse_setting
from cli.connection import control_plane, find_inference, list_all
from cli.home import gateway_url
from cli.inference_options import ERROR_POLICIES, FORMATS, GUARANTEES, MAX_WAIT_S, STARTS, chosen, set_source, source
from cli.inference_update import update
from cli.logs import print_logs
from cli.options import MAX_INT32, count_option, finite
from cli.output import Json, Limit
from headrace.errors import DeadlineExceeded, FailedPrecondition, from_status
from headrace.v1 import deployment_manager_pb2, error_pb2, inference_pb2, predictions_pb2, stream_pb2
from headrace.v1.deployment_manager_pb2_grpc import DeploymentManagerStub
from headrace.v1.predictions_pb2_grpc import PredictionsStub

app = typer.Typer()

TIMEOUT_S = 60.0
STOP_DEADLINE_S = 60.0
POLL_S = 0.2
ENDED = (inference_pb2.INFERENCE_STATE_STOPPED, inference_pb2.INFERENCE_STATE_FAILED)
# What becomes of records without an answer that are no dead letters.
_ELSEWHERE = {
    inference_pb2.ERROR_POLICY_SKIP: " What cannot be answered is counted; `headrace inference show` says how many.",
    inference_pb2.ERROR_POLICY_STOP: " What cannot be answered stops it; `headrace inference show` says why.",
}
Name = Annotated[str, typer.Argument(metavar="INFERENCE", help="Its name or id.")]


def infer(  # noqa: PLR0913 - an option each
    result: Annotated[
        str,
        typer.Argument(
            metavar="RESULT|MODEL@ALIAS",
            callback=source,
            help="The id of a finished result, or an alias, as digits@champion: when it moves, the inference follows.",
        ),
    ],
    input_topic: Annotated[str, typer.Option("--input-topic", "-i", help="Questions come from here.")],
    output_topic: Annotated[str, typer.Option("--output-topic", "-o", help="Answers go here.")],
    replicas: Annotated[int, count_option("--replicas", "-r", help="Processes.", min=1)] = 1,
    name: Annotated[str, typer.Option("--name", help="Default: made of the model's name and version.")] = "",
    guarantee: Annotated[
        str,
        typer.Option(
            "--guarantee", help="exactly-once (default) or at-least-once (default where the clusters are different)."
        ),
    ] = "",
    start: Annotated[
        str,
        typer.Option(
            "--start",
            help="Where a new inference begins. committed (default) or latest: at the next record that is written; "
            "earliest: at the first record that the topic has.",
        ),
    ] = "",
    after: Annotated[
        str,
        typer.Option(
            "--after", metavar="INFERENCE", help="Go on where this one stopped: its name or id. In place of --start."
        ),
    ] = "",
    on_error: Annotated[str, typer.Option("--on-error", help="dead-letter, skip or stop.")] = "dead-letter",
    input_format: Annotated[
        str, typer.Option("--input-format", help="raw, avro, json or protobuf. Default: as it was trained on.")
    ] = "",
    input_config: Annotated[
        list[str] | None,
        typer.Option("--input-config", "-c", metavar="NAME=TEXT", help="Of that format; =@FILE takes it from a file."),
    ] = None,
    output_format: Annotated[str, typer.Option("--output-format", help="json, raw, avro or protobuf.")] = "json",
    labels: Annotated[
        str, typer.Option("--labels", help="Names of the classes, joined by commas: answers tell the best one.")
    ] = "",
    max_rows: Annotated[int, count_option("--max-rows", help="Rows of a batch. 0: adapts.")] = 0,
    max_wait_s: Annotated[
        float | None,
        typer.Option("--max-wait", min=0.0, max=MAX_WAIT_S, help="Seconds that a batch waits for its first row."),
    ] = None,
    input_cluster: Annotated[str, typer.Option("--input-cluster", help="A name of `headrace kafka-cluster`.")] = "",
    output_cluster: Annotated[str, typer.Option("--output-cluster", help="The same, of the answers.")] = "",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return when all replicas run.")] = True,
    as_json: Json = False,
) -> None:
    """Let a trained model answer a topic with a topic."""
    if start and after:
        raise typer.BadParameter("--after says where to begin: leave out --start")
    inference = inference_pb2.Inference(
        name=name,
        replicas=replicas,
        input_topic=input_topic,
        output_topic=output_topic,
        guarantee=chosen(GUARANTEES, guarantee, "--guarantee") if guarantee else None,
        input_kafka_cluster=input_cluster,
        output_kafka_cluster=output_cluster,
        start=chosen(STARTS, start, "--start") if start else None,
        on_error=chosen(ERROR_POLICIES, on_error, "--on-error"),
        batch=inference_pb2.BatchSettings(max_rows=max_rows),
        input_format=chosen(FORMATS, input_format.lower(), "--input-format") if input_format else None,
        input_config=dict(map(parse_setting, input_config or [])),
        output_format=chosen(FORMATS, output_format.lower(), "--output-format"),
        labels=inference_pb2.AnswerLabels(names=labels.split(",")) if labels else None,
    )
    if max_wait_s is not None:
        inference.batch.max_wait.FromMicroseconds(round(finite(max_wait_s) * 1e6))
    with control_plane() as channel:
        set_source(channel, inference, result)
        if after:
            inference.start_inference_id = find_inference(channel, after).id
        created = create_inference(channel, inference)
        _warn(created)
        if wait:
            with output.errors.status("Starting the replicas"):
                created = await_running(channel, created.id)
    if as_json:
        output.print_json(created)
        return
    state = output.inference_state_name(created.state)
    output.console.print(f"Inference {created.id} ({created.name}) is {state}.")
    output.console.print(f"Ask it: headrace predict {created.id} FILE")
    output.console.print(f"Watch it: {gateway_url()}/inferences/{created.id}")


def create_inference(channel: grpc.Channel, inference: inference_pb2.Inference) -> inference_pb2.Inference:
    """Create it; sent again after a lost answer, it is the same one."""
    request = deployment_manager_pb2.CreateInferenceRequest(inference=inference, request_id=str(uuid.uuid4()))
    return DeploymentManagerStub(channel).CreateInference(request, timeout=TIMEOUT_S)  # type: ignore[no-any-return]


def await_running(channel: grpc.Channel, inference_id: int, timeout_s: float = 120.0) -> inference_pb2.Inference:
    """Return when all replicas run. Raises why it failed, or DeadlineExceeded."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = _get(channel, inference_id)
        if found.state == inference_pb2.INFERENCE_STATE_RUNNING:
            return found
        if found.state == inference_pb2.INFERENCE_STATE_FAILED:
            raise from_status(found.error)
        if found.state in (inference_pb2.INFERENCE_STATE_STOPPING, inference_pb2.INFERENCE_STATE_STOPPED):
            raise FailedPrecondition(
                error_pb2.REASON_WRONG_STATE, f"inference {inference_id} was stopped before it ran", id=inference_id
            )
        if time.monotonic() > deadline:
            raise DeadlineExceeded(
                error_pb2.REASON_DEADLINE,
                f"inference {inference_id} does not run after {timeout_s:g} s; "
                f"`headrace inference logs {inference_id}` shows what its processes say",
                id=inference_id,
            )
        time.sleep(POLL_S)


app.command("update")(update)


@app.command("list")
def list_inferences(limit: Limit = 50, as_json: Json = False) -> None:
    """List the inferences, newest first."""
    with control_plane() as channel:
        manager = DeploymentManagerStub(channel)
        found = list_all(manager.ListInferences, deployment_manager_pb2.ListInferencesRequest(), limit)
    if as_json:
        output.print_json(found)
        return
    output.print_table(
        ["#id", "name", "model", "state", "replicas", "input", "output", "#lag", "#rows/s"],
        [_row(each) for each in found.inferences],
        empty="There are no inferences yet; start one with `headrace infer RESULT`.",
        more=bool(found.next_page_token),
    )


@app.command()
def show(name: Name, as_json: Json = False) -> None:
    """Show an inference and its replicas."""
    with control_plane() as channel:
        found = _get(channel, find_inference(channel, name).id)
    if as_json:
        output.print_json(found)
        return
    output.print_fields({
        "id": found.id,
        "name": found.name,
        "model": f"{found.model_name}, version {found.model_version} (result {found.result_id})",
        "state": output.styled_state(output.inference_state_name(found.state)),
        "why": output.error_line(found.error),
        "input": _place(found.input_topic, found.input_kafka_cluster),
        "output": _place(found.output_topic, found.output_kafka_cluster),
        "consumer group": found.consumer_group,
        "answers": _answers(found),
        "warnings": "\n".join(found.warnings),
        "guarantee": inference_pb2.Guarantee.Name(found.guarantee).removeprefix("GUARANTEE_").lower().replace("_", "-"),
        "on error": next((name for name, policy in ERROR_POLICIES.items() if policy == found.on_error), ""),
        "created": output.ago(found.create_time),
        "page": f"{gateway_url()}/inferences/{found.id}",
    })  # fmt: skip
    output.print_table(
        [
            "#replica",
            "state",
            "ready",
            "partitions",
            "#lag",
            "#rows/s",
            "#p50",
            "#p99",
            "#version",
            "#answered since start",
            "#dead letters since start",
            "#restarts",
            "metrics",
            "error",
        ],
        [_replica_row(replica) for replica in found.replica_states],
        empty="No replica runs." if found.state in ENDED else "No replica has reported yet.",
    )


@app.command()
def scale(
    name: Name,
    replicas: Annotated[int, typer.Argument(min=1, max=MAX_INT32, help="How many processes.")],
    as_json: Json = False,
) -> None:
    """Change the number of replicas while data flow."""
    with control_plane() as channel:
        found = find_inference(channel, name)
        request = deployment_manager_pb2.UpdateInferenceRequest(
            inference=inference_pb2.Inference(id=found.id, replicas=replicas), update_mask={"paths": ["replicas"]}
        )
        updated = DeploymentManagerStub(channel).UpdateInference(request, timeout=TIMEOUT_S)
    _warn(updated)
    if as_json:
        output.print_json(updated)
        return
    replica = "replica" if updated.replicas == 1 else "replicas"
    output.console.print(f"Inference {updated.id} gets {updated.replicas} {replica}.")


@app.command()
def stop(
    name: Name,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return when it has stopped.")] = True,
    as_json: Json = False,
) -> None:
    """Stop an inference between two transactions; what it has answered stays answered."""
    with control_plane() as channel:
        found = find_inference(channel, name)
        stopped = stop_inference(channel, found.id, wait=wait)
    if as_json:
        output.print_json(stopped)
        return
    output.console.print(f"Inference {found.id} is {output.inference_state_name(stopped.state)}.")


@app.command()
def delete(
    name: Name, force: Annotated[bool, typer.Option("--force", help="Stop it first if it runs.")] = False
) -> None:
    """Delete a stopped inference."""
    with control_plane() as channel:
        found = find_inference(channel, name)
        request = deployment_manager_pb2.DeleteInferenceRequest(id=found.id, force=force)
        DeploymentManagerStub(channel).DeleteInference(request, timeout=TIMEOUT_S)
    output.console.print(f"Deleted inference {found.id}.")


@app.command()
def logs(
    name: Name,
    follow_lines: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the inference ends.")] = False,
    as_json: Json = False,
) -> None:
    """Print the log of an inference's processes."""
    with control_plane() as channel:
        inference_id = find_inference(channel, name).id
    print_logs(deployment_manager_pb2.WatchLogsRequest(inference_id=inference_id, no_follow=not follow_lines), as_json)


def stop_inference(channel: grpc.Channel, inference_id: int, *, wait: bool = True) -> inference_pb2.Inference:
    """Stop it and, with `wait`, return when it has stopped or the patience for that is over."""
    request = deployment_manager_pb2.StopInferenceRequest(id=inference_id)
    stopped: inference_pb2.Inference = DeploymentManagerStub(channel).StopInference(request, timeout=TIMEOUT_S)
    deadline = time.monotonic() + STOP_DEADLINE_S
    while wait and stopped.state == inference_pb2.INFERENCE_STATE_STOPPING and time.monotonic() < deadline:
        time.sleep(POLL_S)
        stopped = _get(channel, inference_id)
    return stopped


@app.command("dead-letters")
def dead_letters(
    name: Name,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=1000, help="At most so many.")] = 20,
    reason: Annotated[str, typer.Option("--reason", help="Only those with this reason, such as DECODE_ERROR.")] = "",
    replay: Annotated[
        bool, typer.Option("--replay", help="Send them to the input topic again, each once, however often you ask.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the records without an answer, newest first, or send them again."""
    with control_plane() as channel:
        predictions, found = PredictionsStub(channel), find_inference(channel, name)
        if replay:
            _replay(
                predictions, predictions_pb2.ReplayDeadLettersRequest(inference_id=found.id, reason=reason), as_json
            )
            return
        request = predictions_pb2.ListDeadLettersRequest(inference_id=found.id, page_size=count, reason=reason)
        listed = predictions.ListDeadLetters(request, timeout=TIMEOUT_S)
    if as_json:
        output.print_json(listed)
        return
    output.print_table(
        ["question", "when", "reason", "message", "model", "key", "value"],
        [_letter_row(letter) for letter in listed.dead_letters],
        empty=_no_letters(found, reason),
        more=bool(listed.next_page_token),
        option="--count",
    )


def _no_letters(found: inference_pb2.Inference, reason: str) -> str:
    """Not that every record was answered: some wait, and other policies leave records without an answer elsewhere."""
    kind = f" with the reason {reason}" if reason else ""
    return f"There are no dead letters of {found.input_topic}{kind}." + _ELSEWHERE.get(found.on_error, "")


def _replay(predictions: PredictionsStub, request: predictions_pb2.ReplayDeadLettersRequest, as_json: bool) -> None:
    total, gone, done = 0, 0, False
    while not done:
        answer = predictions.ReplayDeadLetters(request, timeout=TIMEOUT_S)
        total, gone, done = total + answer.replayed_count, gone + answer.gone_count, answer.done
        request.ends.update(answer.ends)
    if as_json:
        output.print_json({"replayed": total, "gone": gone})
        return
    output.console.print(f"{output.count(total)} dead letters were sent to the input topic again.")
    if gone:
        output.console.print(
            f"{output.count(gone)} had been cut, and their questions are not in the input topic any more."
        )


def _letter_row(letter: predictions_pb2.DeadLetter) -> tuple[object, ...]:
    place = letter.source
    shown = json_format.MessageToJson(letter.sample, indent=None) if letter.HasField("sample") else letter.value
    return (
        f"{place.topic}/{place.partition}/{place.offset}", output.ago(letter.time), letter.reason,
        output.short(letter.message), letter.model, output.short(letter.key), output.short(shown),
    )  # fmt: skip


def _get(channel: grpc.Channel, inference_id: int) -> inference_pb2.Inference:
    request = deployment_manager_pb2.GetInferenceRequest(id=inference_id)
    return DeploymentManagerStub(channel).GetInference(request)  # type: ignore[no-any-return]


def _row(found: inference_pb2.Inference) -> tuple[object, ...]:
    states = found.replica_states
    running = sum(each.state == inference_pb2.INFERENCE_STATE_RUNNING for each in states)
    return (
        found.id, found.name, f"{found.model_name} {found.model_version}",
        output.styled_state(output.inference_state_name(found.state)), f"{running} of {found.replicas}",
        found.input_topic, found.output_topic, output.count(sum(each.lag for each in states)),
        output.count(sum(each.rows_per_second for each in states)),
    )  # fmt: skip


def _warn(inference: inference_pb2.Inference) -> None:
    for warning in inference.warnings:
        output.errors.print(f"Mind: {warning}", soft_wrap=True)


def _place(topic: str, cluster: str) -> str:
    return f"{topic} on {cluster}" if cluster else topic


def _answers(found: inference_pb2.Inference) -> str:
    """Their format, with what readers need for it."""
    name = stream_pb2.DataFormat.Name(found.output_format or stream_pb2.DATA_FORMAT_JSON).removeprefix("DATA_FORMAT_")
    return " ".join([name, *(f"{key}={value}" for key, value in sorted(found.output_config.items()))])


def _replica_row(replica: inference_pb2.ReplicaState) -> tuple[object, ...]:
    return (
        replica.slot, output.styled_state(output.inference_state_name(replica.state)), _readiness(replica),
        ", ".join(map(str, replica.partitions)), output.count(replica.lag), output.count(replica.rows_per_second),
        _milliseconds(replica.p50_duration), _milliseconds(replica.p99_duration), replica.model_version,
        output.count(replica.answered_count), output.count(replica.dead_letter_count), replica.restart_count,
        replica.metrics_address, output.error_line(replica.error),
    )  # fmt: skip


def _readiness(replica: inference_pb2.ReplicaState) -> str:
    return "yes" if replica.ready else "no" if replica.live else "silent"


def _milliseconds(duration: duration_pb2.Duration) -> str:
    """Nothing where nothing was answered lately."""
    microseconds = duration.ToMicroseconds()
    return f"{microseconds / 1000:.0f} ms" if microseconds else ""
