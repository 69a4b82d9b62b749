"""Kafka clusters by name: what they may be told, and where their secrets are."""

from pathlib import Path

import pytest

from headrace.errors import FailedPrecondition, Unimplemented
from headrace.v1.deployment_pb2 import KafkaCluster
from streams.clusters import bad_options, secrets_of, settings_of


def cluster(**options: str) -> KafkaCluster:
    named = {name.replace("_", "."): value for name, value in options.items()}
    return KafkaCluster(name="east", bootstrap_servers="east:9092", options=named)


def test_secrets_are_found_where_their_references_say(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("from a file\n")
    secrets = secrets_of({"HEADRACE_SECRET_EAST": "from the environment", "HOME": "/"})
    assert secrets == {"EAST": "from the environment"}
    found = settings_of(
        cluster(security_protocol="SASL_SSL", sasl_password="env:EAST", ssl_key_password=f"file:{file}"), secrets
    )
    assert found.bootstrap_servers == "east:9092"
    assert found.options == {
        "security.protocol": "SASL_SSL",
        "sasl.password": "from the environment",
        "ssl.key.password": "from a file",
    }


@pytest.mark.parametrize("reference", ["env:HOME", "env:WEST", "file:/nowhere"])
def test_a_secret_that_is_missing_is_told_with_its_option(reference: str) -> None:
    with pytest.raises(FailedPrecondition) as missing:
        settings_of(cluster(sasl_password=reference), {"EAST": "x"})
    assert missing.value.reason_name == "RESOURCE_NOT_FOUND"
    assert (missing.value.metadata["cluster"], missing.value.metadata["option"]) == ("east", "sasl.password")


def test_secrets_of_kubernetes_come_later() -> None:
    with pytest.raises(Unimplemented):
        settings_of(cluster(sasl_password="k8s:east/password"), {})


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("sasl.password", "in the clear", "reference"),
        ("plugin.library.paths", "/tmp/evil.so", "not one of"),
        ("sasl.kerberos.kinit.cmd", "rm -rf /", "not one of"),
        ("group.id", "another", "not one of"),
    ],
)
def test_what_would_run_code_or_keep_a_secret_is_refused(name: str, value: str, rule: str) -> None:
    ((bad, said),) = bad_options({name: value, "security.protocol": "SSL"})
    assert bad == name
    assert rule in said
