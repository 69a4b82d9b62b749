"""`headrace train …` and `headrace deployment …`."""

from __future__ import annotations

import math
import uuid
from typing import Annotated

import grpc
import typer

from cli import output
from cli.board import Board
from cli.connection import control_plane, find_configuration, list_all
from cli.following import follow
from cli.home import gateway_url
from cli.logs import print_logs
from cli.options import MAX_SECONDS, MAX_UINT32, count_option, finite, id_argument, id_option
from cli.output import Json, Limit
from headrace.v1 import (
    configuration_pb2,
    deployment_manager_pb2,
    deployment_pb2,
    model_pb2,
    model_registry_pb2,
    result_collector_pb2,
)
from headrace.v1.deployment_manager_pb2_grpc import DeploymentManagerStub
from headrace.v1.model_registry_pb2_grpc import ModelRegistryStub
from headrace.v1.result_collector_pb2_grpc import ResultCollectorStub

app = typer.Typer()

EXIT_FAILED = 1
Id = Annotated[int, id_argument("DEPLOYMENT")]


def train(  # noqa: PLR0913 - an option each
    configuration: Annotated[str, typer.Argument(metavar="CONFIGURATION", help="Its name or id.")] = "",
    batch_size: Annotated[int, count_option("--batch-size", "-b", help="Rows per step. 0: 32.")] = 0,
    fit: Annotated[str, typer.Option("--fit", help='Arguments of Keras\' fit, as "epochs=5, shuffle=True".')] = "",
    evaluate: Annotated[str, typer.Option("--evaluate", help="Arguments of Keras' evaluate.")] = "",
    torch_fit: Annotated[str, typer.Option("--torch-fit", help='For PyTorch models, as "max_epochs=5".')] = "",
    torch_evaluate: Annotated[str, typer.Option("--torch-evaluate", help="For PyTorch models: the DataLoader's.")] = "",
    stream: Annotated[int, id_option("--stream", help="Train on this recorded stream now.", min=0)] = 0,
    from_result: Annotated[
        int,
        id_option("--from-result", help="Train this result again: same code, settings, seed and ranges.", min=0),
    ] = 0,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=MAX_UINT32, help="Of split, shuffling and weights. 0: chosen for you.")
    ] = 0,
    ordered: Annotated[bool, typer.Option("--ordered", help="Split by time, not shuffled.")] = False,
    confusion_matrix: Annotated[bool, typer.Option("--confusion-matrix", help="Count a confusion matrix.")] = False,
    decode_error_limit: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, callback=finite, help="Part of the records that may be undecodable."),
    ] = 0.0,
    accept_count_mismatch: Annotated[
        bool, typer.Option("--accept-count-mismatch", help="Train also on more or fewer records than announced.")
    ] = False,
    keep_integers: Annotated[
        bool, typer.Option("--keep-integers", help="PyTorch models get integers as such, as embeddings need them.")
    ] = False,
    checkpoint_interval_s: Annotated[
        float,
        typer.Option(
            "--checkpoint-interval",
            min=0,
            max=MAX_SECONDS,
            callback=finite,
            help="At most so many seconds between checkpoints. 0: 60.",
        ),
    ] = 0.0,
    deadline_s: Annotated[
        float, typer.Option("--deadline", min=0, max=MAX_SECONDS, callback=finite, help="Fail after so many seconds.")
    ] = 0.0,
    allowed_topics: Annotated[
        list[str] | None,
        typer.Option("--allow-topic", help="Refuse announcements of other topics; may be repeated."),
    ] = None,
    description: Annotated[str, typer.Option("--description", help="For people.")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Show it live until it ends; exit code 1 if it fails.")] = False,
    as_json: Json = False,
) -> None:
    """Train every model of a configuration on one stream: a recorded one, or the next that is announced for it.

    Or, with --from-result, train one result again as it was trained.
    """
    settings = deployment_pb2.TrainingSettings(
        batch_size=batch_size,
        seed=seed,
        split=deployment_pb2.SPLIT_ORDERED if ordered else deployment_pb2.SPLIT_UNSPECIFIED,
        tensorflow=deployment_pb2.FrameworkArguments(fit_args=fit, evaluate_args=evaluate),
        pytorch=deployment_pb2.FrameworkArguments(fit_args=torch_fit, evaluate_args=torch_evaluate),
        confusion_matrix=confusion_matrix,
        decode_error_limit=decode_error_limit,
        count_mismatch=(
            deployment_pb2.COUNT_MISMATCH_ACCEPT if accept_count_mismatch else deployment_pb2.COUNT_MISMATCH_UNSPECIFIED
        ),
        keep_integers=keep_integers,
    )
    if checkpoint_interval_s:
        settings.checkpoint_interval.FromNanoseconds(round(checkpoint_interval_s * 1e9))
    if deadline_s:
        settings.deadline.FromNanoseconds(round(deadline_s * 1e9))
    wish = deployment_pb2.Deployment(
        stream_id=stream, from_result_id=from_result, description=description, allowed_topics=allowed_topics or ()
    )
    _check_says_once(configuration, settings, wish)
    with control_plane() as channel:
        if not from_result:
            found = find_configuration(channel, configuration)
            _give_to_pytorch(channel, found, settings)
            wish.configuration_id = found.id
            wish.settings.CopyFrom(settings)
        created = _create(channel, wish)
        if not wait:
            _print_created(created, as_json)
            return
        try:
            ended = watch_deployment(channel, created, quiet=as_json)
        except KeyboardInterrupt:
            output.errors.print(
                f"headrace: the training goes on; watch it: {gateway_url()}/deployments/{created.id}\n"
                f"  cancel it: headrace deployment cancel {created.id}",
                soft_wrap=True, markup=False,
            )  # fmt: skip
            raise
        if as_json:
            output.print_json(ended)
    if ended.state != deployment_pb2.STATE_FINISHED:
        raise typer.Exit(EXIT_FAILED)


def _check_says_once(
    configuration: str, settings: deployment_pb2.TrainingSettings, wish: deployment_pb2.Deployment
) -> None:
    """A configuration or a result says what to train; a result says also how, and on what."""
    nothing = deployment_pb2.TrainingSettings(tensorflow={}, pytorch={})
    if not wish.from_result_id:
        if not configuration:
            raise typer.BadParameter("name a CONFIGURATION, or a result with --from-result")
    elif configuration or wish.stream_id or wish.allowed_topics or settings != nothing:
        raise typer.BadParameter(
            "--from-result says what to train, how and on what: only --description, --wait and --json go with it"
        )


def _give_to_pytorch(
    channel: grpc.Channel, configuration: configuration_pb2.Configuration, settings: deployment_pb2.TrainingSettings
) -> None:
    """`--fit` and `--evaluate` are for PyTorch where there is no model of TensorFlow that they could be for."""
    registry = ModelRegistryStub(channel)
    models = [
        registry.GetModel(model_registry_pb2.GetModelRequest(id=model_id)) for model_id in configuration.model_ids
    ]
    if any(model.framework == model_pb2.FRAMEWORK_TENSORFLOW for model in models):
        return
    settings.pytorch.fit_args = settings.pytorch.fit_args or settings.tensorflow.fit_args
    settings.pytorch.evaluate_args = settings.pytorch.evaluate_args or settings.tensorflow.evaluate_args
    settings.ClearField("tensorflow")


def _create(channel: grpc.Channel, deployment: deployment_pb2.Deployment) -> deployment_pb2.Deployment:
    """Create it. Sent again after a lost answer, it is the same one."""
    request = deployment_manager_pb2.CreateDeploymentRequest(deployment=deployment, request_id=str(uuid.uuid4()))
    return DeploymentManagerStub(channel).CreateDeployment(request, timeout=60.0)  # type: ignore[no-any-return]


def watch_deployment(
    channel: grpc.Channel, deployment: deployment_pb2.Deployment, *, quiet: bool = False, timeout_s: float = math.inf
) -> deployment_pb2.Deployment:
    """Show a deployment live (not when quiet) until it ends, and return it as it ended."""
    listed = result_collector_pb2.ListResultsRequest(deployment_id=deployment.id)
    results = sorted(ResultCollectorStub(channel).ListResults(listed).results, key=lambda result: result.id)
    with Board([] if quiet else results) as board:
        for event in follow(channel, deployment_id=deployment.id, timeout_s=timeout_s):
            if not quiet:
                board.update(event)
    request = deployment_manager_pb2.GetDeploymentRequest(id=deployment.id)
    return DeploymentManagerStub(channel).GetDeployment(request)  # type: ignore[no-any-return]


def _print_created(created: deployment_pb2.Deployment, as_json: bool) -> None:
    if as_json:
        output.print_json(created)
        return
    output.console.print(f"Created deployment {created.id} with the results {_ids(created)}.")
    if not (created.stream_id or created.from_result_id):
        output.console.print(f"It waits for its stream: headrace send FILE --topic TOPIC --deployment {created.id}")
    output.console.print(f"Watch it: {gateway_url()}/deployments/{created.id}")


@app.command("list")
def list_deployments(
    state: Annotated[str, typer.Option("--state", help="Only in this state, as `training`.")] = "",
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """List the trainings, newest first."""
    request = deployment_manager_pb2.ListDeploymentsRequest(state=parse_state(state) if state else None)
    with control_plane() as channel:
        found = list_all(DeploymentManagerStub(channel).ListDeployments, request, limit)
    if as_json:
        output.print_json(found)
        return
    output.print_table(
        ["#id", "#configuration", "state", "results", "#stream", "created", "description"],
        [
            (
                each.id, each.configuration_id, output.styled_state(output.state_name(each.state)), _ids(each),
                each.stream_id or "", output.ago(each.create_time), "\n".join(filter(None, _about(each))),
            )
            for each in found.deployments
        ],
        empty="There are no trainings yet; start one with `headrace train CONFIGURATION`.",
        more=bool(found.next_page_token),
    )  # fmt: skip


@app.command()
def show(deployment: Id, as_json: Json = False) -> None:
    """Show a training and its results."""
    with control_plane() as channel:
        found = DeploymentManagerStub(channel).GetDeployment(deployment_manager_pb2.GetDeploymentRequest(id=deployment))
        listed = result_collector_pb2.ListResultsRequest(deployment_id=deployment)
        results = [] if as_json else ResultCollectorStub(channel).ListResults(listed).results
    if as_json:
        output.print_json(found)
        return
    again = found.from_result_id
    output.print_fields({
        "id": found.id,
        "description": found.description,
        "configuration": found.configuration_id,
        "state": output.styled_state(output.state_name(found.state)),
        "why": output.error_line(found.error),
        "queue": found.queue_message,
        "stream": found.stream_id or (f"that of result {again}" if again else "waits for one"),
        "takes only": ", ".join(found.allowed_topics),
        "refused": output.refused_line(found.refused_announcement),
        "trains again": f"result {again}" if again else "",
        "settings": output.settings_lines(found.settings),
        "created": output.ago(found.create_time),
        "page": f"{gateway_url()}/deployments/{found.id}",
    })  # fmt: skip
    output.print_table(
        ["#result", "model", "state", "#version", "metrics"],
        [
            (
                each.id, each.model_name, output.styled_state(output.state_name(each.state)), each.version or "",
                output.error_line(each.error) or output.metrics_line(each.metrics) or each.queue.message
                or each.progress.waits_for,
            )
            for each in sorted(results, key=lambda result: result.id)
        ],
        empty="It has no results.",
    )  # fmt: skip


@app.command()
def cancel(deployment: Id, as_json: Json = False) -> None:
    """Stop a training. Results that are finished stay."""
    request = deployment_manager_pb2.CancelDeploymentRequest(id=deployment)
    with control_plane() as channel:
        cancelled = DeploymentManagerStub(channel).CancelDeployment(request, timeout=60.0)
    if as_json:
        output.print_json(cancelled)
        return
    output.console.print(f"Deployment {deployment} is {output.state_name(cancelled.state)}.")


@app.command()
def delete(
    deployment: Id,
    force: Annotated[bool, typer.Option("--force", help="Cancel it if it runs; its results go with it.")] = False,
) -> None:
    """Delete a training that has ended."""
    request = deployment_manager_pb2.DeleteDeploymentRequest(id=deployment, force=force)
    with control_plane() as channel:
        DeploymentManagerStub(channel).DeleteDeployment(request, timeout=60.0)
    output.console.print(f"Deleted deployment {deployment}.")


@app.command()
def logs(
    deployment: Id,
    follow_lines: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the training ends.")] = False,
    as_json: Json = False,
) -> None:
    """Print the log of a training's processes, with what the models' code printed."""
    print_logs(deployment_manager_pb2.WatchLogsRequest(deployment_id=deployment, no_follow=not follow_lines), as_json)


def parse_state(text: str) -> deployment_pb2.State:
    """`training` is STATE_TRAINING."""
    try:
        return deployment_pb2.State.Value(f"STATE_{text.upper()}")  # type: ignore[return-value]
    except ValueError as error:
        known = ", ".join(output.state_name(value) for value in deployment_pb2.State.values() if value)
        raise typer.BadParameter(f"there is no state {text!r}; choose one of {known}") from error


def _about(deployment: deployment_pb2.Deployment) -> tuple[str, str, str]:
    again = deployment.from_result_id
    return deployment.description, f"result {again} again" if again else "", deployment.queue_message


def _ids(deployment: deployment_pb2.Deployment) -> str:
    return ", ".join(map(str, deployment.result_ids))
