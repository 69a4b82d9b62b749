"""A producer on a small device: what `import sinks` loads."""

import subprocess
import sys

# The base install, and Python itself.
LIBRARIES = "numpy, confluent_kafka, confluent_kafka.admin, fastavro, google.protobuf.message"


def loaded_by(code: str) -> set[str]:
    """The packages that are loaded by the code in a new interpreter that has loaded the libraries before."""
    program = f"""
import sys, {LIBRARIES}
before = set(sys.modules)
{code}
print(*{{name.partition(".")[0] for name in set(sys.modules) - before}})
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split()) - sys.stdlib_module_names


def test_importing_sinks_loads_nothing_but_itself() -> None:
    assert loaded_by("import sinks") == {"sinks", "streams", "headrace", "google"}


def test_no_sink_needs_grpc_a_framework_or_a_database() -> None:
    code = """
from sinks import AvroSink, InferenceSink, JsonSink, OnlineSink, ProtobufSink, RawSink
for make in (AvroSink, JsonSink, OnlineSink, ProtobufSink, RawSink):
    make("localhost:1", "topic", 1)
InferenceSink("localhost:1", "questions", "answers", data_format="AVRO")
"""
    heavy = {"grpc", "tensorflow", "torch", "peewee", "starlette", "prometheus_client", "typer", "httpx", "requests"}
    assert loaded_by(code).isdisjoint(heavy)
