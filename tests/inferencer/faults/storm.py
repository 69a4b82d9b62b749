"""Faults in an order drawn from a seed, while records flow."""

import math
import random
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import psutil

from benchmarks.faults import Sums
from cli.broker import Broker
from tests.inferencer.faults.trial import Trial
from tests.support import eventually

# So long a process that is killed must not have found its way back, or it never would.
PATIENCE_S = 30.0


@dataclass
class Frozen:
    """A process that is stopped until its time has come."""

    name: str
    until: float


@dataclass
class Storm:
    """`run` does the faults that are wished for, by name: those of `_faults`."""

    trial: Trial
    seed: int
    broker: Broker | None = None
    pause_s: float = 0.5
    """The longest time between two faults."""
    replicas: tuple[int, int] = (2, 4)
    """The fewest and the most."""
    done: int = 0
    wished: int = 1
    sums: Sums = field(default_factory=Sums)

    def __post_init__(self) -> None:
        self._rng = random.Random(f"storm/{self.seed}")
        self._began, self._within_s = math.inf, 1.0
        self._frozen: list[Frozen] = []
        self._faults: Mapping[str, Callable[[], bool]] = {
            "kill replica": self._kill_replica,
            "kill worker": self._kill_worker,
            "freeze": self._freeze,
            "sleep": self._sleep,
            "scale": self._scale,
            "swap": self._swap,
            "kill broker": self._kill_broker,
        }

    @property
    def progress(self) -> float:
        """The part of the faults that is done, one ahead, or of their time: so much of the load should be on its way.

        A replica without a question does not see that its workers were killed, and has none to kill.
        """
        passed = (time.monotonic() - self._began) / self._within_s
        return min(1.0, max(passed, (self.done + 1) / self.wished))

    def run(self, wishes: Mapping[str, int], *, within_s: float) -> None:
        """All of them in random order; those that there is no time for are left out."""
        order = [name for name, count in wishes.items() for _ in range(count)]
        self._rng.shuffle(order)
        self.wished, self._began, self._within_s = max(1, len(order)), time.monotonic(), within_s
        deadline = self._began + within_s
        for name in order:
            if time.monotonic() > deadline:
                break
            self.trial.check()
            eventually(self._faults[name], timeout_s=PATIENCE_S)
            self.done += 1
            self._thaw_due()
            time.sleep(self._rng.uniform(0, self.pause_s))
        self.done = self.wished
        self._thaw_due(all_of_them=True)

    def _kill_replica(self) -> bool:
        process = self.trial.fleet.process(self._slot())
        return self._kill(process)

    def _kill_worker(self) -> bool:
        workers = self.trial.fleet.workers(self._slot())
        if workers and self._kill(self._rng.choice(workers)):
            self.sums.worker_kills += 1
            return True
        return False

    def _kill(self, process: psutil.Process | None) -> bool:
        try:
            if process is None or process.status() == psutil.STATUS_ZOMBIE:
                return False
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            return False
        return True

    def _freeze(self) -> bool:
        """A process goes on when another one has its slot already."""
        name = self.trial.fleet.freeze(self._slot())
        if not name:
            return False
        self._frozen.append(Frozen(name, time.monotonic() + self._rng.uniform(0.2, 4.0)))
        self.sums.zombies += 1
        return True

    def _sleep(self) -> bool:
        """A process goes on when the group has given its partitions to others."""
        process = self.trial.fleet.process(self._slot())
        if process is None:
            return False
        try:
            process.send_signal(signal.SIGSTOP)
            time.sleep(self._rng.uniform(2.0, 5.0))
            process.send_signal(signal.SIGCONT)
        except psutil.NoSuchProcess:  # It was about to end.
            return False
        self.sums.zombies += 1
        self.sums.rebalances += 1
        return True

    def _scale(self) -> bool:
        least, most = self.replicas
        now = len(self.trial.fleet.slots)
        self.trial.fleet.scale(now + 1 if now == least or (now < most and self._rng.random() < 0.5) else now - 1)
        self.sums.rebalances += 1
        return True

    def _swap(self) -> bool:
        self.trial.swap()
        self.sums.swaps += 1
        return True

    def _kill_broker(self) -> bool:
        assert self.broker is not None
        self.broker.kill()
        self.broker.start()
        self.broker.wait_ready()
        self.sums.broker_kills += 1
        return True

    def _thaw_due(self, *, all_of_them: bool = False) -> None:
        now = time.monotonic()
        due = [one for one in self._frozen if all_of_them or one.until <= now]
        self._frozen = [one for one in self._frozen if one not in due]
        for one in due:
            self.trial.fleet.thaw(one.name)

    def _slot(self) -> int:
        return self._rng.choice(self.trial.fleet.slots)
