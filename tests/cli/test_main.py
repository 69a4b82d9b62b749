"""The command as people meet it: help, wrong usage, what cannot be reached, our own bugs."""

import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import pytest

from cli import main
from cli.main import COMMANDS
from headrace.errors import FieldViolation, HeadraceError, Internal, InvalidArgument, NotFound, Unavailable
from headrace.v1 import error_pb2
from tests.support import free_port


def _headrace(
    *words: str, home: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    return subprocess.run(
        [sys.executable, "-P", "-m", "cli", *words],
        env={**clean, "HEADRACE_HOME": str(home), **(environment or {})},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_help_lists_every_command(tmp_path: Path) -> None:
    done = _headrace("--help", home=tmp_path)
    assert done.returncode == 0
    for name in COMMANDS:
        assert name in done.stdout


def test_the_version_is_printed(tmp_path: Path) -> None:
    done = _headrace("--version", home=tmp_path)
    assert done.returncode == 0
    assert done.stdout == f"headrace {version('headrace')}\n"


def test_help_needs_neither_grpc_nor_kafka() -> None:
    program = "import sys; from cli.main import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert not {"grpc", "confluent_kafka", "google.protobuf", "numpy"} & set(done.stderr.split())


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_a_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([name, "--help"]) == 0
    assert "Usage:" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["bogus"],
        ["model", "bogus"],
        ["model", "create"],
        ["model", "create", "digits", "--framework", "fortran", "--code", __file__],
        ["model", "create", "digits", "--framework", "pytorch", "--code", "/nowhere"],
        ["result", "show", "first"],
        ["deployment", "list", "--state", "bored"],
        ["train"],
        ["up", "--port", "70000"],
        ["infer", "1", "-i", "a", "-o", "b", "--guarantee", "sometimes"],
        ["infer", "digits", "-i", "a", "-o", "b"],
        ["infer", "1", "-i", "a", "-o", "b", "--after", "digits-v1", "--start", "earliest"],
        ["inference", "update"],
        ["kafka-cluster", "create", "east", "garbage"],
        ["kafka-cluster", "create", "east", "east:9092", "--option", "sasl.password"],
        ["inference", "update", "digits", "--max-wait", "61"],
        ["infer", "1", "-i", "a", "-o", "b", "--max-wait", "61"],
        ["train", "digits", "--deadline", "nan"],
        ["train", "digits", "--decode-error-limit", "nan"],
        ["train", "digits", "--decode-error-limit", "1.5"],
        ["train", "--from-result", "1", "--accept-count-mismatch"],
        ["train", "--from-result", "1", "--decode-error-limit", "0.1"],
        ["stream", "announce", "-t", "t", "-d", "1", "-f", "raw", "--since", "99999999999d"],
        ["model", "alias", "set", "digits", "champion", "v99999999999999999999"],
        ["up", "--kafka", "garbage"],
        ["up", "--kafka", "127.0.0.1:99999"],
        ["demo", "--kafka", "127.0.0.1:9092,:1"],
        ["send", __file__, "-t", "t", "-d", "1", "--kafka", "garbage"],
        ["up", "--port", "8099", "--gateway-port", "8099"],
        ["demo", "--logger-port", "8099", "--broker-port", "8099"],
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("headrace: ")
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("words", "largest"),
    [
        (["train", "digits", "--batch-size"], 2**31 - 1),
        (["train", "digits", "--seed"], 2**32 - 1),
        (["train", "digits", "--stream"], 2**63 - 1),
        (["train", "digits", "--from-result"], 2**63 - 1),
        (["train", "digits", "--checkpoint-interval"], 315_576_000_000),
        (["train", "digits", "--deadline"], 315_576_000_000),
        (["send", __file__, "-t", "t", "--deployment"], 2**63 - 1),
        (["send", __file__, "-t", "t", "-d", "1", "--partitions"], 2**31 - 1),
        (["stream", "announce", "-t", "t", "-f", "raw", "--deployment"], 2**63 - 1),
        (["stream", "announce", "-t", "t", "-f", "raw", "-d", "1", "--partition"], 2**31 - 1),
        (["stream", "list", "--deployment"], 2**63 - 1),
        (["stream", "show"], 2**63 - 1),
        (["stream", "head"], 2**63 - 1),
        (["result", "show"], 2**63 - 1),
        (["result", "compare", "1"], 2**63 - 1),
        (["result", "list", "--deployment"], 2**63 - 1),
        (["result", "list", "--limit"], 2**31 - 1),
        (["deployment", "show"], 2**63 - 1),
        (["infer"], 2**63 - 1),
        (["infer", "1", "-i", "a", "-o", "b", "--replicas"], 2**31 - 1),
        (["infer", "1", "-i", "a", "-o", "b", "--max-rows"], 2**31 - 1),
        (["inference", "scale", "digits"], 2**31 - 1),
        (["inference", "update", "digits", "--result"], 2**63 - 1),
        (["inference", "update", "digits", "--max-rows"], 2**31 - 1),
        (["model", "alias", "set", "digits", "champion", "v2", "--expect"], 2**63 - 1),
    ],
)
def test_a_number_out_of_range_is_told_with_the_range(
    words: list[str], largest: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main([*words, str(largest + 1)]) == 2
    said = capsys.readouterr().err
    assert str(largest) in said
    assert "bug" not in said


@pytest.mark.parametrize("words", [["up"], ["up", "--detach"], ["status"], ["down"], ["broker"], ["model", "list"]])
@pytest.mark.parametrize("below", ["", "x"])
def test_a_home_that_is_no_folder_is_told(tmp_path: Path, words: list[str], below: str) -> None:
    file = tmp_path / "file"
    file.touch()
    done = _headrace(*words, home=file / below)
    assert done.returncode == 1
    assert f"{file} is not a folder" in done.stderr
    assert "HEADRACE_HOME" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_home_that_cannot_be_written_is_told() -> None:
    done = _headrace("up", home=Path("/proc/headrace"))
    assert done.returncode == 1
    assert "/proc/headrace cannot be written" in done.stderr
    assert "HEADRACE_HOME" in done.stderr


def test_without_a_control_plane_every_command_says_how_to_start_one(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    done = _headrace("model", "list", home=tmp_path, environment={"HEADRACE_ADDRESS": address})
    assert done.returncode == 4
    assert address in done.stderr
    assert "headrace up" in done.stderr
    assert done.stderr.count("\n") == 1


def test_status_and_down_of_an_empty_home(tmp_path: Path) -> None:
    status = _headrace("status", home=tmp_path)
    assert status.returncode == 4
    assert "headrace up" in status.stderr
    down = _headrace("down", home=tmp_path)
    assert down.returncode == 0
    assert "No platform is running" in down.stdout


def test_a_kafka_that_does_not_answer_is_told_within_seconds(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    ports = [word for option in ("--port", "--gateway-port", "--logger-port") for word in (option, "0")]
    done = _headrace("up", "--kafka", address, *ports, home=tmp_path)
    assert done.returncode == 4
    assert address in done.stderr
    assert "--kafka" in done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFound(error_pb2.REASON_RESOURCE_NOT_FOUND, "no model"), 3),
        (Unavailable(error_pb2.REASON_SERVICE_UNAVAILABLE, "away"), 4),
        (Unavailable(error_pb2.REASON_KAFKA_UNAVAILABLE, "away"), 4),
        (InvalidArgument(error_pb2.REASON_CODE_ERROR, "line 3"), 1),
        (Internal(error_pb2.REASON_INTERNAL_ERROR, "bug"), 1),
    ],
)
def test_exit_codes(error: HeadraceError, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.report(error) == code
    assert f"[{error.reason_name}]" in capsys.readouterr().err


def test_every_bad_field_is_told_once() -> None:
    fields = [FieldViolation("model.name", "must not be empty"), FieldViolation("model.code", "must not be empty")]
    error = InvalidArgument(error_pb2.REASON_INVALID_FIELD, "2 fields are wrong", fields=fields)
    assert main.sentence(error).splitlines() == [
        "2 fields are wrong [INVALID_FIELD]",
        "  model.name: must not be empty",
        "  model.code: must not be empty",
    ]


def test_a_bug_is_one_sentence_with_its_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HEADRACE_DEBUG", raising=False)
    assert main.report(KeyError("what?")) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    log = Path(said.partition("details are in ")[2].partition(",")[0])
    assert "KeyError" in log.read_text()
    log.unlink()
    monkeypatch.setenv("HEADRACE_DEBUG", "1")
    main.report(KeyError("what?"))
    assert "KeyError" in capsys.readouterr().err
