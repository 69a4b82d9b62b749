"""Kafka clusters other than the platform's own: which options they may have, and how their secrets are found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from headrace.errors import FailedPrecondition, not_yet
from headrace.v1 import error_pb2
from headrace.v1.deployment_pb2 import KafkaCluster
from streams.kafka import KafkaSettings

# What `env:NAME` may refer to: a variable with this before NAME. Others are none of the API's business.
SECRET_PREFIX = "HEADRACE_SECRET_"  # noqa: S105 - a name, not a secret
REFERENCES = ("env:", "file:", "k8s:")
SECRETS = frozenset({
    "sasl.password", "ssl.key.password", "ssl.key.pem", "ssl.keystore.password", "sasl.oauthbearer.client.secret",
})  # fmt: skip
# None of them runs a command or loads a library, as others do: the API must not.
OPTIONS = SECRETS | {
    "security.protocol", "sasl.mechanism", "sasl.mechanisms", "sasl.username", "sasl.oauthbearer.method",
    "sasl.oauthbearer.client.id", "sasl.oauthbearer.scope", "sasl.oauthbearer.extensions",
    "sasl.oauthbearer.token.endpoint.url", "ssl.ca.location", "ssl.ca.pem", "ssl.certificate.location",
    "ssl.certificate.pem", "ssl.key.location", "ssl.keystore.location", "ssl.crl.location", "ssl.cipher.suites",
    "ssl.endpoint.identification.algorithm", "enable.ssl.certificate.verification", "broker.address.family",
    "client.dns.lookup", "socket.timeout.ms", "socket.connection.setup.timeout.ms", "message.max.bytes",
    "request.timeout.ms",
}  # fmt: skip


def bad_options(options: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Name and rule of each that a cluster may not have."""
    for name, value in options.items():
        if name not in OPTIONS:
            yield name, f"is not one of {', '.join(sorted(OPTIONS))}"
        elif name in SECRETS and not value.startswith(REFERENCES):
            yield name, "must be a reference, `env:NAME` or `file:PATH`: secrets are not stored"


def secrets_of(environ: Mapping[str, str]) -> dict[str, str]:
    """What `env:` references of this process find."""
    return {
        name.removeprefix(SECRET_PREFIX): value for name, value in environ.items() if name.startswith(SECRET_PREFIX)
    }


def settings_of(cluster: KafkaCluster, secrets: Mapping[str, str]) -> KafkaSettings:
    """For clients. Raises FailedPrecondition (RESOURCE_NOT_FOUND) where a secret is missing here, Unimplemented for
    `k8s:`.
    """
    options = {name: _resolved(cluster, name, value, secrets) for name, value in cluster.options.items()}
    return KafkaSettings(cluster.bootstrap_servers, options)


def _resolved(cluster: KafkaCluster, option: str, value: str, secrets: Mapping[str, str]) -> str:
    kind, _, name = value.partition(":")
    if kind == "env":
        if name not in secrets:
            raise _missing(cluster, option, f"the environment has no {SECRET_PREFIX}{name}")
        return secrets[name]
    if kind == "file":
        try:
            return Path(name).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise _missing(cluster, option, f"{name} cannot be read ({type(error).__name__})") from error
    if kind == "k8s":
        raise not_yet("a secret of Kubernetes", "refer to it with `env:NAME` or `file:PATH`")
    return value


def _missing(cluster: KafkaCluster, option: str, why: str) -> FailedPrecondition:
    return FailedPrecondition(
        error_pb2.REASON_RESOURCE_NOT_FOUND,
        f"the option {option} of the Kafka cluster {cluster.name!r} refers to what is not here: {why}",
        resource="secret",
        cluster=cluster.name,
        option=option,
    )
