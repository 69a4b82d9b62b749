"""CodeExecutor over real sockets: typed verdicts, and other requests are served meanwhile."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from executors.__main__ import executor
from executors.settings import Settings
from headrace.client import connect_async
from headrace.errors import HeadraceError
from headrace.settings import SettingsError, load
from headrace.v1 import code_executor_pb2 as pb
from headrace.v1 import model_pb2
from headrace.v1.code_executor_pb2_grpc import CodeExecutorStub
from headrace.v1.deployment_pb2 import FrameworkArguments
from sandbox.limits import Limits
from sandbox.session import WorkerSession
from tests.executors.odd_code import GOOD, ODD
from tests.frameworks.models import KERAS, TORCH
from tests.sandbox.workers import processes_with, start_plain

SERVING = health_pb2.HealthCheckResponse.SERVING


class Client:
    """Calls one executor."""

    def __init__(self, channel: Any, framework: int) -> None:
        self._stub = CodeExecutorStub(channel)
        self._health: Any = health_pb2_grpc.HealthStub(channel)
        self._framework: Any = framework

    async def validate(self, code: str, imports: str = "", /, **changes: Any) -> pb.ValidateCodeResponse:
        request = pb.ValidateCodeRequest(framework=self._framework, imports=imports, code=code)
        for name, value in changes.items():
            setattr(request, name, value)
        answer: pb.ValidateCodeResponse = await self._stub.ValidateCode(request, timeout=120)
        return answer

    async def check(self, fit_args: str, evaluate_args: str = "") -> pb.ValidateSettingsResponse:
        arguments = FrameworkArguments(fit_args=fit_args, evaluate_args=evaluate_args)
        request = pb.ValidateSettingsRequest(framework=self._framework, arguments=arguments)
        answer: pb.ValidateSettingsResponse = await self._stub.ValidateSettings(request, timeout=120)
        return answer

    async def export(self) -> None:
        await self._stub.Export(pb.ExportRequest(result_id=1, format="onnx"), timeout=10)

    async def health(self) -> int:
        answer = await self._health.Check(health_pb2.HealthCheckRequest(service="headrace.v1.CodeExecutor"), timeout=10)
        return int(answer.status)

    async def until_ready(self) -> None:
        async for answer in self._health.Watch(health_pb2.HealthCheckRequest(), timeout=180):
            if answer.status == SERVING:
                return


Serve = Callable[..., Any]


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Starts executors whose workers have no framework, and clients to them."""
    async with AsyncExitStack() as stack:

        async def serve(start: Any = start_plain, **settings: Any) -> Client:
            chosen = replace(Settings("127.0.0.1:0", "tensorflow", home=tmp_path / "home"), **settings)
            return await stack.enter_async_context(serving(chosen, start))

        yield serve


@asynccontextmanager
async def serving(settings: Settings, start: Any = WorkerSession.start) -> AsyncIterator[Client]:
    async with (
        executor(settings, start) as server,
        connect_async(f"127.0.0.1:{server.port}") as channel,
    ):
        framework = {"tensorflow": model_pb2.FRAMEWORK_TENSORFLOW, "pytorch": model_pb2.FRAMEWORK_PYTORCH}
        yield Client(channel, framework[settings.framework])


async def test_good_code_is_described(serve: Serve) -> None:
    client = await serve()
    answer = await client.validate("print('hello')\n" + GOOD)
    assert answer.signature.summary == "a function"
    assert (answer.output, answer.framework_version) == ("hello\n", "plain 1")
    assert list(answer.diagnostics) == []
    assert answer.duration.ToNanoseconds() > 0


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("x = (\nmodel = 1", ("CODE_ERROR", "code", 1, 5)),
        ("\n\nmodel = undefined", ("CODE_ERROR", "code", 3, 9)),
        ("x = 5", ("NO_MODEL", "code", 1, 1)),
        ("raise ValueError('\\ud800')", ("CODE_ERROR", "code", 1, 1)),
        ("import sys; sys.stdout = None; 1 / 0", ("CODE_ERROR", "code", 1, 32)),
        ("while True: pass", ("DEADLINE", "", 0, 0)),
        ("import os; os._exit(0)", ("WORKER_CRASHED", "", 0, 0)),
        ("import ctypes\nctypes.string_at(0)", ("WORKER_CRASHED", "code", 2, 0)),
        ("x = []\nwhile True: x.append(b'x' * 2**24)", ("OUT_OF_MEMORY", "", 0, 0)),
        ("while True: print('x' * 10000)", ("OUTPUT_LIMIT", "", 0, 0)),
        ("import os\nwhile True: os.fork()", ("WORKER_CRASHED", "", 0, 0)),
        (
            "import os\nfor fd in range(3, 1000):\n  try: os.write(fd, b'x' * 99)\n  except OSError: pass",
            ("WORKER_PROTOCOL", "", 0, 0),
        ),
    ],
)
async def test_wrong_code_gets_a_typed_verdict_and_harms_nothing_else(
    serve: Serve, tmp_path: Path, code: str, wanted: tuple[str, str, int, int]
) -> None:
    client = await serve(validation_s=5.0, memory_bytes=400 * 2**20)
    bad, good = await asyncio.gather(client.validate(code), client.validate(GOOD))
    [found] = bad.diagnostics
    assert (found.reason, found.file, found.line, found.column) == wanted
    assert not bad.HasField("signature")
    assert good.HasField("signature")
    assert len(bad.output) < 70_000
    assert (await client.validate(GOOD)).HasField("signature")
    # One folder is left: that of the spare.
    assert len(list((tmp_path / "home" / "validations").iterdir())) <= 1


@pytest.mark.chaos
async def test_every_odd_file_gets_its_verdict_and_the_executor_goes_on(serve: Serve) -> None:
    assert len(ODD) >= 40
    client = await serve(validations=4, queue=len(ODD), validation_s=10.0, memory_bytes=400 * 2**20)
    answers = await asyncio.gather(*(client.validate(code) for code, _ in ODD.values()))
    verdicts = {name: [found.reason for found in answer.diagnostics] for name, answer in zip(ODD, answers, strict=True)}
    assert verdicts == {name: [wanted] if wanted else [] for name, (_, wanted) in ODD.items()}
    assert all(answer.HasField("signature") != bool(answer.diagnostics) for answer in answers)
    assert (await client.validate(GOOD)).HasField("signature")


async def test_what_code_started_is_gone_with_the_answer(serve: Serve, tmp_path: Path) -> None:
    marker = f"daemon-of-{tmp_path.name}"
    code = (
        "import os, sys\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        f"        os.execv(sys.executable, [sys.executable, '-S', '-c', 'import time; time.sleep(1000)', '{marker}'])\n"
        "    os._exit(0)\n" + GOOD
    )
    client = await serve()
    assert (await client.validate(code)).HasField("signature")
    assert processes_with(marker) == []


async def test_chatty_code_is_cut_and_not_refused(serve: Serve) -> None:
    client = await serve()
    answer = await client.validate("for i in range(10000): print('x' * 99)\n" + GOOD)
    assert answer.HasField("signature")
    assert 65_000 < len(answer.output) < 66_000


async def test_a_full_queue_is_said_at_once(serve: Serve) -> None:
    client = await serve(validations=1, queue=1, validation_s=1.0)
    calls = [asyncio.create_task(client.validate("while True: pass")) for _ in range(4)]
    done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    for call in done:
        error = call.exception()
        assert isinstance(error, HeadraceError)
        assert error.reason_name == "OVERLOADED"
        assert error.retry_after_s is not None
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    answers = [outcome for outcome in outcomes if isinstance(outcome, pb.ValidateCodeResponse)]
    assert [answer.diagnostics[0].reason for answer in answers] == ["DEADLINE"] * 2


async def test_a_client_that_goes_away_leaves_no_worker(serve: Serve, tmp_path: Path) -> None:
    client = await serve(validations=1)
    call = asyncio.create_task(client.validate("while True: pass"))
    await client.check("")  # the spare after the one that is busy now
    call.cancel()
    # There is room for one: it would wait for the whole deadline of the other.
    began = time.monotonic()
    await client.validate(GOOD)
    assert time.monotonic() - began < 15


async def test_settings_are_checked_without_using_a_worker_up(serve: Serve) -> None:
    started: list[WorkerSession] = []

    def start(framework: str, **options: Any) -> WorkerSession:
        started.append(start_plain(framework, **options))
        return started[-1]

    client = await serve(start)
    for _ in range(3):
        answer = await client.check("epochs=5, colour=3", "verbose=0")
        assert [(found.file, found.reason) for found in answer.diagnostics] == [
            ("fit_args", "UNKNOWN_ARGUMENT"),
            ("evaluate_args", "UNKNOWN_ARGUMENT"),
        ]
        assert list(answer.known_fit_args) == ["epochs"]
    assert len(started) == 1


async def test_a_spare_that_dies_while_it_waits_is_replaced(serve: Serve) -> None:
    started: list[WorkerSession] = []

    def start(framework: str, **options: Any) -> WorkerSession:
        started.append(start_plain(framework, **options))
        return started[-1]

    client = await serve(start)
    await client.until_ready()
    started[0].kill()
    assert (await client.validate(GOOD)).HasField("signature")


async def test_folders_of_an_executor_that_was_killed_are_removed(serve: Serve, tmp_path: Path) -> None:
    nobody = int(Path("/proc/sys/kernel/pid_max").read_text()) + 1
    left = tmp_path / "home" / "validations" / f"headrace-{nobody}-abc"
    left.mkdir(parents=True)
    client = await serve()
    await client.until_ready()
    assert not left.exists()


async def test_health_waits_for_the_first_spare(serve: Serve) -> None:
    may_start = asyncio.Event()
    loop = asyncio.get_running_loop()

    def start(framework: str, **options: Any) -> WorkerSession:
        asyncio.run_coroutine_threadsafe(may_start.wait(), loop).result()
        return start_plain(framework, **options)

    client = await serve(start)
    assert await client.health() != SERVING
    may_start.set()
    await client.until_ready()
    assert await client.health() == SERVING


async def test_a_framework_that_is_missing_is_said_with_the_command(serve: Serve, tmp_path: Path) -> None:
    def start(framework: str, *, limits: Limits, folder: Path) -> WorkerSession:
        return start_plain("missing", limits=limits, folder=folder)

    client = await serve(start)
    for _ in range(2):
        with pytest.raises(HeadraceError) as caught:
            await client.validate(GOOD)
        assert caught.value.reason_name == "NOT_INSTALLED"
        assert "pip install" in caught.value.message
    await client.until_ready()


async def test_a_request_that_makes_no_sense_is_refused(serve: Serve) -> None:
    client = await serve()
    for changes in ({"framework": model_pb2.FRAMEWORK_PYTORCH}, {"code": " \n"}, {"code": "x" * (1024 * 1024 + 1)}):
        with pytest.raises(HeadraceError) as caught:
            await client.validate(GOOD, **changes)
        assert caught.value.reason_name == "INVALID_FIELD"
        assert caught.value.fields


async def test_an_executor_without_a_control_plane_exports_nothing_and_says_what_it_needs(serve: Serve) -> None:
    client = await serve()
    with pytest.raises(HeadraceError) as caught:
        await client.export()
    assert caught.value.reason_name == "WRONG_STATE"
    assert "HEADRACE_ADDRESS" in caught.value.message


def test_settings_say_what_is_wrong() -> None:
    environ = {"HEADRACE_LISTEN": "here", "HEADRACE_FRAMEWORK": "fortran", "HEADRACE_VALIDATION_S": "0"}
    with pytest.raises(SettingsError) as caught:
        load(Settings, environ)
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize("models", [KERAS, TORCH], ids=["tensorflow", "pytorch"])
async def test_a_warm_validation_is_quick(models: Any, tmp_path: Path) -> None:
    settings = Settings("127.0.0.1:0", models.framework, home=tmp_path)
    async with serving(settings) as client:
        assert models.epochs in (await client.check("")).known_fit_args
        began = time.monotonic()
        answer = await client.validate(models.classifier)
        took = time.monotonic() - began
        assert answer.signature.parameter_count == 67
        # The target is 0.5 s in the median; a busy machine gets some leave.
        assert took < 2.0
