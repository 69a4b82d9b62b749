"""The replicas of an inference: started as the local cluster starts them, and started again when they end."""

import os
import random
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from control_plane.cluster import Exit, Observed, Workload
from control_plane.local import LocalCluster
from headrace.process import EXIT_OK
from tests.support import eventually

CHILD = "tests.inferencer.faults.child"
POLL_S = 0.03
STOP_GRACE_S = 30.0
PLACES = ("after_consume", "after_predict", "after_produce", "before_commit", "after_commit")


@dataclass
class Place:
    """One replica slot: what should run there."""

    attempt: int = 0
    name: str = ""
    is_wanted: bool = True
    ended_well: bool = True
    """The last process that ended."""


@dataclass(frozen=True)
class Zombie:
    """A process that is stopped while another one is to have its slot."""

    slot: int
    pid: int


@dataclass
class Endings:
    """How processes ended."""

    killed: int = 0
    """By SIGKILL, from outside or at a failpoint."""
    killed_at: Counter[str] = field(default_factory=Counter)
    """Failpoint to how many were told to end there."""
    codes: Counter[int] = field(default_factory=Counter)


class Fleet:
    """Keeps a process in each slot. A context manager: leaving it stops all of them.

    fails: how likely a process is to be told to die at a failpoint.
    """

    def __init__(
        self, home: Path, environment: Mapping[str, str], inference_id: int, *, seed: int = 0, fails: float = 0.0
    ) -> None:
        self._environment, self._inference_id = dict(environment), inference_id
        self._cluster = LocalCluster(home, command=lambda _: (sys.executable, "-m", CHILD))
        self._home = home
        self._rng, self._fails = random.Random(f"fleet/{seed}"), fails
        self._lock = threading.Lock()
        self._places: dict[int, Place] = {}
        self._zombies: dict[str, Zombie] = {}  # by name
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="fleet")
        self.failure: Exception | None = None
        self.endings = Endings()
        self.once: dict[int, str] = {}
        """Slot to the HEADRACE_FAIL of its next process."""

    def __enter__(self) -> "Fleet":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def scale(self, slots: int) -> None:
        """From now on so many; the others are asked to end."""
        with self._lock:
            for slot in range(slots):
                self._places.setdefault(slot, Place()).is_wanted = True
            for slot, place in self._places.items():
                place.is_wanted = slot < slots
        self.turn()

    @property
    def slots(self) -> list[int]:
        """That are wanted."""
        with self._lock:
            return [slot for slot, place in self._places.items() if place.is_wanted]

    def process(self, slot: int) -> psutil.Process | None:
        """What runs in the slot."""
        with self._lock:
            observed = self._cluster.list().workloads.get(self._places[slot].name)
        if observed is None or observed.pid is None or not observed.is_running:
            return None
        try:
            return psutil.Process(observed.pid)
        except psutil.NoSuchProcess:
            return None

    def workers(self, slot: int) -> list[psutil.Process]:
        """The workers of the slot's process: the one that answers, and spares."""
        if (process := self.process(slot)) is None:
            return []
        try:
            family = process.children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return [one for one in family if _is_worker(one)]

    def freeze(self, slot: int) -> str:
        """Stops the slot's process (SIGSTOP) and has another one started in its place; returns its name, or ""."""
        process = self.process(slot)
        if process is None:
            return ""
        with self._lock:
            place = self._places[slot]
            try:
                process.send_signal(signal.SIGSTOP)
            except psutil.NoSuchProcess:  # It was about to end.
                return ""
            self._zombies[place.name] = Zombie(slot, process.pid)
            frozen, place.name = place.name, ""
        self.turn()
        return frozen

    def thaw(self, name: str) -> Exit:
        """Lets a frozen process go on (SIGCONT), and waits for its end.

        Whoever has its slot fences it; where nobody is to have the slot any more it is asked to end, as by the cluster.
        """
        zombie = self._zombies[name]
        with suppress(ProcessLookupError):  # It was about to end when it was stopped.
            os.kill(zombie.pid, signal.SIGCONT)
        if zombie.slot not in self.slots:
            self._cluster.stop(name, STOP_GRACE_S)
        return self.await_end(name)

    def await_end(self, name: str) -> Exit:
        """How a process that was replaced ended."""

        def ended() -> Exit | None:
            return self._cluster.list().workloads[name].exit

        try:
            found = eventually(ended, timeout_s=60)
        except AssertionError as error:
            wrote = (self._home / "logs" / f"{name}.log").read_text()
            raise AssertionError(f"{self._zombies[name]} does not end ({self._cluster.list()}): {wrote}") from error
        self._cluster.forget(name)
        del self._zombies[name]
        assert found is not None
        return found

    @property
    def may_have_left_open(self) -> bool:
        """Once they are stopped: whether a transaction may be open whose slot has no process any more to end it."""
        return any(not place.is_wanted or not place.ended_well for place in self._places.values())

    @property
    def logs(self) -> str:
        """What all processes wrote."""
        return "".join(path.read_text() for path in sorted((self._home / "logs").glob("*.log")))

    @property
    def last_words(self) -> str:
        """The tracebacks among them."""
        found = re.findall(r"(?:Traceback|Timeout) .*(?:\n(?!\{).*)*", self.logs)
        return "\n".join(found)

    def open_files(self) -> dict[int, int]:
        """Slot to the number of file descriptors of its process."""
        return {slot: process.num_fds() for slot in self.slots if (process := self.process(slot)) is not None}

    def stop(self) -> None:
        """Asks all to end, and returns when nothing of them is left."""
        self._stop.set()
        self._thread.join()
        deadline = time.monotonic() + STOP_GRACE_S
        while running := [one for one in self._cluster.list().workloads.values() if one.is_running]:
            for one in running:
                self._cluster.stop(one.name, STOP_GRACE_S if time.monotonic() < deadline else 0.0)
            time.sleep(POLL_S)
        for one in self._cluster.list().workloads.values():
            self._bury(one)

    def left_over(self) -> list[str]:
        """Processes that still belong to this fleet."""
        mark, found = str(self._home), []
        for process in psutil.process_iter():
            try:
                if process.pid != os.getpid() and (mark in process.cwd() or process.environ().get("HOME") == mark):
                    found.append(" ".join(process.cmdline()))
            except psutil.Error:
                continue
        return found

    def turn(self) -> None:
        """Starts what is missing, and stops what is too many."""
        with self._lock:
            seen = self._cluster.list().workloads
            for slot, place in self._places.items():
                self._attend(slot, place, seen.get(place.name))

    def _watch(self) -> None:
        try:
            while not self._stop.wait(POLL_S):
                self.turn()
        except Exception as error:
            self.failure = error

    def _attend(self, slot: int, place: Place, observed: Observed | None) -> None:
        if observed is not None and not observed.is_running:
            self._bury(observed)
            observed = None
        if observed is not None and not place.is_wanted:
            self._cluster.stop(observed.name, STOP_GRACE_S)
        elif observed is None and place.is_wanted:
            self._start(slot, place)

    def _bury(self, observed: Observed) -> None:
        ended = observed.exit
        assert ended is not None
        if ended.signal == signal.SIGKILL or (ended.code is None and ended.signal is None):
            self.endings.killed += 1
        elif ended.code is not None:
            self.endings.codes[ended.code] += 1
        for place in self._places.values():
            if place.name == observed.name:
                place.ended_well = ended.code == EXIT_OK
        self._cluster.forget(observed.name)

    def _start(self, slot: int, place: Place) -> None:
        place.attempt += 1
        place.name = f"infer-{self._inference_id}-{slot}-a{place.attempt}"
        fail = self.once.pop(slot, "") or self._random_fail()
        environment = {
            **self._environment,
            "HEADRACE_INFERENCE_ID": str(self._inference_id),
            "HEADRACE_SLOT": str(slot),
            "HEADRACE_ATTEMPT": str(place.attempt),
            "HEADRACE_FAIL": fail,
        }
        self._cluster.start(Workload(place.name, CHILD, environment, place.name, attempt=place.attempt))

    def _random_fail(self) -> str:
        if self._rng.random() >= self._fails:
            return ""
        place = self._rng.choice(PLACES)
        self.endings.killed_at[place] += 1
        return f"{place}:exit@{self._rng.randint(1, 4)}"


def _is_worker(process: psutil.Process) -> bool:
    """Not one that has ended, which may wait for its parent for as long as that is idle."""
    try:
        return any("worker" in part for part in process.cmdline()[-5:])
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False
