"""`headrace kafka-cluster …`: Kafka clusters beside the platform's own, for the topics of inferences."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import output
from cli.connection import control_plane, list_all
from cli.options import servers
from cli.output import Json, Limit
from headrace.errors import NotFound
from headrace.v1 import deployment_manager_pb2, deployment_pb2, error_pb2
from headrace.v1.deployment_manager_pb2_grpc import DeploymentManagerStub

app = typer.Typer()

TIMEOUT_S = 30.0


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="1 to 63 of letters, digits, `-`, `_`, `.` and blank.")],
    bootstrap: Annotated[str, typer.Argument(metavar="HOST:PORT", callback=servers, help="Several joined by commas.")],
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="NAME=VALUE",
            help="librdkafka's, of security; secrets as sasl.password=env:NAME, which is HEADRACE_SECRET_NAME.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Give a Kafka cluster a name, when it answers."""
    cluster = deployment_pb2.KafkaCluster(
        name=name, bootstrap_servers=bootstrap, options=dict(map(_option, options or []))
    )
    request = deployment_manager_pb2.CreateKafkaClusterRequest(kafka_cluster=cluster)
    with control_plane() as channel:
        created = DeploymentManagerStub(channel).CreateKafkaCluster(request, timeout=TIMEOUT_S)
    if as_json:
        output.print_json(created)
        return
    output.console.print(f"Created Kafka cluster {created.id}: {created.name}.")


@app.command("list")
def list_clusters(limit: Limit = 50, as_json: Json = False) -> None:
    """List the Kafka clusters, newest first."""
    with control_plane() as channel:
        manager = DeploymentManagerStub(channel)
        found = list_all(manager.ListKafkaClusters, deployment_manager_pb2.ListKafkaClustersRequest(), limit)
    if as_json:
        output.print_json(found)
        return
    output.print_table(
        ["#id", "name", "servers", "options", "created"],
        [
            (one.id, one.name, one.bootstrap_servers, _shown(one), output.ago(one.create_time))
            for one in found.kafka_clusters
        ],
        empty="There is only the platform's own; `headrace kafka-cluster create` names another.",
        more=bool(found.next_page_token),
    )


@app.command()
def delete(name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Delete a name that no inference uses."""
    with control_plane() as channel:
        manager = DeploymentManagerStub(channel)
        found = manager.ListKafkaClusters(deployment_manager_pb2.ListKafkaClustersRequest(name=name)).kafka_clusters
        if not found:
            raise NotFound(error_pb2.REASON_RESOURCE_NOT_FOUND, f"there is no Kafka cluster called {name!r}", name=name)
        manager.DeleteKafkaCluster(deployment_manager_pb2.DeleteKafkaClusterRequest(id=found[0].id))
    output.console.print(f"Deleted Kafka cluster {name}.")


def _option(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not (name and separator):
        raise typer.BadParameter(f"--option {text!r} is not NAME=VALUE")
    return name, value


def _shown(cluster: deployment_pb2.KafkaCluster) -> str:
    return " ".join(f"{name}={value}" for name, value in sorted(cluster.options.items()))
