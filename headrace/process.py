"""The life of a process: signals, its parent's death, exit codes."""

import ctypes
import gc
import logging
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from headrace import logs
from headrace.errors import HeadraceError, Unavailable
from headrace.settings import SettingsError

log = logging.getLogger(__name__)

EXIT_OK = 0
EXIT_BUG = 1
EXIT_USAGE = 2
EXIT_FAILED = 10
EXIT_FENCED = 11
EXIT_RETRY = 75

_PR_SET_PDEATHSIG = 1
_OPEN_FILES = 65_536
# New objects before a look for garbage, and so many looks before one that reaches further. Python's 700, 10, 10 have a
# server with a thousand streams stand still for a tenth of a second every now and then.
_GARBAGE_THRESHOLDS = (20_000, 20, 20)


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set. Only in the main thread."""
    stop = threading.Event()
    signals = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: stop.set()) for number in signals]
    try:
        yield stop
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def die_with_parent(parent_pid: int | None = None, number: int = signal.SIGKILL) -> None:
    """Has the kernel send `number` to this process when its parent dies (Linux).

    `parent_pid`: who the parent should be; if it is another already, it died before this call, and so do we.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if parent_pid is not None and os.getppid() != parent_pid:
        os.kill(os.getpid(), number)


def run_main(main: Callable[[], int | None]) -> NoReturn:
    """Runs a service's main and exits with its code; what it raises becomes one line and an exit code.

    Wrong settings: EXIT_USAGE. Unavailable: EXIT_RETRY. Another HeadraceError: EXIT_FAILED. A bug: EXIT_BUG, with its
    traceback in the log.
    """
    _allow_open_files()
    _look_for_garbage_seldom()
    try:
        code = main() or EXIT_OK
    except SettingsError as error:
        print(error, file=sys.stderr)
        code = EXIT_USAGE
    except HeadraceError as error:
        log.error("stopped", extra=logs.error_fields(error))
        code = EXIT_RETRY if isinstance(error, Unavailable) else EXIT_FAILED
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except Exception:
        log.exception("stopped by a bug")
        code = EXIT_BUG
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)


def _look_for_garbage_seldom() -> None:
    """And never among what was imported: it lives as long as the process."""
    gc.freeze()
    gc.set_threshold(*_GARBAGE_THRESHOLDS)


def _allow_open_files() -> None:
    """A server has a file for each connection. A shell gives a process 1,024, which it may raise by itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, _OPEN_FILES)), hard))
