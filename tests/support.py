"""What tests share: waiting for a condition, threads for a block, free ports, processes that heed Ctrl-C."""

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


def eventually(condition: Callable[[], T], *, timeout_s: float = 10.0, every_s: float = 0.05) -> T:
    """The first truthy value of `condition`. The only place in the tests that waits by the clock.

    An AssertionError of the condition counts as "not yet"; the last one is raised when the time is over.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            value = condition()
            if value:
                return value
            problem: AssertionError | None = None
        except AssertionError as error:
            problem = error
        if time.monotonic() > deadline:
            raise problem or AssertionError(f"not within {timeout_s} s; the last value was {value!r}")
        time.sleep(every_s)


@contextmanager
def on_thread(run: Callable[[threading.Event], None], name: str) -> Iterator[None]:
    """While the block runs. `run` gets the event that is set at its end, and is waited for."""
    stop = threading.Event()
    thread = threading.Thread(target=run, args=[stop], name=name)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def free_port() -> int:
    """A port that nothing uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def heed_interrupts() -> None:
    """For `preexec_fn` of a command that is to be sent Ctrl-C: whoever started the tests with `&` ignores it, and what
    is ignored stays so in every child.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
